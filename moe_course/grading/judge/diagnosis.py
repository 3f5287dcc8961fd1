"""Naming the mistake: a learner's behaviour beside the recorded behaviour of catalogued misconceptions.

Each grader class has a `behaviour(subject)`: the replies to a small fixed probe set. What the library and every
misconception reply, and which criteria each misconception fails, is recorded in `graders/recorded/NN_topic.json`, so
a mistake can be named where the misconceptions' own source is not at hand.

A misconception is named only if it fails the learner's first failing criterion too. Among those, the one is chosen
that explains the most of what is wrong: the probes on which the learner's reply is not the right one, and is that of
the misconception. It must not differ from the right answer where the learner's reply does not show it; a near match,
which breaks this rule on few probes, is accepted only where no other misconception comes as near.
"""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moe_course.grading.exercises.locate import graders_dir
from moe_course.grading.exercises.registry import find
from moe_course.grading.judge.replies import alike, behaviour, refused, same
from moe_course.grading.judge.subject import Subject

REFUSAL = 0.25  # what a probe counts where the right reply is an exception: a wrong value says more
NEAR = 0.5  # the share of all differing probes that a near match must explain

__all__ = ["Diagnosis", "behaviour", "diagnose", "recorded", "same"]


@dataclass(frozen=True)
class Diagnosis:
    """A misconception that behaves like the learner's code, and the question that would help.

    alone: whether it explains everything that the code does wrong on the probes; if not, there is a second mistake.
    """

    name: str
    question: str
    alone: bool = True


@dataclass(frozen=True)
class Match:
    """How well a misconception explains the learner's replies, in probes (refusals count less)."""

    explained: float = 0.0  # wrong in the same way
    unexplained: float = 0.0  # the learner's reply is wrong, and not as the misconception's is
    absent: float = 0.0  # the misconception's reply is wrong, and the learner's is not like it
    differing: float = 0.0  # either reply is wrong

    @property
    def share(self) -> float:
        """The explained part of all probes on which either goes wrong."""
        return self.explained / self.differing if self.differing else 0.0

    @property
    def sound(self) -> bool:
        """Whether the learner's code shows everything that the misconception does."""
        return self.explained > 0 and not self.absent


def diagnose(name: str, subject: Subject, failed: Sequence[str]) -> Diagnosis | None:
    """The misconception that explains why the criteria `failed` (their names, in order) fail, or None."""
    records = dict(recorded(find(name).notebook).get(name, {}))
    if not records or not failed:
        return None
    right = records.pop("")["replies"]
    suspects = {label: record for label, record in records.items() if failed[0] in record["fails"]}
    if not suspects:
        return None
    seen = behaviour(name, subject)
    label = _identical(seen, suspects) or _nearest(seen, right, suspects, failed)
    if label is None:
        return None
    return Diagnosis(
        label, suspects[label]["question"], _explains_all(seen, right, suspects[label]["replies"])
    )


def _identical(seen: Any, suspects: Mapping[str, Any]) -> str | None:
    """The misconception with exactly these replies."""
    return next((label for label, record in suspects.items() if same(seen, record["replies"])), None)


def _nearest(seen: Any, right: Any, suspects: Mapping[str, Any], failed: Sequence[str]) -> str | None:
    """The misconception that explains the most and shows nothing that the learner's replies do not show.

    Where there is none, one that comes near, if it is the only one. Ties go to the misconception that fails the most
    similar set of criteria.
    """
    if not isinstance(seen, list) or not isinstance(right, list) or len(seen) != len(right):
        return None
    ranked = []
    for label, record in suspects.items():
        matches = [compared(seen, right, record["replies"], agree) for agree in (same, alike)]
        match = max(matches, key=lambda one: (one.sound, one.share))
        overlap = len({*failed} & {*record["fails"]}) / len({*failed} | {*record["fails"]})
        ranked.append((match.sound, match.share, overlap, label))
    ranked.sort(key=lambda one: one[:3], reverse=True)
    sound, share, overlap, label = ranked[0]
    if sound:
        return label
    rival = ranked[1][1:3] if len(ranked) > 1 else (0.0, 0.0)
    return label if share >= NEAR and (share, overlap) > rival else None


def compared(seen: Any, right: Any, wrong: Any, agree: Callable[[Any, Any], bool]) -> Match:
    """How well the replies of a misconception explain those of the learner, probe by probe."""
    if not isinstance(wrong, list) or len(wrong) != len(seen):
        return Match()
    explained = unexplained = absent = differing = 0.0
    for mine, true, theirs in zip(seen, right, wrong, strict=True):
        weight = REFUSAL if refused(true) else 1.0
        fits, i_err, they_err = agree(mine, theirs), not agree(mine, true), not agree(theirs, true)
        explained += weight * (i_err and fits)
        unexplained += weight * (i_err and not fits)
        absent += weight * (they_err and not fits)
        differing += weight * (i_err or they_err)
    return Match(explained, unexplained, absent, differing)


def _explains_all(seen: Any, right: Any, wrong: Any) -> bool:
    """Whether a misconception leaves nothing over that the learner's code does wrong."""
    return same(seen, wrong) or (
        isinstance(seen, list) and not compared(seen, right, wrong, alike).unexplained
    )


@functools.cache
def recorded(notebook: str) -> dict[str, Any]:
    """What was recorded for a notebook: {exercise: {misconception: {question, fails, replies}}}.

    The misconception "" is the right answer; `fails` holds the names of the public criteria that reject one.
    """
    path = graders_dir() / "recorded" / f"{notebook}.json"
    packed = path.with_suffix(".json.gz")  # in a student bundle
    if packed.is_file():
        return json.loads(gzip.decompress(packed.read_bytes()))
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
