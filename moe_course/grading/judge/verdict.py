"""From a subject to a verdict: run the criteria of an exercise and keep what each of them found."""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass
from typing import Any

import torch

from moe_course.grading.exercises.expect import CheckFailed
from moe_course.grading.exercises.protocol import Raised
from moe_course.grading.exercises.rubric import Criterion, points, rubric
from moe_course.grading.judge import diagnosis
from moe_course.grading.judge.subject import LiveSubject, ProbeFailed, Subject, SubjectLost


class Unjudged(CheckFailed):
    """A worker's reply that a grader stumbled over: forged, or the grader's own fault, so it is never kept quiet."""


@dataclass(frozen=True)
class CheckResult:
    """One criterion: its status is "passed", "failed" or "not run"."""

    criterion: Criterion
    status: str
    failure: CheckFailed | None = None

    @property
    def message(self) -> str:
        return str(self.failure) if self.failure else ""


@dataclass(frozen=True)
class Verdict:
    """The outcome of one exercise.

    status: "passed", "failed", "not attempted", "crashed", "timed out", "out of memory", "forbidden",
    "ungradable", "interrupted" or "refused"; a passed one may still have hidden points to win;
    max_score: full marks; undecided: the part of them that hidden criteria decide, which were not tried;
    reason: what a person can do about it, where the criteria do not say; seed: repeats this very run.
    """

    exercise: str
    status: str
    score: float
    max_score: float
    checks: tuple[CheckResult, ...] = ()
    seed: int = 0
    seconds: float = 0.0
    reason: str = ""
    diagnosis: diagnosis.Diagnosis | None = None
    undecided: float = 0.0

    @property
    def problem(self) -> str:
        """Why this score cannot stand in a gradebook, "" if it can."""
        if self.status == "ungradable":
            return f"{self.exercise}: {self.reason}"
        if self.undecided:
            return f"{self.exercise}: its hidden tests ({self.undecided:g} points) are not on this machine"
        return ""


def seeded(seed: int, exercise: str, name: str) -> torch.Generator:
    """The generator of one criterion: the same for a seed, whatever ran before."""
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}/{exercise}/{name}".encode()))


def grade(name: str, subject: Subject, seed: int, hidden: bool = True) -> Verdict:
    """Run every criterion of the exercise `name` on a subject, the hidden ones too where they are at hand.

    A criterion that fails does not stop the next one; a lost subject or an interrupt stops the exercise.
    """
    lines = rubric(name, hidden)
    results: list[CheckResult] = []
    status, reason, found = "", "", None
    started = time.perf_counter()
    try:
        for grader, line in lines:
            results.append(_judge(grader, line, subject, seeded(seed, name, line.name)))
        if any(result.status == "failed" for result in results):
            found = _diagnose(name, subject)
        reason = next((result.message for result in results if isinstance(result.failure, Unjudged)), "")
    except SubjectLost as lost:
        status, reason = lost.status, lost.reason
        if status == "forbidden":
            results.clear()
    except KeyboardInterrupt:
        status = "interrupted"
    results += [CheckResult(line, "not run") for _, line in lines[len(results) :]]
    score = sum(result.criterion.points for result in results if result.status == "passed")
    tried = sum(line.points for _, line in lines)
    return Verdict(
        exercise=name,
        status=status or ("passed" if score == tried else "failed"),
        score=float(score),
        max_score=float(points(name)),
        undecided=float(points(name) - tried),
        checks=tuple(results),
        seed=seed,
        seconds=time.perf_counter() - started,
        reason=reason,
        diagnosis=found,
    )


def without_running(name: str, status: str, reason: str = "") -> Verdict:
    """The verdict on an exercise that was not run: not attempted, refused, or lost before it began."""
    checks = tuple(CheckResult(line, "not run") for _, line in rubric(name, hidden=False))
    return Verdict(name, status, 0.0, float(points(name)), checks, reason=reason)


def _judge(grader: type[Any], line: Criterion, subject: Subject, rng: torch.Generator) -> CheckResult:
    try:
        getattr(grader(), f"test_{line.name}")(subject, rng)
    except CheckFailed as failure:
        return CheckResult(line, "failed", failure)
    except ProbeFailed as failed:
        return CheckResult(line, "failed", CheckFailed(_explain(failed.error)))
    except SubjectLost:
        raise
    except Exception as error:
        if isinstance(subject, LiveSubject):
            raise
        what = f"{type(error).__name__}: {error}"
        return CheckResult(line, "failed", Unjudged(f"the grader could not judge this reply ({what[:500]})"))
    return CheckResult(line, "passed")


def _diagnose(name: str, subject: Subject) -> diagnosis.Diagnosis | None:
    """The mistake's name, if it has one. The criteria are judged by now: nothing here may cost a verdict."""
    try:
        return diagnosis.diagnose(name, subject)
    except Exception:
        if isinstance(subject, LiveSubject):
            raise
        return None


def _explain(error: Raised) -> str:
    if error.type_name == "NotImplementedError":
        return "a part of the exercise is not written yet (NotImplementedError)"
    return f"your code raised {error.type_name}: {error.message}"
