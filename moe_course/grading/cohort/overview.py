"""One assignment of a cohort in numbers, from its records alone: what an instructor wants to know first.

Shares and rates are over the graded submissions; what could not be graded is listed and counts nowhere else.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from moe_course.grading.cohort.ledger import Record
from moe_course.grading.cohort.similarity import SameCode, same_code
from moe_course.grading.exercises.registry import EXERCISES, label
from moe_course.grading.judge.diagnosis import words

STOPPED = ("crashed", "timed out", "out of memory", "forbidden", "interrupted", "refused")
BINS = 10  # of the histogram
SLOWEST = 5  # submissions that are listed
TALKED_ABOUT = 5  # mistakes that are listed, each made at least twice


@dataclass(frozen=True)
class Check:
    """A criterion: how many failed it, of those on whom it ran."""

    title: str
    failed: int
    ran: int


@dataclass(frozen=True)
class Mistake:
    """A catalogued misconception: who made it, of how many who attempted the exercise."""

    exercise: str
    name: str
    question: str
    who: tuple[str, ...]
    attempted: int

    @property
    def count(self) -> int:
        return len(self.who)


@dataclass(frozen=True)
class Exercise:
    """One exercise. mean: the score of those who attempted it, None where nobody did."""

    label: str
    maximum: float
    attempted: int
    passed: int
    mean: float | None
    checks: tuple[Check, ...]
    mistakes: tuple[Mistake, ...]


@dataclass(frozen=True)
class Trouble:
    """Something that a person should look at: a file that has no score, or an exercise that did not run to its end.

    what: "crashed", say, or "missing"; again: the next run tries once more.
    """

    student: str
    reason: str
    exercise: str = ""
    what: str = "ungradable"
    again: bool = False


@dataclass(frozen=True)
class Slow:
    """A submission's seconds, and the exercise that took most of them."""

    student: str
    seconds: float
    exercise: str
    most: float


@dataclass(frozen=True)
class Overview:
    """Everything the page shows.

    quartiles: lower, median, upper, in points; bins: submissions per tenth of the points, low to high; remarks:
    what else needs a person, as (end of a sentence, students); common: (exercise, people) whose long solution too
    many share; repairs: (sentences, students) of equally damaged files.
    """

    assignment: str
    submissions: int
    graded: int
    maximum: float
    shares: tuple[float, ...]
    quartiles: tuple[float, float, float] | None
    bins: tuple[int, ...]
    ungradable: tuple[Trouble, ...]
    stopped: tuple[Trouble, ...]
    idle: tuple[str, ...]
    remarks: tuple[tuple[str, tuple[str, ...]], ...]
    exercises: tuple[Exercise, ...]
    mistakes: tuple[Mistake, ...]
    slowest: tuple[Slow, ...]
    same_code: tuple[SameCode, ...]
    common: tuple[tuple[str, int], ...]
    repairs: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    seeds: tuple[int, ...]
    sandboxed: int
    graded_at: tuple[str, str] | None
    versions: tuple[str, ...]


def overview(
    assignment: str, records: Sequence[Record], remarks: Sequence[tuple[str, Sequence[str]]] = ()
) -> Overview:
    """The figures of one assignment."""
    graded = [record for record in records if record["status"] == "graded"]
    marked = [record for record in graded if record["max_score"]]
    shares = sorted(record["score"] / record["max_score"] for record in marked)
    maximum = max((record["max_score"] for record in marked), default=0.0)
    exercises = tuple(_exercises(graded))
    found = (mistake for exercise in exercises for mistake in exercise.mistakes if mistake.count > 1)
    groups, common = same_code(graded)
    times = sorted(record["graded"] for record in records)
    return Overview(
        assignment=assignment,
        submissions=len(records),
        graded=len(graded),
        maximum=maximum,
        shares=tuple(shares),
        quartiles=_quartiles([share * maximum for share in shares]),
        bins=_bins(marked),
        ungradable=tuple(_ungradable(records)),
        stopped=tuple(_stopped(graded)),
        idle=tuple(record["student"] for record in graded if not any(map(_tried, record["verdicts"]))),
        remarks=_remarks(graded, remarks),
        exercises=exercises,
        mistakes=tuple(sorted(found, key=lambda mistake: -mistake.count / mistake.attempted)[:TALKED_ABOUT]),
        slowest=tuple(_slowest(records)),
        same_code=groups,
        common=common,
        repairs=_repairs(records),
        seeds=tuple(sorted({record["seed"] for record in records})),
        sandboxed=sum(bool(record.get("sandboxed")) for record in records),
        graded_at=(times[0], times[-1]) if times else None,
        versions=tuple(sorted({_versions(record) for record in records})),
    )


def _quartiles(scores: Sequence[float]) -> tuple[float, float, float] | None:
    """Of the scores themselves, not of a population behind them. None without scores."""
    if not scores:
        return None
    lower, median, upper = statistics.quantiles([*scores] * (1 + (len(scores) == 1)), n=4, method="inclusive")
    return lower, median, upper


def _bins(marked: Iterable[Record]) -> tuple[int, ...]:
    """Each tenth without its upper end, but full marks belong to the last."""
    tenths = Counter(min(int(r["score"] * BINS // r["max_score"]), BINS - 1) for r in marked)
    return tuple(tenths[n] for n in range(BINS))


def _tried(verdict: dict[str, Any]) -> bool:
    return bool(verdict["status"] != "not attempted")


def _remarks(
    graded: Sequence[Record], others: Sequence[tuple[str, Sequence[str]]]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What else needs a person. A zero of somebody who tried may be a sign that their code did not run here."""
    told = {trouble.student for trouble in _stopped(graded)}
    tried = [r for r in graded if any(map(_tried, r["verdicts"])) and r["student"] not in told]
    empty = [r["student"] for r in tried if not _anything_passed(r)]
    found = [
        ("answered, and not one check passed. Did their code run as it does in a notebook?", empty),
        *others,
    ]
    return tuple((sentence, tuple(who)) for sentence, who in found if who)


def _anything_passed(record: Record) -> bool:
    return any(check["status"] == "passed" for verdict in record["verdicts"] for check in verdict["checks"])


def _ungradable(records: Iterable[Record]) -> list[Trouble]:
    return [
        Trouble(record["student"], record["reason"], again=bool(record.get("again")))
        for record in records
        if record["status"] != "graded"
    ]


def _stopped(graded: Iterable[Record]) -> list[Trouble]:
    """Exercises that did not run to their end, and those whose zero may not be the learner's fault."""
    return [
        Trouble(record["student"], why, label(verdict["exercise"]), _what(verdict))
        for record in graded
        for verdict in record["verdicts"]
        for why in [verdict.get("needs") or verdict["reason"]]  # records of an older course have no "needs"
        if verdict["status"] in STOPPED or (verdict["status"] != "passed" and why)
    ]


def _what(verdict: dict[str, Any]) -> str:
    return {"not attempted": "missing", "failed": "not judged"}.get(verdict["status"], verdict["status"])


def _exercises(graded: Sequence[Record]) -> Iterable[Exercise]:
    """The exercises in the order of the course; names that this version does not know come last."""
    verdicts: dict[str, list[tuple[str, dict[str, Any]]]] = {name: [] for name in EXERCISES}
    for record in graded:
        for verdict in record["verdicts"]:
            verdicts.setdefault(verdict["exercise"], []).append((record["student"], verdict))
    for name, found in verdicts.items():
        if not found:
            continue
        tried = [verdict for _, verdict in found if _tried(verdict)]
        yield Exercise(
            label=label(name),
            maximum=max(verdict["max_score"] for _, verdict in found),
            attempted=len(tried),
            passed=sum(verdict["status"] == "passed" for verdict in tried),
            mean=statistics.fmean(verdict["score"] for verdict in tried) if tried else None,
            checks=_checks(verdict for _, verdict in found),
            mistakes=_mistakes(label(name), found, len(tried)),
        )


def _checks(verdicts: Iterable[dict[str, Any]]) -> tuple[Check, ...]:
    titles: dict[str, str] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for verdict in verdicts:
        for check in verdict["checks"]:
            titles[check["name"]] = check.get("title") or check["name"].replace("_", " ")
            counts[check["name"], check["status"]] += 1
    return tuple(
        Check(title, counts[name, "failed"], counts[name, "failed"] + counts[name, "passed"])
        for name, title in titles.items()
    )


def _mistakes(
    exercise: str, found: Iterable[tuple[str, dict[str, Any]]], attempted: int
) -> tuple[Mistake, ...]:
    """The misconceptions of an exercise, the commonest first."""
    who: dict[str, list[str]] = defaultdict(list)
    questions: dict[str, str] = {}
    for student, verdict in found:
        if diagnosis := verdict.get("diagnosis"):
            who[diagnosis["name"]].append(student)
            questions[diagnosis["name"]] = diagnosis["question"]
    ordered = sorted(who, key=lambda name: -len(who[name]))
    return tuple(
        Mistake(exercise, words(name), questions[name], tuple(who[name]), attempted) for name in ordered
    )


def _slowest(records: Iterable[Record]) -> Iterable[Slow]:
    timed = [record for record in records if record["verdicts"] and record.get("seconds")]
    for record in sorted(timed, key=lambda record: -record["seconds"])[:SLOWEST]:
        longest = max(record["verdicts"], key=lambda verdict: verdict["seconds"])
        yield Slow(record["student"], record["seconds"], label(longest["exercise"]), longest["seconds"])


def _repairs(records: Iterable[Record]) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    who: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for record in records:
        if notes := tuple(record.get("repairs", ())):
            who[notes].append(record["student"])
    ordered = sorted(who.items(), key=lambda item: -len(item[1]))
    return tuple((notes, tuple(students)) for notes, students in ordered)


def _versions(record: Record) -> str:
    return ", ".join(f"{name} {version}" for name, version in record.get("environment", {}).items())
