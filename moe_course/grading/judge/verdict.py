"""From a subject to a verdict: run the criteria of an exercise and keep what each of them found."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from moe_course.grading.exercises.expect import CheckFailed, explained
from moe_course.grading.exercises.registry import PART_OF, label
from moe_course.grading.exercises.rubric import Criterion, grader_of, points, rubric
from moe_course.grading.judge import diagnosis
from moe_course.grading.judge.subject import (
    LiveSubject,
    ProbeFailed,
    Subject,
    SubjectLost,
    where_stopped,
)
from moe_course.grading.worker.wire import REPLY


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
    reason: what a person can do about it, where the criteria do not say; seed: repeats this very run;
    withheld: status and reason come from hidden criteria, so that the learner must not read them;
    needs: why the instructor should look, because the sandbox may have failed where a notebook does not, or "";
    notes: what the learner should know besides; printed: an excerpt of what the code printed, on the input that the
    first failure shows or else on the last one, where that was kept.
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
    withheld: bool = False
    needs: str = ""
    notes: tuple[str, ...] = ()
    printed: str = ""

    @property
    def first_failure(self) -> CheckResult | None:
        """The criterion that the report is about."""
        return next((result for result in self.checks if result.failure), None)

    def reached(self, result: CheckResult) -> bool:
        """Whether a criterion was put to the test: it did not fail for the cause of the first failure, nor for the
        mistake that is named."""
        first, named = self.first_failure, self.diagnosis
        if result.failure is None or first is None or first.failure is None or result is first:
            return True
        if named and named.fit != "near" and result.criterion.name in named.fails:
            return False
        return not first.failure.cause or first.failure.cause != result.failure.cause

    @property
    def problem(self) -> str:
        """Why this score cannot stand in a gradebook, "" if it can."""
        if self.status == "ungradable":
            return f"{self.exercise}: {self.reason}"
        if self.undecided:
            return f"{self.exercise}: its hidden tests ({self.undecided:g} points) are not on this machine"
        return ""


def draw_seed() -> int:
    """A new seed for a run or a cohort, too large to be found by trying: 53 bits, which any JSON reader keeps."""
    return secrets.randbits(53)


def seeded(seed: int, exercise: str, name: str) -> torch.Generator:
    """The generator of one criterion: the same for a seed, whatever ran before.

    A hash that cannot be inverted: whoever finds the numbers of one criterion in their feedback, and from them its
    generator, learns nothing about the seed, and so nothing about any other criterion.
    """
    digest = hashlib.sha256(f"{seed}/{exercise}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))


def grade(name: str, subject: Subject, seed: int, hidden: bool = True) -> Verdict:
    """Run every criterion of the exercise `name` on a subject, the hidden ones too where they are at hand.

    A criterion that fails does not stop the next one; a lost subject or an interrupt stops the exercise.
    """
    public = grade_public(name, subject, seed)
    return grade_hidden(public, subject) if hidden else public


def grade_public(name: str, subject: Subject, seed: int) -> Verdict:
    """The verdict of the criteria that learners know, and the mistake's name; the hidden points stay undecided."""
    lines = rubric(name, hidden=False)
    started = time.perf_counter()
    results, status, reason = _try_all(name, lines, subject, seed)
    printed, found = subject.printed, None
    try:
        if not status and not reason:
            found, reason = _diagnose(name, subject, results)
    except KeyboardInterrupt:
        if not isinstance(subject, LiveSubject):
            raise
        status = "interrupted"
    first = next((result.failure for result in results if result.failure), None)
    verdict = Verdict(
        exercise=name,
        status=status,
        score=0.0,
        max_score=float(points(name)),
        checks=tuple(results),
        seed=seed,
        seconds=time.perf_counter() - started,
        reason=reason,
        diagnosis=found,
        notes=tuple(
            f"{label(part)} is not written yet: a reference version stood in for it, at no cost to this exercise."
            for part in sorted(subject.stood_in)
        ),
        printed=first.printed if first else printed,
    )
    return _counted(verdict)


def grade_hidden(public: Verdict, subject: Subject) -> Verdict:
    """The verdict with the hidden criteria, as far as they are at hand.

    It comes after `grade_public` of every exercise that the same process answers: once the learner's code has seen
    what hidden criteria ask, everything that it says may tell.
    """
    name = public.exercise
    lines = [(grader, line) for grader, line in rubric(name) if line.hidden]
    if public.status not in ("passed", "failed"):
        return _counted(public, [CheckResult(line, "not run") for _, line in lines])
    started = time.perf_counter()
    results, status, reason = _try_all(name, lines, subject, public.seed)
    forbidden = status == "forbidden"
    verdict = replace(
        public,
        status=status,
        checks=() if forbidden else public.checks,
        seconds=public.seconds + time.perf_counter() - started,
        reason=reason or public.reason,
        withheld=bool(reason or status),
    )
    if forbidden:
        results = [CheckResult(line, "not run") for _, line in rubric(name)]
    return _counted(verdict, results)


def for_the_learner(verdict: Verdict) -> Verdict:
    """The verdict without what hidden criteria tried, and without the seed that would tell it.

    Of a hidden criterion a learner reads its title, its hint and whether it holds. How the code ended, what it said
    and how long it took could carry what it was asked, so none of that is told.
    """
    checks = tuple(
        _without_details(result, verdict) if result.criterion.hidden else result for result in verdict.checks
    )
    status, reason = verdict.status, verdict.reason
    if verdict.withheld:
        reason = ""
        if status == "forbidden":
            reason = "The code imports a module that holds an answer of this notebook."
        elif status != "ungradable":
            status = "failed"
    return replace(verdict, checks=checks, status=status, reason=reason, seed=0)


def _without_details(result: CheckResult, verdict: Verdict) -> CheckResult:
    """A hidden criterion that failed, or that was not reached after another one: told alike."""
    if result.status == "passed" or not (result.status == "failed" or verdict.withheld):
        return result
    return CheckResult(
        result.criterion, "failed", CheckFailed("It was tried at grading, with inputs of its own.")
    )


def _try_all(
    name: str, lines: Sequence[tuple[type[Any], Criterion]], subject: Subject, seed: int
) -> tuple[list[CheckResult], str, str]:
    """Judge the criteria in order: their results, and status and reason where the exercise ended before its end."""
    results: list[CheckResult] = []
    status, reason = "", ""
    subject.largest = (REPLY[0], grader_of(name).largest_reply)
    try:
        for grader, line in lines:
            results.append(judged(grader, line, subject, seeded(seed, name, line.name)))
        reason = next((result.message for result in results if isinstance(result.failure, Unjudged)), "")
    except SubjectLost as lost:
        status, reason = lost.status, lost.reason
        if status == "forbidden":
            results.clear()
    except KeyboardInterrupt as stop:
        if not isinstance(subject, LiveSubject):  # Ctrl-C ends a run on files as a whole
            raise
        status, reason = "interrupted", where_stopped(stop)
    return results + [CheckResult(line, "not run") for _, line in lines[len(results) :]], status, reason


def _counted(verdict: Verdict, more: Sequence[CheckResult] = ()) -> Verdict:
    """The verdict with more results, its score, and its status where the exercise ran to its end."""
    checks = (*verdict.checks, *more)
    score = sum(result.criterion.points for result in checks if result.status == "passed")
    tried = sum(result.criterion.points for result in checks)
    ran = verdict.status in ("", "passed", "failed")
    return replace(
        verdict,
        checks=checks,
        score=float(score),
        undecided=verdict.max_score - tried,
        status=("passed" if score == tried else "failed") if ran else verdict.status,
    )


def without_running(name: str, status: str, reason: str = "") -> Verdict:
    """The verdict on an exercise that was not run: not attempted, refused, or lost before it began."""
    checks = tuple(CheckResult(line, "not run") for _, line in rubric(name, hidden=False))
    return Verdict(name, status, 0.0, float(points(name)), checks, reason=reason)


def judged(grader: type[Any], line: Criterion, subject: Subject, rng: torch.Generator) -> CheckResult:
    """Try one criterion. Raises SubjectLost where the subject is gone."""
    try:
        getattr(grader(), f"test_{line.name}")(subject, rng)
        return CheckResult(line, "passed")
    except CheckFailed as failed:
        failure = _with_the_part_that_is_missing(failed, grader.exercise.name)
    except ProbeFailed as failed:
        raised = CheckFailed(explained(failed.error), error=failed.error)
        failure = _with_the_part_that_is_missing(raised, grader.exercise.name)
    except SubjectLost:
        raise
    except Exception as error:
        if isinstance(subject, LiveSubject):
            raise
        what = f"{type(error).__name__}: {error}"
        failure = Unjudged(f"the grader could not judge this reply ({what[:500]})")
    failure.printed = subject.printed
    return CheckResult(line, "failed", _detached(failure))


def _detached(failure: CheckFailed) -> CheckFailed:
    """The failure without what would keep replies in memory while it lives: traceback, causes and values."""
    failure.__traceback__ = failure.__context__ = failure.__cause__ = None
    failure.keep_text()
    return failure


def _with_the_part_that_is_missing(failure: CheckFailed, name: str) -> CheckFailed:
    """A failure; where the stub of an earlier exercise is the reason, its message says so."""
    missing = failure.error.function if failure.error and failure.error.unwritten else ""
    if missing in PART_OF and PART_OF[missing].name != name:
        failure.message = (
            f"{PART_OF[missing].number} {missing}, which your code calls, is not written yet. Write it first, or "
            f"call working({missing}): the library's version stands in until yours has passed"
        )
    return failure


def _diagnose(
    name: str, subject: Subject, results: Sequence[CheckResult]
) -> tuple[diagnosis.Diagnosis | None, str]:
    """The mistake's name, or a sentence about code that computes nothing: see `diagnosis.diagnose`.

    There is neither over an exception, or where nothing came back: these say it all. The criteria are judged by now:
    nothing here may cost a verdict.
    """
    failed = [(result.criterion, result.failure) for result in results if result.failure]
    if not failed or failed[0][0].hidden or failed[0][1].complete:
        return None, ""
    try:
        return diagnosis.diagnose(name, subject, [line.name for line, _ in failed])
    except Exception:
        if isinstance(subject, LiveSubject):
            raise
        return None, ""
