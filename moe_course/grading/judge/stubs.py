"""Code that computes nothing: its answer is one number everywhere, or its input. It gets a sentence, not a name."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any

import torch

from moe_course.grading.exercises.protocol import Outcome
from moe_course.grading.judge.subject import Probe, Subject

ARGUMENTS = 0.8  # a probe of another kind, about gradients say, may be among those that return an argument


class Watched:
    """A subject whose calls are remembered: for each reply that is no exception, the arguments and the reply."""

    def __init__(self, subject: Subject):
        self.subject, self.largest, self.stood_in = subject, subject.largest, subject.stood_in
        self.calls: list[tuple[Any, Any]] = []
        self.raises = False  # whether any line of the learner's code raised an exception

    @property
    def printed(self) -> str:
        return self.subject.printed

    def run(self, probe: Probe, *args: Any, **kwargs: Any) -> Any:
        """Run a probe and remember it."""
        reply = self.subject.run(probe, *args, **kwargs)
        value = reply.value if isinstance(reply, Outcome) else reply
        error = reply.error if isinstance(reply, Outcome) else None
        if error is None:
            self.calls.append((args, value))
        elif error.line:
            self.raises = True
        return reply


def computes_nothing(calls: list[tuple[Any, Any]]) -> str:
    """A sentence about code that answers one number, or its first argument, in all of several calls; else ""."""
    answers = [(args, [*_numbers(value)]) for args, value in calls]
    answers = [(args, leaves) for args, leaves in answers if leaves]
    if len(answers) < 2:
        return ""
    arrays = [(args, leaves) for args, leaves in answers if leaves[0].dim()] or answers
    unchanged = sum(_is_argument(leaves[0], args) for args, leaves in arrays)
    if unchanged >= ARGUMENTS * len(arrays):
        return "Your code returns what it is given, as it is. Is the gap filled, and does its result reach `return`?"
    first = answers[0][1][0].flatten()[:1].double()
    everything = [leaf for _, leaves in answers for leaf in leaves]
    results = [leaves[0] for _, leaves in answers]
    if not first.numel() or not (_all(everything, first) or (first == 0 and _all(results, first))):
        return ""
    shown = bool(first) if answers[0][1][0].dtype == torch.bool else f"{first.item():g}"
    return f"Your code answers {shown} everywhere, whatever it is given. Is the gap filled?"


def _all(leaves: list[torch.Tensor], number: torch.Tensor) -> bool:
    return all(bool((leaf.double() == number).all()) for leaf in leaves)


def _is_argument(result: torch.Tensor, args: Any) -> bool:
    """Whether a result is the first argument of its kind: the first tensor, or the first number."""
    candidates = [
        leaf
        for leaf in _numbers(args)
        if (leaf.dim() > 0) == (result.dim() > 0)
        and (leaf.dtype == torch.bool) == (result.dtype == torch.bool)
    ]  # True is no number that came back
    return bool(candidates) and torch.equal(result.double(), candidates[0].double())


def _numbers(value: Any) -> Iterator[torch.Tensor]:
    """The tensors and numbers in a nested value, in order, as tensors."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, int) and abs(value) > sys.float_info.max:
        yield torch.tensor(math.inf if value > 0 else -math.inf, dtype=torch.float64)
    elif isinstance(value, bool | int | float):
        yield torch.tensor(value, dtype=None if isinstance(value, bool) else torch.float64)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _numbers(item)
