"""How a grader is written: an ordinary pytest class whose tests are the criteria of one exercise.

    @grades("top_k_gate")
    class TestTopKGate:
        @criterion(2, "the k largest are chosen", hint="Which dimension does topk look along?")
        def test_chooses_the_largest(self, subject, rng): ...

        def behaviour(self, subject): ...   # replies to a fixed probe set, for diagnosis

A criterion takes `subject`, through which it reaches the learner's code, and `rng`, a seeded torch.Generator.
Criteria stand in order from fundamental to subtle.

Hidden criteria look the same and live in graders/hidden/test_NN_topic.py, which a student bundle does not have. The
public class declares what they are worth, `@grades("top_k_gate", hidden=2)`, so that a live check can say so.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from moe_course.grading.exercises.locate import make_graders_importable
from moe_course.grading.exercises.protocol import LARGEST_REPLY
from moe_course.grading.exercises.registry import Exercise, find

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., None])


@dataclass(frozen=True)
class Criterion:
    """One line of a rubric. `name` is the test's name without `test_`; the hint is a question.

    A hidden one is tried at grading only, and never shows what it tried.
    """

    name: str
    title: str
    points: int
    hint: str
    hidden: bool = False


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


def grades(name: str, hidden: int = 0, largest_reply: int = LARGEST_REPLY) -> Callable[[C], C]:
    """Make a pytest class the grader of the exercise `name`; `hidden` points more are decided at grading.

    largest_reply: the bytes that the tensors of one reply may have. An answer that returns more fails.
    """
    exercise = find(name)

    def mark(cls: C) -> C:
        cls.exercise, cls.hidden_points = exercise, hidden  # type: ignore[attr-defined]
        cls.largest_reply = largest_reply  # type: ignore[attr-defined]
        return cls

    return mark


def criteria(grader: type) -> tuple[Criterion, ...]:
    """The rubric of a grader class, in the order in which its tests are written."""
    return tuple(test.criterion for test in vars(grader).values() if hasattr(test, "criterion"))


def grader_of(name: str) -> type[Any]:
    """The grader class of an exercise. Raises ValueError for a name that is none."""
    exercise = find(name)
    make_graders_importable()
    if grader := _grader_in(("own_graders", "graders"), exercise):
        return grader
    raise LookupError(f"no test_{exercise.notebook}.py among the graders has a grader for {exercise.name}")


def hidden_grader_of(name: str) -> type[Any] | None:
    """The class with the hidden criteria of an exercise; None where there are none, or where they are not at hand.

    Raises ValueError when they are not worth the points that the public class declares.
    """
    exercise = find(name)
    make_graders_importable()
    grader = _grader_in(("own_hidden", "graders.hidden"), exercise)
    worth = sum(line.points for line in criteria(grader)) if grader else 0
    if grader and worth != hidden_points(name):
        raise ValueError(
            f"the hidden criteria of {name} are worth {worth} points, and its grader declares {hidden_points(name)}"
        )
    return grader


def _grader_in(packages: Sequence[str], exercise: Exercise) -> type[Any] | None:
    """The first class for an exercise in the packages' modules of its notebook, as far as there are such modules."""
    for package in packages:
        module = f"{package}.test_{exercise.notebook}"
        try:
            members = vars(importlib.import_module(module)).values()
        except ModuleNotFoundError as error:
            if error.name and (module == error.name or module.startswith(f"{error.name}.")):
                continue
            raise
        if found := [member for member in members if getattr(member, "exercise", None) == exercise]:
            return found[0]
    return None


def rubric(name: str, hidden: bool = True) -> list[tuple[type[Any], Criterion]]:
    """The criteria of an exercise, each with the class whose test it is; last the hidden ones that are at hand."""
    public = grader_of(name)
    lines = [(public, line) for line in criteria(public)]
    if secret := hidden_grader_of(name) if hidden else None:
        lines += [(secret, replace(line, hidden=True)) for line in criteria(secret)]
    return lines


def hidden_points(name: str) -> int:
    """What the hidden criteria of an exercise are worth, at hand or not."""
    return grader_of(name).hidden_points


def points(name: str) -> int:
    """The full marks of an exercise, hidden criteria included."""
    return sum(line.points for line in criteria(grader_of(name))) + hidden_points(name)
