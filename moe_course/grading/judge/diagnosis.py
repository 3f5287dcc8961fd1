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
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moe_course.grading.exercises.locate import graders_dir
from moe_course.grading.exercises.registry import find
from moe_course.grading.judge.replies import alike, behaviour, close, numbers, refused, same, similar
from moe_course.grading.judge.stubs import Watched, computes_nothing
from moe_course.grading.judge.subject import Subject

REFUSAL = 0.25  # what a probe counts where the right reply is an exception: a wrong value says more
NEAR = 0.5  # how near a near match must come

__all__ = ["Diagnosis", "behaviour", "diagnose", "recorded", "same"]


@dataclass(frozen=True)
class Diagnosis:
    """A misconception that behaves like the learner's code, and the question that would help.

    fit: "whole": it explains everything that the code does wrong on the probes; "part": all that it does wrong is
    there, and there is a second mistake besides; "near": most of what it does wrong is there. fails: the criteria
    that this mistake fails by itself.
    """

    name: str
    question: str
    fit: str = "whole"
    fails: tuple[str, ...] = ()


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


def diagnose(name: str, subject: Subject, failed: Sequence[str]) -> tuple[Diagnosis | None, str]:
    """What explains that the criteria `failed` (their names, in order) fail: a misconception, or a sentence.

    The sentence is about code that computes nothing at all, which behaves like no mistake; it is "" otherwise. Where
    one misconception has the same effect (a division by // that makes 0 of every share), it asks that question too.
    """
    records = dict(recorded(find(name).notebook).get(name, {}))
    if not records or not failed:
        return None, ""
    watched = Watched(subject)
    seen, right = behaviour(name, watched), records.pop("")["replies"]
    suspects = {label: record for label, record in records.items() if failed[0] in record.get("fails", ())}
    identical = [label for label, record in suspects.items() if same(seen, record["replies"])]
    if not watched.raises and (sentence := computes_nothing(watched.calls)):
        questions = {suspects[label]["question"] for label in identical}
        return None, f"{sentence} If it is: {questions.pop()}" if len(questions) == 1 else sentence
    found = _named(identical[0], suspects, "whole") if identical else None
    if not found and isinstance(seen, list) and isinstance(right, list) and len(seen) == len(right):
        found = _sound(seen, right, suspects, failed) or _near(seen, right, suspects, failed)
    return found, ""


def _sound(
    seen: list[Any], right: list[Any], suspects: Mapping[str, Any], failed: Sequence[str]
) -> Diagnosis | None:
    """The misconception that explains the most, of those that show nothing that the learner's replies do not show.

    Ties go to the misconception that fails the most similar set of criteria.
    """
    ranked = []
    for label, record in suspects.items():
        for agree in (same, similar, alike):
            match = compared(seen, right, record["replies"], agree)
            if match.explained and not match.absent:
                whole = not compared(seen, right, record["replies"], alike).unexplained
                ranked.append((match.share, _overlap(failed, record["fails"]), label, whole))
    if not ranked:
        return None
    *_, label, whole = max(ranked, key=lambda one: one[:2])
    return _named(label, suspects, "whole" if whole else "part")


def _named(label: str, suspects: Mapping[str, Any], fit: str) -> Diagnosis:
    record = suspects[label]
    return Diagnosis(mistake(label), record["question"], fit, tuple(record.get("fails", ())))


def _near(
    seen: list[Any], right: list[Any], suspects: Mapping[str, Any], failed: Sequence[str]
) -> Diagnosis | None:
    """The misconception that comes near, number by number, if it is the only one that comes so near."""
    ranked = sorted(
        (nearness(seen, right, record["replies"]), _overlap(failed, record["fails"]), label)
        for label, record in suspects.items()
    )
    if not ranked or ranked[-1][0] < NEAR:
        return None
    label = ranked[-1][2]
    if any(one[:2] == ranked[-1][:2] for one in ranked if mistake(one[2]) != mistake(label)):
        return None
    return _named(label, suspects, "near")


def _overlap(failed: Sequence[str], fails: Sequence[str]) -> float:
    """How similar two sets of criteria are, from 0 to 1."""
    return len({*failed} & {*fails}) / len({*failed} | {*fails})


def nearness(seen: Any, right: Any, wrong: Any) -> float:
    """From 0 to 1: of the numbers on which either is wrong, the share on which both are wrong alike.

    A mean over the probes on which either is wrong; a reply of another shape has nothing in common with the other.
    """
    if not isinstance(wrong, list) or len(wrong) != len(seen):
        return 0.0
    total = weights = 0.0
    for mine, true, theirs in zip(seen, right, wrong, strict=True):
        if alike(mine, true) and alike(theirs, true):
            continue
        weight = REFUSAL if refused(true) else 1.0
        weights += weight
        total += weight * _shared(numbers(mine), numbers(true), numbers(theirs))
    return total / weights if weights else 0.0


def _shared(mine: list[Any], true: list[Any], theirs: list[Any]) -> float:
    """The share for one probe: see `nearness`."""
    if len(mine) != len(theirs):
        return 0.0
    if len(mine) != len(true):
        return sum(map(close, mine, theirs)) / len(mine)
    differing = [
        (a, c) for a, b, c in zip(mine, true, theirs, strict=True) if not (close(a, b) and close(c, b))
    ]
    return sum(close(a, c) for a, c in differing) / len(differing) if differing else 0.0


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


def mistake(label: str) -> str:
    """The mistake that an entry of the catalogue tells: "rounded_up__by_hand" is "rounded_up" told another way."""
    return label.partition("__")[0]


def words(name: str) -> str:
    """A misconception's name in ordinary words: "always_renormalised" and "AlwaysRenormalised" read the same."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name).replace("_", " ")
    return apart.lower() if apart != name.replace("_", " ") else apart


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
