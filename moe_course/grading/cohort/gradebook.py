"""Results in nbgrader's gradebook, through its own interface.

Only the automatic score is written. A manual score, extra credit and comments of a person stay as they are, and
the manual score goes on winning. Several graders may write at once: a lock beside the database lets them in one
after the other, and a database that nbgrader itself holds is tried again.
"""

from __future__ import annotations

import contextlib
import math
import os
import sysconfig
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from filelock import FileLock, Timeout

from moe_course.grading.cohort.late import Late, instant
from moe_course.grading.cohort.ledger import Record
from moe_course.grading.cohort.roster import Learner
from moe_course.grading.exercises.registry import EXERCISES

if TYPE_CHECKING:
    from nbgrader.api import Gradebook

PATIENCE = 120.0  # seconds that another writer may take


def write_gradebook(
    database: Path,
    records: Iterable[Record],
    roster: dict[str, Learner] | None = None,
    late: dict[tuple[str, str], Late] | None = None,
) -> None:
    """Write every record into the SQLite gradebook `database`. Writing one twice changes nothing.

    What could not be graded gets no score and is marked for a person, with the reason as its comment. roster: the
    learners; nobody else gets into the gradebook. Without one, a learner of whom only a platform's name is known
    does not get into it either, unless the gradebook has that name already.

    Raises ValueError where the gradebook stays locked, and, when all others are written, where learners are left out.
    """
    known = _students(database)
    left_out = []
    for record in records:
        student = record["student"]
        invented = bool(record["lms_id"]) and not record.get("handed_as") and student not in known
        if student not in roster if roster else invented:
            left_out.append(student)
        elif record["assignment"]:
            _patiently(database, record, (late or {}).get((student, record["assignment"])))
    if left_out:
        names = ", ".join(dict.fromkeys(left_out))
        advice = "add them to the roster" if roster else "a --roster FILE says who they are in the gradebook"
        raise ValueError(
            f"{database}: {len(left_out)} not written, because no learner there is called {names}: {advice}"
        )


def _students(database: Path) -> set[str]:
    with opened(database) as gradebook:
        return {student.id for student in gradebook.students}


@contextlib.contextmanager
def opened(database: Path) -> Iterator[Gradebook]:
    """The gradebook, for this process alone; made where there is none. Raises ValueError where it stays locked."""
    from nbgrader.api import Gradebook
    from sqlalchemy.exc import SAWarning

    scripts = sysconfig.get_path("scripts")  # nbgrader calls `alembic` by its bare name for a new database
    path = os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)])
    try:
        with FileLock(f"{database}.lock", timeout=PATIENCE), warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)  # of nbgrader's own making
            with patch.dict(os.environ, PATH=path):
                gradebook = Gradebook(f"sqlite:///{database}")
            with gradebook:
                yield gradebook
    except Timeout:
        raise ValueError(f"{database}: another grader has held the gradebook for {PATIENCE:g} s") from None


def _patiently(database: Path, record: Record, late: Late | None) -> None:
    """Write a record; again while nbgrader itself is writing."""
    from nbgrader.api import InvalidEntry
    from sqlalchemy.exc import OperationalError

    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with opened(database) as gradebook:
                return _write(gradebook, record, late)
        except (OperationalError, InvalidEntry) as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise ValueError(f"{database}: cannot be written to ({error})") from error
            time.sleep(0.5)


def _write(gradebook: Gradebook, record: Record, late: Late | None) -> None:
    assignment, student = record["assignment"], record["student"]
    notebook = record["notebook"] or assignment
    _lay_out(gradebook, record, notebook)
    gradebook.update_or_create_student(student)
    submitted = instant(record.get("submitted") or "")
    when = {"timestamp": submitted.replace(tzinfo=None)} if submitted else {}
    gradebook.update_or_create_submission(assignment, student, **when)
    if late is not None:
        gradebook.find_submission_notebook(
            notebook, assignment, student
        ).late_submission_penalty = late.penalty
    graded = {verdict["exercise"]: verdict for verdict in record["verdicts"]}
    for cell in gradebook.find_notebook(notebook, assignment).grade_cells:
        name = cell.name.removeprefix("check_")
        if name not in EXERCISES or (name not in graded and record["status"] == "graded"):
            continue  # a cell of the instructor's own
        grade = _grade(gradebook, cell, notebook, assignment, student)
        score = _points(graded.get(name), cell.max_score)
        if score != grade.auto_score or score is None:
            grade.needs_manual_grade = score is None or grade.manual_score is not None
        grade.auto_score = score
        _explain(gradebook, name, notebook, record, score)
    gradebook.db.commit()  # all scores of a student or none


def _lay_out(gradebook: Gradebook, record: Record, notebook: str) -> None:
    """Make the assignment, the notebook and its cells where `generate_assignment` has not."""
    from nbgrader.api import MissingEntry

    assignment = record["assignment"]
    try:
        gradebook.find_notebook(notebook, assignment)
        return  # the instructor's own choice of exercises and points
    except MissingEntry:
        gradebook.update_or_create_assignment(assignment)
        gradebook.update_or_create_notebook(notebook, assignment)
    for verdict in record["verdicts"]:
        name = verdict["exercise"]
        if EXERCISES[name].graded:
            gradebook.update_or_create_grade_cell(
                f"check_{name}", notebook, assignment, max_score=verdict["max_score"], cell_type="code"
            )
            gradebook.update_or_create_solution_cell(name, notebook, assignment)


def _grade(gradebook: Gradebook, cell: Any, notebook: str, assignment: str, student: str) -> Any:
    """The row of one grade; made where the cell is younger than the submission."""
    from nbgrader.api import Grade, MissingEntry

    try:
        return gradebook.find_grade(cell.name, notebook, assignment, student)
    except MissingEntry:
        submitted = gradebook.find_submission_notebook(notebook, assignment, student)
        grade = Grade(cell_id=cell.id, notebook=submitted)
        gradebook.db.add(grade)
        return grade


def _points(verdict: dict[str, Any] | None, full: float) -> float | None:
    """The score in the gradebook's points, between 0 and full marks; None where there is no verdict.

    Raises ValueError for a score that is none: nbgrader would give full marks for NaN or −1.
    """
    if verdict is None or verdict["status"] == "ungradable":
        return None
    score, most = verdict["score"], verdict["max_score"]
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise ValueError(f"{verdict['exercise']}: {score!r} is no score")
    if not 0 <= score <= most:
        raise ValueError(f"{verdict['exercise']}: a score of {score} is not between 0 and {most}")
    return float(score) * full / most if most else 0.0


def _explain(gradebook: Gradebook, name: str, notebook: str, record: Record, score: float | None) -> None:
    """Say under the answer why it has no score."""
    from nbgrader.api import MissingEntry

    try:
        comment = gradebook.find_comment(name, notebook, record["assignment"], record["student"])
    except MissingEntry:
        return
    if score is None:
        comment.auto_comment = f"Not graded: {record['reason']}"
    elif (comment.auto_comment or "").startswith("Not graded: "):
        comment.auto_comment = None
