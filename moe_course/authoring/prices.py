"""What a mistake costs: the points that each catalogued misconception, and each trivial stub, keeps of an exercise.

    python -m moe_course.authoring.graders_report --prices [--seeds N] [EXERCISE...]

A core misconception (its idea is wrong) should keep less than 60 % of the points, hidden ones included; one of form
(a dtype, an edited input, an unchecked argument) at least 80 %; a stub that computes nothing less than a fifth.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moe_course.grading.exercises.registry import EXERCISES, Exercise
from moe_course.grading.judge.catalogue import entries
from moe_course.grading.judge.subject import LiveSubject
from moe_course.grading.judge.verdict import grade
from moe_course.tables import text_table

CORE, FORM, STUB = "core", "form", "stub"


@dataclass(frozen=True)
class Price:
    """The points that one wrong answer keeps, the least over the seeds for form and the most for the others."""

    exercise: str
    name: str
    kind: str  # "core", "form" or "stub"
    kept: float
    full: float
    passes: tuple[str, ...]  # the criteria that accept it, hidden ones included

    @property
    def share(self) -> float:
        return self.kept / self.full

    @property
    def fair(self) -> bool:
        """Whether the price is what such a mistake should cost."""
        if self.kind == FORM:
            return self.share >= 0.8
        return self.share < (0.6 if self.kind == CORE else 0.2)


def prices(name: str, root: Path, seeds: Sequence[int] = (1,)) -> list[Price]:
    """The price of every misconception of an exercise, in the catalogue's order, then of every stub."""
    found = []
    for entry in entries(root / "tests" / "misconceptions", name):
        kind = FORM if entry.form else CORE
        found.append(price(name, entry.name, kind, entry.namespace, seeds))
    for label, stub in stubs(EXERCISES[name]).items():
        found.append(price(name, label, STUB, {name: stub}, seeds))
    return found


def price(name: str, label: str, kind: str, namespace: Mapping[str, Any], seeds: Sequence[int]) -> Price:
    """What the definitions of `namespace` keep of the exercise `name`: the seed that is furthest from fair."""
    tried = []
    for seed in seeds:
        verdict = grade(name, LiveSubject(namespace), seed)
        passes = tuple(check.criterion.name for check in verdict.checks if check.status == "passed")
        tried.append(Price(name, label, kind, verdict.score, verdict.max_score, passes))
    worst = min if kind == FORM else max
    return worst(tried, key=lambda one: one.kept)


def stubs(exercise: Exercise) -> dict[str, Callable[..., Any]]:
    """Answers that compute nothing: None, zeros or ones where the library has its values, the first argument."""
    written = getattr(importlib.import_module(exercise.library), exercise.name)
    replies: dict[str, Callable[[Any, Sequence[Any]], Any]] = {
        "None": lambda right, args: None,
        "zeros": lambda right, args: filled(right, 0),
        "a constant": lambda right, args: filled(right, 1),
        "the input": lambda right, args: args[0] if args else None,
    }
    return {label: _stub(written, reply) for label, reply in replies.items()}


def _stub(written: Any, reply: Callable[[Any, Sequence[Any]], Any]) -> Callable[..., Any]:
    """The library's function (or the `forward` of its class), with a reply that is not computed from the input."""

    def around(call: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        try:
            right = call(*_copies(args), **kwargs)
        except Exception:  # what the library refuses a stub does not
            right = 0
        return reply(right, args)

    if not isinstance(written, type):
        return lambda *args, **kwargs: around(written, args, kwargs)

    class Stub(written):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            # A copy answers for its shapes: a stub calls none of the modules that it was given.
            return around(super(Stub, copy.deepcopy(self)).forward, args, kwargs)

    return Stub


def _copies(args: Sequence[Any]) -> Sequence[Any]:
    """Arguments to compute with, so that a stub changes nothing: a training step would train the model itself."""
    try:
        return copy.deepcopy(tuple(args))
    except (
        RuntimeError,
        TypeError,
    ):  # what autograd has made, generators and process groups cannot be copied
        return tuple(arg if len(args) == 1 else _copies((arg,))[0] for arg in args)


def filled(value: Any, number: int) -> Any:
    """The same structure, with `number` in place of every number: tensors keep their shape and dtype."""
    if isinstance(value, torch.Tensor):
        return torch.full_like(value, number, requires_grad=False)
    if isinstance(value, bool):
        return bool(number)
    if isinstance(value, int | float):
        return type(value)(number)
    if isinstance(value, tuple | list):
        return type(value)(filled(part, number) for part in value)
    if isinstance(value, dict):
        return {key: filled(part, number) for key, part in value.items()}
    return value


def lines(found: Sequence[Price]) -> Iterator[str]:
    """One line a price, unfair ones marked with "!", and the exercise's name before its first."""
    for exercise in dict.fromkeys(one.exercise for one in found):
        own = [one for one in found if one.exercise == exercise]
        yield f"\n{EXERCISES[exercise].number} {exercise}, {own[0].full:g} points"
        yield text_table([_cells(one) for one in own], left=(0, 1, 4, 5))
    unfair = sum(not one.fair for one in found)
    yield f"\n{len(found)} prices, {unfair} of them unfair (marked with !)"


def _cells(one: Price) -> tuple[str, ...]:
    passes = f"passes {', '.join(one.passes) or 'nothing'}"
    return " " if one.fair else "!", one.kind, f"{one.kept:g}", f"{one.share:.0%}", one.name, passes
