"""From a file that was handed in to what is graded: read, repaired, its notebook found, its key computed."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import platform
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from moe_course.grading.exercises import custom_course
from moe_course.grading.exercises.locate import PACKAGE, graders_dir, released
from moe_course.grading.exercises.registry import EXERCISES, NOTEBOOKS, exercises_of
from moe_course.grading.submission.attempts import Submission, Unreadable, from_notebook, read
from moe_course.grading.submission.collection import Handed
from moe_course.grading.submission.repair import Ungradable, repair, repair_script, which_notebook
from moe_course.grading.submission.scripts import as_notebook


@dataclass(frozen=True)
class Task:
    """One submission: what to grade, or the problem that keeps it from being graded.

    key: the hash of all that decides the grade.
    """

    handed: Handed
    key: str
    notebook: str = ""
    submission: Submission | None = None
    repairs: tuple[str, ...] = ()
    problem: str = ""

    def to_send(self) -> Task:
        """The task without the way to its file, which another machine does not have and does not need."""
        return replace(self, handed=replace(self.handed, fetch=None))

    @property
    def whose(self) -> tuple[str, str]:
        """Student and assignment."""
        return self.handed.student, self.handed.assignment


def tasks(handed: Sequence[Handed], conditions: Any) -> list[Task]:
    """Read every submission. Several for one student and assignment are ungradable: a person has to choose.

    conditions: what else decides a grade, as plain data: it becomes part of the keys.
    """
    found = [_task(one, conditions) for one in handed]
    claims = Counter(task.whose for task in found)
    chosen: dict[tuple[str, str], Task] = {}
    for task in found:
        if claims[task.whose] > 1:
            names = ", ".join(other.handed.name for other in found if other.whose == task.whose)
            problem = f"several files are the submission of one student ({names}): leave one"
            task = Task(task.handed, _hash(problem), problem=problem)
        chosen[task.whose] = task
    return list(chosen.values())


def _task(handed: Handed, conditions: Any) -> Task:
    """Read one submission. Never raises: what goes wrong becomes its problem."""
    problem = handed.problem
    if handed.fetch is not None and not problem:
        try:
            submission, repairs, notebook = _prepare(handed)
            names = [exercise.name for exercise in exercises_of(notebook)]
            parts = sorted(submission.definitions.items())
            checked = sorted(submission.checked.items())
            key = _hash([submission.cells, parts, checked, names, graders(), environment(), conditions])
            handed = replace(handed, assignment=handed.assignment or notebook)
            return Task(handed, key, notebook, submission, (*handed.notes, *repairs))
        except ValueError as error:
            problem = str(error)
        except Exception as error:  # a notebook made to break its reader
            problem = f"cannot be read ({type(error).__name__}: {error}): ask for the file again"
    return Task(handed, _hash([handed.name, problem]), problem=problem)


def _prepare(handed: Handed) -> tuple[Submission, tuple[str, ...], str]:
    """A submission, what had to be repaired, and the notebook it answers. Raises ValueError with a reason."""
    assert handed.fetch is not None
    data = handed.fetch()
    notebook = next(
        (known for known in NOTEBOOKS if known in (handed.assignment, Path(handed.name).stem)), ""
    )
    is_script = Path(handed.name).suffix.lower() != ".ipynb"
    whole = as_notebook(data) if is_script else data
    if whole is None:
        submission = _read(data, handed)
        return submission, (), notebook or _most_defined(submission)
    releases = _releases()
    notebook = notebook or which_notebook(whole, releases) or _most_defined(_read(data, handed))
    if notebook not in releases:
        raise ValueError(f"{notebook} has not been released: run `nbgrader generate_assignment {notebook}`")
    repaired = (repair_script if is_script else repair)(whole, releases[notebook])
    return from_notebook(Path(handed.name), repaired.notebook), repaired.notes, notebook


def read_mended(path: Path) -> tuple[Submission, tuple[str, ...]]:
    """A learner's own file, and what was repaired. Raises Unreadable.

    A notebook of the course is repaired as for a cohort; one that has only some of its exercises is read as it is.
    """
    plain = read(path)
    if path.suffix == ".ipynb":
        with contextlib.suppress(Ungradable):
            data, releases = path.read_bytes(), _releases()
            name = path.stem if path.stem in releases else which_notebook(data, releases)
            whole = [exercise.name for exercise in exercises_of(name or "")]
            if name is not None and 2 * len({*whole} & {*plain.exercises}) >= len(whole):
                repaired = repair(data, releases[name])
                return from_notebook(path, repaired.notebook), repaired.notes
    return plain, ()


def _read(data: bytes, handed: Handed) -> Submission:
    with tempfile.TemporaryDirectory(prefix="moe-course-") as folder:
        path = Path(folder) / f"submission{Path(handed.name).suffix.lower()}"
        path.write_bytes(data)
        try:
            return replace(read(path), path=Path(handed.name))
        except Unreadable as error:
            raise Unreadable(str(error).removeprefix(f"{path}: ")) from None


def _most_defined(submission: Submission) -> str:
    """The notebook with most of the exercises that a submission defines. Raises ValueError where it defines none."""
    if defined := Counter(EXERCISES[name].notebook for name in submission.exercises):
        return defined.most_common(1)[0][0]
    raise ValueError("defines no exercise of the course: is it the right file? If so, name its --assignment")


@functools.cache
def _releases() -> dict[str, NotebookNode]:
    """The notebooks as they were handed out."""
    paths = {name: released(name) for name in NOTEBOOKS}
    return {name: nbformat.read(path, as_version=4) for name, path in paths.items() if path.is_file()}


@functools.cache
def environment() -> dict[str, str]:
    """The versions that a grade depends on."""
    return {
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "moe-course": metadata.version("moe-course"),
    }


@functools.cache
def graders() -> str:
    """A hash of the graders, their probes and oracles, of the judge itself, and of an instructor's own part."""
    digest = hashlib.sha256()
    mine = custom_course.folder()
    for folder in (
        graders_dir(),
        PACKAGE / "grading",
        *((mine / "graders", mine / "hidden") if mine else ()),
    ):
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    digest.update(json.dumps(custom_course.settings(), default=str, sort_keys=True).encode())
    return digest.hexdigest()


def _hash(what: Any) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()
