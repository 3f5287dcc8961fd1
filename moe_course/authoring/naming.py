"""How often a mistake gets its right name, on second tellings: misconceptions written again by whoever has seen only
their names and questions (tests/second_tellings/NN_topic/<exercise>.py, one function a misconception, same name)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moe_course.grading.judge.catalogue import Entry, entries
from moe_course.grading.judge.diagnosis import mistake
from moe_course.grading.judge.subject import LiveSubject
from moe_course.grading.judge.verdict import grade

SECOND_TELLINGS = Path("tests/second_tellings")


@dataclass(frozen=True)
class Named:
    """What diagnosis said to one second telling: `found` is the name shown, "" where none was.

    told: the first failure is an exception or a missing result, or the code computes nothing; a sentence says so
    instead of a name.
    """

    exercise: str
    name: str
    found: str
    told: bool
    first_failure: str  # the first criterion that fails, "" if none does

    @property
    def right(self) -> bool:
        return self.found == mistake(self.name)

    @property
    def wrong(self) -> bool:
        return bool(self.found) and not self.right


def named(name: str, root: Path, seed: int = 1) -> list[Named]:
    """What is said to every second telling of an exercise."""
    return [_named(entry, seed) for entry in entries(root / SECOND_TELLINGS, name)]


def _named(entry: Entry, seed: int) -> Named:
    verdict = grade(entry.exercise, LiveSubject(entry.namespace), seed, hidden=False)
    found = verdict.diagnosis.name if verdict.diagnosis else ""
    first = next((result for result in verdict.checks if result.failure), None)
    told = bool(verdict.reason or (first and first.failure and first.failure.complete))
    return Named(entry.exercise, entry.name, found, told, first.criterion.name if first else "")


def shares(found: Sequence[Named]) -> tuple[float, float]:
    """The share that is rightly named, and wrongly, of those that deserve a name."""
    nameable = [one for one in found if not one.told]
    count = max(1, len(nameable))
    return sum(one.right for one in nameable) / count, sum(one.wrong for one in nameable) / count
