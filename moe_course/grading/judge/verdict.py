"""From a subject to a verdict: run the criteria of an exercise and keep what each of them found."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    reason: what a person can do about it, where the criteria do not say; seed: repeats this very run;
    withheld: status and reason come from hidden criteria, so that the learner must not read them;
    needs: why the instructor should look, because the sandbox may have failed where a notebook does not, or "".
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
    """The verdict of the criteria that learners know; the hidden points stay undecided."""
    lines = rubric(name, hidden=False)
    started = time.perf_counter()
    results, status, reason = _try_all(name, lines, subject, seed)
    found = None
    try:
        if not status and any(result.status == "failed" for result in results):
            found = _diagnose(name, subject)
    except KeyboardInterrupt:
        status = "interrupted"
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
        diagnosis=public.diagnosis
        if public.status == "failed" or status
        else _name_hidden(name, results, subject),
    )
    if forbidden:
        results = [CheckResult(line, "not run") for _, line in rubric(name)]
    return _counted(verdict, results)


def _name_hidden(name: str, results: Sequence[CheckResult], subject: Subject) -> diagnosis.Diagnosis | None:
    """For the instructor: the mistake that hidden criteria alone have found."""
    return _diagnose(name, subject) if any(result.status == "failed" for result in results) else None


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
    known = any(result.status == "failed" and not result.criterion.hidden for result in verdict.checks)
    mistake = (
        verdict.diagnosis if known else None
    )  # else it was found after the hidden criteria, and could be chosen
    return replace(verdict, checks=checks, status=status, reason=reason, seed=0, diagnosis=mistake)


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
    try:
        for grader, line in lines:
            results.append(_judge(grader, line, subject, seeded(seed, name, line.name)))
        reason = next((result.message for result in results if isinstance(result.failure, Unjudged)), "")
    except SubjectLost as lost:
        status, reason = lost.status, lost.reason
        if status == "forbidden":
            results.clear()
    except KeyboardInterrupt:
        status = "interrupted"
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


def _judge(grader: type[Any], line: Criterion, subject: Subject, rng: torch.Generator) -> CheckResult:
    try:
        getattr(grader(), f"test_{line.name}")(subject, rng)
    except CheckFailed as failure:
        return CheckResult(line, "failed", _detached(failure))
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


def _detached(failure: CheckFailed) -> CheckFailed:
    """The failure without its traceback and its causes, which would keep all replies in memory while it lives."""
    failure.__traceback__ = failure.__context__ = failure.__cause__ = None
    return failure


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
