"""Reception and discharge: code as it was brought in, instruments to order, and the diagnosis compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from moe_course.grading.exercises import locate, registry
from moe_course.grading.submission import attempts
from moe_course.lesson import checking, predictions

SEEDS = (0, 1, 2)


def admitted(name: str) -> Any:
    """The code of an exercise of notebook 11 as it was released. Raises ValueError for another exercise."""
    exercise = registry.find(name)
    if exercise.notebook != "11_clinic":
        raise ValueError(f"{name} is no exercise of the clinic, but of notebook {exercise.notebook}")
    source = attempts.read(locate.released(exercise.notebook)).definitions[name]
    namespace: dict[str, Any] = {"torch": torch, "F": F, "dist": dist, "nn": nn, "__name__": "admitted"}
    exec(source, namespace)
    return namespace[name]


def order(name: str | None, instruments: Mapping[str, Callable[[], Any]]) -> None:
    """Run one instrument and print what it says; without a name, print which there are.

    Raises ValueError for a name that is not among them.
    """
    if name is None:
        print("To order, by name:", *(f'  "{each}"' for each in instruments), sep="\n")
    elif name not in instruments:
        raise ValueError(f"there is no instrument {name!r}; there are {', '.join(instruments)}")
    else:
        print(f"{name}:\n{instruments[name]()}")


def verdict(name: str, key: str, truth: int) -> None:
    """Compare the committed diagnosis `key` with the cause, once the exercise has passed its check."""
    if name in checking.passed:
        predictions.reveal(key, truth, "so the repair says that passed its check; the story is below")
    else:
        print(f"Your diagnosis is compared with the cause once {name} has passed its check.")
