"""Identical solutions: who wrote the same code as whom, and in how many exercises. A reason to look, never a proof.

The record of a submission holds a hash of each solution's syntax tree, without comments, layout and docstrings.
Short code agrees by chance, and so does the obvious. So code that more than FEW people wrote is left out, and what
remains must come to LONG statements over all exercises in which a group agrees.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from moe_course.grading.cohort.ledger import Record
from moe_course.grading.exercises.registry import label

Solution = tuple[str, str]  # of which exercise, and its hash

FEW = 5
LONG = 6  # beyond what the stub gives


@dataclass(frozen=True)
class SameCode:
    """Students whose code is the same in each of these exercises, `statements` of it in all.

    wrong: the exercises among them that nobody of the group passed.
    """

    students: tuple[str, ...]
    exercises: tuple[str, ...]
    wrong: tuple[str, ...]
    statements: int


def same_code(records: Iterable[Record]) -> tuple[tuple[SameCode, ...], tuple[tuple[str, int], ...]]:
    """Groups with identical solutions, those that agree most first; and the long solutions, each with the number of
    people, that too many share to point at anybody."""
    wrote: dict[Solution, set[str]] = defaultdict(set)
    length: dict[Solution, int] = {}
    passed: set[Solution] = set()
    for record in records:
        right = {verdict["exercise"] for verdict in record["verdicts"] if verdict["status"] == "passed"}
        for name, solution in record.get("solutions", {}).items():
            what = name, solution["hash"]
            wrote[what].add(record["student"])
            length[what] = solution["statements"]
            if name in right:
                passed.add(what)
    agree: dict[tuple[str, str], list[Solution]] = defaultdict(list)
    for what, who in wrote.items():
        if len(who) <= FEW:
            for one, other in combinations(sorted(who), 2):
                agree[one, other].append(what)
    found = {
        SameCode(
            tuple(sorted(set.intersection(*(wrote[what] for what in same)))),
            _labels(same),
            _labels(what for what in same if what not in passed),
            sum(length[what] for what in same),
        )
        for same in agree.values()
    }
    groups = [group for group in found if group.statements >= LONG]
    common = [
        (label(what[0]), len(who)) for what, who in wrote.items() if len(who) > FEW and length[what] >= LONG
    ]
    order = sorted(groups, key=lambda group: (-len(group.exercises), -group.statements, group.students))
    return tuple(order), tuple(sorted(common))


def _labels(solutions: Iterable[Solution]) -> tuple[str, ...]:
    """The exercises of some solutions, in the order of the course: their numbers begin the labels."""
    return tuple(sorted(label(name) for name, _ in solutions))
