"""`moe-course grade`: a whole cohort, each submission in a worker of its own, killable at any moment.

Every submission ends as a record that is "graded" or "ungradable" with a reason a human can act on. A record is
final for its key, a hash of all that decides a grade: the learner's cells, the graders, the environment, the seed.
A run that continues grades what has no record, what has another key by now, and what failed for a reason that
lies with this machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_course.grading.cohort.exports import exercise_scores, write_results
from moe_course.grading.cohort.feedback import write_feedback
from moe_course.grading.cohort.gradebook import write_gradebook
from moe_course.grading.cohort.late import Deadline
from moe_course.grading.cohort.ledger import Ledger, Record, now
from moe_course.grading.cohort.pools import limits_elsewhere, pool
from moe_course.grading.cohort.roster import Learner, enrolled, read_roster
from moe_course.grading.exercises import custom_course
from moe_course.grading.exercises.registry import EXERCISES, exercises_of
from moe_course.grading.judge.files import grade_submission
from moe_course.grading.judge.rendering import as_dict
from moe_course.grading.judge.verdict import Verdict, for_the_learner, without_running
from moe_course.grading.submission.attempts import Submission
from moe_course.grading.submission.collection import submissions
from moe_course.grading.submission.intake import Task, environment, tasks
from moe_course.grading.worker.sandbox import Limits, walls

Grader = Callable[[Submission, Sequence[str], int, Limits | None], list[Verdict]]


@dataclass(frozen=True)
class Conditions:
    """Under which conditions a cohort is graded: its seed, the limits of the sandbox (None without one), the function
    that grades a submission."""

    seed: int
    limits: Limits | None
    grader: Grader

    def tasks(self, submitted: Path, assignment: str | None, roster: dict[str, Learner] | None) -> list[Task]:
        """Everything that was handed in. Seed and limits are part of the keys."""
        walled = None if self.limits is None else vars(self.limits)
        handed = enrolled(submissions(submitted, assignment), roster or {})
        return tasks(handed, [self.seed, walled])

    def record(self, task: Task) -> Record:
        """Grade one submission. Whatever happens, there is a record of it."""
        started, clock = now(), time.perf_counter()
        verdicts: list[dict[str, Any]] = []
        solutions: dict[str, Any] = {}
        problem, again = task.problem, False
        try:
            if task.submission is not None:
                found = self._verdicts(task.submission, task.notebook)
                problem = "; ".join(filter(None, (verdict.problem for verdict in found)))
                again = bool(problem)
                verdicts = [_sound(verdict) for verdict in found]
                names = [verdict["exercise"] for verdict in verdicts]
                solutions = {name: mark for name in names if (mark := task.submission.fingerprint(name))}
        except Exception as error:
            problem = f"the grader failed ({type(error).__name__}: {error}): mend it, then --resume"
            again = True
        return self._as_record(
            task, problem, again, verdicts, solutions, started, time.perf_counter() - clock
        )

    def lost(self, task: Task, error: BaseException) -> Record:
        """The record of a submission that no worker on another machine could grade."""
        problem = f"no worker graded it ({type(error).__name__}: {error}): run again with --resume"
        return self._as_record(task, problem, True, [], {}, now(), 0.0)

    def _as_record(
        self,
        task: Task,
        problem: str,
        again: bool,
        verdicts: list[dict[str, Any]],
        solutions: dict[str, Any],
        started: str,
        seconds: float,
    ) -> Record:
        return {
            "student": task.handed.student,
            "lms_id": task.handed.lms_id,
            "assignment": task.handed.assignment,
            "notebook": task.notebook,
            "file": task.handed.name,
            "folder": task.handed.folder,  # the platform's name, for its upload of feedback
            "handed_as": task.handed.handed_as,  # where a roster gave the learner another name
            "submitted": task.handed.submitted,  # when, where that is known
            "status": "ungradable" if problem else "graded",
            "reason": problem,
            "score": None if problem else sum(verdict["score"] for verdict in verdicts),
            "max_score": sum(verdict["max_score"] for verdict in verdicts) if verdicts else None,
            "repairs": list(task.repairs),
            "verdicts": verdicts,
            "solutions": solutions,  # to find identical ones without their text
            "seed": self.seed,
            "key": task.key,
            "version": environment()["moe-course"],
            "environment": environment(),
            "sandboxed": self.limits is not None,
            "again": again,  # the reason lies with this machine: the next run tries once more
            "started": started,
            "graded": now(),
            "seconds": round(seconds, 3),
        }

    def _verdicts(self, submission: Submission, notebook: str) -> list[Verdict]:
        """A verdict on every exercise of the notebook; one that the submission lacks is not attempted."""
        names = [exercise.name for exercise in exercises_of(notebook)]
        defined = [name for name in names if name in submission.exercises]
        found = {
            verdict.exercise: verdict for verdict in self.grader(submission, defined, self.seed, self.limits)
        }
        absent = "the submission does not define it: was its cell deleted, or the function renamed?"
        return [
            found[name] if name in defined else without_running(name, "not attempted", absent)
            for name in names
        ]


@dataclass(frozen=True)
class Change:
    """A score that another run would give; None stands for no score."""

    student: str
    assignment: str
    exercise: str
    old: float | None
    new: float | None

    def __str__(self) -> str:
        old, new = ("no score" if score is None else f"{score:g}" for score in (self.old, self.new))
        return f"{self.student}: {self.assignment}: {self.exercise}: {old} → {new}"


def run(conditions: Conditions, waiting: Sequence[Task], total: int, pool: Executor) -> Iterator[Record]:
    """The records, as they are done. `total` is the number of all submissions, for the progress bar on a terminal."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    futures = {pool.submit(conditions.record, task.to_send()): task for task in waiting}
    shown = tqdm(as_completed(futures), "grading", total, initial=total - len(waiting), unit="", disable=None)
    for future in shown:
        task = futures.pop(future)  # nobody holds on to a record that was given
        # Only on another machine can a task fail or be taken back: `record` itself never raises.
        if future.cancelled():
            yield conditions.lost(task, CancelledError("the cluster has no worker left"))
        elif error := future.exception():
            yield conditions.lost(task, error)
        else:
            yield future.result()


def grade(
    submitted: Path,
    out: Path,
    assignment: str | None = None,
    jobs: int = 1,
    resume: bool = False,
    seed: int | None = None,
    unsafe: bool = False,
    *,
    gradebook: Path | None = None,
    anonymise: bool = False,
    roster: Path | None = None,
    deadline: Deadline | None = None,
    feedback: Path | None = None,
    dask: str | None = None,
    grader: Grader = grade_submission,
) -> list[Record]:
    """Grade everything in `submitted` into the folder `out`; returns the record of each submission.

    assignment: only this one; jobs: submissions at a time; resume: continue in a folder that holds results;
    seed: the cohort's, for a new folder only (default: drawn); unsafe: without a sandbox; gradebook: nbgrader's
    database, written at the end; anonymise: pseudonyms in the reports; roster: a CSV file of the learners; deadline:
    what late submissions lose; feedback: a folder for a page for each learner; dask: the address of a scheduler whose
    workers grade instead of this machine.

    Raises ValueError where nothing can start: no sandbox, no submissions, a folder that may not be written to, a
    roster that is none. Raises KeyboardInterrupt, with a sentence that says how to go on, when it is interrupted.
    """
    learners = read_roster(roster) if roster else {}
    limits = walls(unsafe) if dask is None else limits_elsewhere(unsafe)
    submissions(submitted, assignment)  # a mistyped path leaves no folder behind
    ledger = Ledger(out)
    with ledger.opened(resume, seed) as cohort_seed:
        ledger.catch_up()
        conditions = Conditions(cohort_seed, limits, grader)
        handed = conditions.tasks(submitted, assignment, learners)
        ledger.retire({task.handed.name: task.whose for task in handed})
        waiting = [task for task in handed if not _settled(ledger, task)]
        try:
            with pool(jobs, dask, limits is not None) as threads:
                for record in run(conditions, waiting, len(handed), threads):
                    ledger.keep(record)
        except KeyboardInterrupt:
            done = sum(_settled(ledger, task) for task in handed)
            raise KeyboardInterrupt(
                f"interrupted: {done} of {len(handed)} submissions are graded and kept in {out}; "
                "the same command with --resume goes on from there"
            ) from None
        records = [found for task in handed if (found := ledger.find(*task.whose))]
        late = deadline.of(ledger.records(), learners) if deadline else {}
        write_results(ledger, anonymise, learners, late)
    if feedback is not None:
        write_feedback(feedback, records, late)
    if gradebook is not None:
        write_gradebook(gradebook, records, learners, late)
    return records


def regrade_diff(
    submitted: Path,
    out: Path,
    assignment: str | None = None,
    jobs: int = 1,
    unsafe: bool = False,
    *,
    roster: Path | None = None,
    grader: Grader = grade_submission,
) -> list[Change]:
    """What `grade(..., resume=True)` would change in `out`, which is only read. Arguments and errors as there."""
    ledger = Ledger(out)
    conditions = Conditions(ledger.seed(), walls(unsafe), grader)
    handed = conditions.tasks(submitted, assignment, read_roster(roster) if roster else {})
    waiting = [task for task in handed if not _settled(ledger, task)]
    changes = []
    with pool(jobs, None, not unsafe) as threads:
        for new in run(conditions, waiting, len(handed), threads):
            old = ledger.find(new["student"], new["assignment"])
            before, after = exercise_scores(old) if old else {}, exercise_scores(new)
            changes += [
                Change(new["student"], new["assignment"], name, before.get(name), after.get(name))
                for name in EXERCISES
                if before.get(name) != after.get(name)
            ]
    return sorted(changes, key=lambda change: (change.student, change.assignment))


def _settled(ledger: Ledger, task: Task) -> bool:
    """Whether the record of a submission is final for this very key."""
    record = ledger.find(*task.whose)
    return record is not None and record.get("key") == task.key and not record.get("again")


def _sound(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain data, in the instructor's points. Raises ValueError for a score that is none."""
    score, full = verdict.score, verdict.max_score
    if not (math.isfinite(score) and 0 <= score <= full):
        raise ValueError(f"{verdict.exercise}: a score of {score} out of {full}")
    found = as_dict(verdict)
    worth = custom_course.worth(verdict.exercise, full)
    told = as_dict(for_the_learner(verdict))
    feedback = {name: told[name] for name in ("status", "reason", "checks", "diagnosis")}
    return {**found, "score": score * worth / full, "max_score": worth, "feedback": feedback}
