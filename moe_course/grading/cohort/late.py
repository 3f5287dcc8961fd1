"""Submissions after the deadline: how late they are, and what it costs by a rule in the form of nbgrader's plug-ins.

A rule is nbgrader's own "none" or "zero", a share of the points for each day that has begun ("10%"), or a class with
nbgrader's method `late_submission_penalty(student_id, score, total_seconds_late)`, named as module.Class.
"""

from __future__ import annotations

import importlib
import math
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moe_course.grading.cohort.ledger import Record
from moe_course.grading.cohort.roster import Learner

DAY = 86_400.0  # seconds
Rule = Callable[[str, float, float], float | None]


@dataclass(frozen=True)
class Late:
    """How late a submission is, in seconds after deadline and grace, and the points that this costs.

    known: False where nobody can tell when it was handed in; it then costs nothing.
    """

    seconds: float
    penalty: float
    known: bool = True

    @property
    def days(self) -> float:
        """Days that have begun after the deadline and the days of grace."""
        return math.ceil(self.seconds / DAY)


@dataclass(frozen=True)
class Deadline:
    """When an assignment was due, the days of grace that everybody has, and the rule for what comes after."""

    due: datetime
    grace: float
    rule: Rule

    def late(self, record: Record, learner: Learner | None) -> Late:
        """How late a graded submission is. Raises ValueError where the rule gives what is no penalty."""
        grace = self.grace if learner is None or learner.grace is None else learner.grace
        if learner is not None and learner.late_days is not None:
            seconds, known = (learner.late_days - grace) * DAY, True
        else:
            submitted = instant(record.get("submitted") or "")
            known = submitted is not None
            seconds = (submitted - self.due).total_seconds() - grace * DAY if submitted else 0.0
        seconds, score = max(0.0, seconds), record["score"] or 0.0
        penalty = self.rule(record["student"], score, seconds) if seconds else 0.0
        if learner is not None and learner.penalty is not None:
            penalty = learner.penalty
        if penalty is not None and not (math.isfinite(penalty) and penalty >= 0):
            raise ValueError(f"{record['student']}: a penalty of {penalty} points is none")
        return Late(seconds, min(penalty or 0.0, score), known)

    def of(self, records: Iterable[Record], roster: dict[str, Learner]) -> dict[tuple[str, str], Late]:
        """{(student, assignment): how late} of every graded record."""
        graded = [record for record in records if record["status"] == "graded"]
        return {(r["student"], r["assignment"]): self.late(r, roster.get(r["student"])) for r in graded}


def deadline(due: str, grace: float, rule: str) -> Deadline:
    """A deadline from the words of the command line. Raises ValueError that names what is wrong with them."""
    time = instant(due)
    if time is None:
        raise ValueError(
            f"--due {due!r}: give a time, such as “2027-03-01 23:59 UTC” (without a zone it is UTC)"
        )
    if not (math.isfinite(grace) and grace >= 0):
        raise ValueError(f"--grace {grace}: give a number of days from 0 on")
    return Deadline(time, grace, _rule(rule))


def instant(text: str) -> datetime | None:
    """A time in UTC, where it names no zone; None where the text is no time, or names a zone that nobody knows.

    The zone is a difference (+0100, +01:00) or a name (UTC, EST, Europe/Berlin). It is read here rather than by
    `nbgrader.utils.parse_utc`, which takes +0100 for a hundred seconds.
    """
    from dateutil import parser, tz

    parts = text.split()
    zone = tz.gettz(parts[-1]) if len(parts) == 3 and parts[-1][0].isalpha() else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", parser.UnknownTimezoneWarning)
            time = parser.parse(" ".join(parts[:2] if zone else parts))
    except (ValueError, OverflowError, TypeError, parser.UnknownTimezoneWarning):
        return None
    return (time if time.tzinfo else time.replace(tzinfo=zone or UTC)).astimezone(UTC)


def _rule(name: str) -> Rule:
    if name in ("none", "zero"):
        return lambda student, score, seconds: score if name == "zero" else 0.0
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", name):
        share = float(match[1]) / 100
        return lambda student, score, seconds: score * min(1.0, share * math.ceil(seconds / DAY))
    module, _, kind = name.replace(":", ".").rpartition(".")
    sys.path.insert(0, str(Path.cwd()))  # where nbgrader looks for a plug-in, too
    try:
        plugin: Any = getattr(importlib.import_module(module), kind)()
        rule: Rule = plugin.late_submission_penalty
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(
            f"--penalty {name}: give “none”, “zero”, a share a day such as “10%”, or the class of a plug-in of "
            f"nbgrader as module.Class ({error})"
        ) from None
    finally:
        sys.path.pop(0)
    return rule
