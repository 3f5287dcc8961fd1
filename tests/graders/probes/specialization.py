"""Probes of notebook 08: a random number generator made beside the learner's code, and used more than once."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from graders.probes import call
from moe_course.grading.exercises.protocol import Outcome


def call_with_generator(
    namespace: Mapping[str, Any],
    name: str,
    /,
    args: Sequence[Any],
    seed: int,
    calls: int = 1,
    elsewhere: int = 0,
) -> Outcome:
    """The learner's `name(*args, generator)`, several times with one generator that starts from `seed`.

    All other random numbers start from `elsewhere`. The value is the list of results, the inputs are those of the
    last call.
    """
    torch.manual_seed(elsewhere)
    random.seed(elsewhere)
    np.random.seed(elsewhere)
    generator = torch.Generator().manual_seed(seed)
    using = {name: lambda *given: namespace[name](*given, generator)} if name in namespace else {}
    results = []
    for _ in range(calls):
        out = call(using, name, *args)
        if out.error is not None:
            return out
        results.append(out.value)
    return Outcome(value=results, inputs=out.inputs)
