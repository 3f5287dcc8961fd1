"""How a grader is written: an ordinary pytest class whose tests are the criteria of one exercise.

    @grades("top_k_gate")
    class TestTopKGate:
        @criterion(2, "the k largest are chosen", hint="Which dimension does topk look along?")
        def test_chooses_the_largest(self, subject, rng): ...

        def behaviour(self, subject): ...   # replies to a fixed probe set, for diagnosis

A criterion takes `subject`, through which it reaches the learner's code, and `rng`, a seeded torch.Generator.
Criteria stand in order from fundamental to subtle.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from moe_course.grading.locate import make_graders_importable
from moe_course.grading.registry import Exercise, find

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., None])


@dataclass(frozen=True)
class Criterion:
    """One line of a rubric. `name` is the test's name without `test_`; the hint is a question."""

    name: str
    title: str
    points: int
    hint: str


def criterion(points: int, title: str, hint: str) -> Callable[[F], F]:
    """Make a test method a criterion worth `points`."""
    if type(points) is not int or points < 1:
        raise ValueError(f"a criterion is worth a whole number of points, at least 1, not {points!r}")
    if not hint.endswith("?"):
        raise ValueError(f"a hint is a question, and {hint!r} is not")

    def mark(test: F) -> F:
        test.criterion = Criterion(test.__name__.removeprefix("test_"), title, points, hint)  # type: ignore[attr-defined]
        return test

    return mark


def grades(name: str) -> Callable[[C], C]:
    """Make a pytest class the grader of the exercise `name`."""
    exercise = find(name)

    def mark(cls: C) -> C:
        cls.exercise = exercise  # type: ignore[attr-defined]
        return cls

    return mark


def criteria(grader: type) -> tuple[Criterion, ...]:
    """The rubric of a grader class, in the order in which its tests are written."""
    return tuple(test.criterion for test in vars(grader).values() if hasattr(test, "criterion"))


def grader_of(name: str) -> type[Any]:
    """The grader class of an exercise. Raises ValueError for a name that is none."""
    exercise: Exercise = find(name)
    make_graders_importable()
    module = importlib.import_module(f"graders.test_{exercise.notebook}")
    for member in vars(module).values():
        if getattr(member, "exercise", None) == exercise:
            return member
    raise LookupError(f"{module.__name__} has no grader for {exercise.name}")


def points(name: str) -> int:
    """The full marks of an exercise."""
    return sum(criterion.points for criterion in criteria(grader_of(name)))
