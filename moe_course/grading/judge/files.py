"""`moe-course check FILE...`: grade files for the exercises they define, each in a worker process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path

from moe_course.grading.exercises.registry import EXERCISES, find, label
from moe_course.grading.judge import earlier, patience
from moe_course.grading.judge.subject import EXERCISE_SECONDS, PROBE_SECONDS, SubjectLost, WorkerSubject
from moe_course.grading.judge.verdict import Verdict, grade_hidden, grade_public, without_running
from moe_course.grading.submission.attempts import Submission
from moe_course.grading.submission.intake import read_mended
from moe_course.grading.worker.sandbox import Limits, masked_modules
from moe_course.grading.worker.serve import CELL_SECONDS

Wait = Callable[[str], contextlib.AbstractContextManager[None]]
"""What goes around each long step, told what the step is."""


class Turns:
    """Lets submissions be graded side by side, or one of them while all others wait."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._beside = 0
        self._wanted = 0

    @contextlib.contextmanager
    def beside_others(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._wanted)
            self._beside += 1
        try:
            yield
        finally:
            with self._changed:
                self._beside -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._wanted += 1
            self._changed.wait_for(lambda: not self._beside)
            self._beside += 1
        try:
            yield
        finally:
            with self._changed:
                self._beside -= 1
                self._wanted -= 1
                self._changed.notify_all()


_turns = Turns()


def _in_silence(text: str) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def grade_submission(
    submission: Submission,
    names: Sequence[str],
    seed: int,
    limits: Limits | None = None,
    wait: Wait = _in_silence,
) -> list[Verdict]:
    """The verdict on each named exercise of a submission, in a worker process of its own for each notebook.

    With `limits` the worker is sandboxed. While a notebook's exercises are judged, the library modules that answer
    them are masked. Hidden criteria come last, after the public ones of all its exercises. An exercise that timed out
    is tried once more while this process grades nothing else, and that verdict counts.
    """
    with _turns.beside_others():
        verdicts = _grade_all(submission, names, seed, limits, wait)
    late = [verdict.exercise for verdict in verdicts if verdict.status == "timed out"]
    if late:
        with _turns.alone():
            again = {
                verdict.exercise: verdict for verdict in _grade_all(submission, late, seed, limits, wait)
            }
        verdicts = [again.get(verdict.exercise, verdict) for verdict in verdicts]
    return verdicts


def _grade_all(
    submission: Submission, names: Sequence[str], seed: int, limits: Limits | None, wait: Wait
) -> list[Verdict]:
    verdicts = []
    for notebook, group in groupby(names, key=lambda name: EXERCISES[name].notebook):
        here, masked = list(group), masked_modules(notebook)
        pauses = [after for name in here if (after := submission.checked_after(name)) is not None]
        with WorkerSubject(submission.cells, limits, masked, pauses=pauses) as worker:
            public = [_grade_public(submission, name, worker, seed, wait) for name in here]
            known = {verdict.exercise: verdict for verdict, _ in public}
            for verdict, after in public:
                wrong = _wrong_below(verdict, known, submission, worker, seed, wait)
                verdicts.append(_grade_hidden(earlier.blamed(verdict, wrong), worker, after, wait))
    return verdicts


def _grade_public(
    submission: Submission, name: str, worker: WorkerSubject, seed: int, wait: Wait
) -> tuple[Verdict, int | None]:
    """The verdict, and after how many cells the notebook stood when it was given (None: at its end).

    Where that makes a difference, an exercise is judged as it was at its check; else, if it fails there, as it is at
    the end, which is what the learner's kernel holds after a session.
    """
    if submission.untouched(name):
        return without_running(name, "not attempted"), None
    own = [submission.definitions[part] for part in EXERCISES[name].parts if part in submission.definitions]
    try:
        with wait(f"its cells are still running. One may take {CELL_SECONDS:g} seconds"):
            lost = worker.loss_of(own)
    except SubjectLost as failure:
        lost = failure
    if lost:
        needs = f"the cell of the answer {lost.status} here ({lost.reason}): does it in a notebook?"
        return replace(without_running(name, lost.status, lost.reason), needs=needs), None
    after = submission.checked_after(name)
    worker.allow(EXERCISE_SECONDS, after)
    with wait(_long(name)):
        verdict = grade_public(name, worker, seed)
    if verdict.status == "passed":
        return verdict, after
    failed = replace(verdict, needs=worker.doubts())
    if after is not None:
        worker.allow(EXERCISE_SECONDS)
        with wait(_long(name)):
            verdict = grade_public(name, worker, seed)
        if verdict.status == "passed":
            return verdict, None
    return failed, after


def _wrong_below(
    verdict: Verdict,
    known: dict[str, Verdict],
    submission: Submission,
    worker: WorkerSubject,
    seed: int,
    wait: Wait,
) -> list[str]:
    """The exercises of the same submission that a failed answer calls and that are wrong.

    known: the verdicts that there are; those that are needed besides are added.
    """
    wrong = []
    for name in (
        earlier.called(verdict.exercise, submission.definitions) if verdict.status == "failed" else ()
    ):
        if submission.definitions.keys() >= {*EXERCISES[name].parts}:
            if name not in known:
                known[name], _ = _grade_public(submission, name, worker, seed, wait)
            if earlier.wrong(known[name]):
                wrong.append(name)
    return wrong


def _grade_hidden(public: Verdict, worker: WorkerSubject, after: int | None, wait: Wait) -> Verdict:
    """After all public criteria of the notebook: from here on nothing that the code says reaches the learner."""
    if public.status == "not attempted":
        return public
    worker.allow(EXERCISE_SECONDS, after)
    with wait(_long(public.exercise)):
        return grade_hidden(public, worker)


def _long(name: str) -> str:
    """What is said of an exercise that takes long."""
    return (
        f"{label(name)} is still running. One call may take {PROBE_SECONDS:g} seconds, the exercise "
        f"{EXERCISE_SECONDS:g}; what is stopped then is tried once more"
    )


def check_file(path: Path, exercise: str | None, seed: int) -> tuple[Path, list[Verdict] | str]:
    """The verdicts on one file, or the reason why it cannot be graded."""
    try:
        submission, repairs = read_mended(path)
    except ValueError as error:
        return path, str(error)
    names = submission.exercises
    if exercise is not None:
        names = tuple(name for name in names if name == find(exercise).name)
    if not names:
        return path, f"{path}: defines {'no exercise' if exercise is None else f'no {exercise}'}"
    first, *others = grade_submission(submission, names, seed, wait=partial(_waiting, path))
    told = tuple(f"The file was repaired before it was checked: {note}." for note in repairs)
    return path, [replace(first, notes=(*first.notes, *told)), *others]


def _waiting(path: Path, text: str) -> contextlib.AbstractContextManager[None]:
    return patience.told(f"{path}: {text}. Ctrl-C stops everything now.")


def check_files(
    paths: Sequence[Path], exercise: str | None = None, jobs: int = 1, *, seed: int
) -> Iterator[tuple[Path, list[Verdict] | str]]:
    """Grade several files, `jobs` at a time; the results come in the order of the files."""
    one = partial(check_file, exercise=exercise, seed=seed)
    if jobs == 1 or len(paths) == 1:
        yield from map(one, paths)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(one, paths)
