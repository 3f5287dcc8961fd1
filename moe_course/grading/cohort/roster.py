"""The list of a course's learners: under which name each is graded, and what a learning platform calls them.

A CSV file with a first row of column names. Only `student` is needed; the order does not matter.

    student      the name in the gradebook and in the results
    name         first and last name, or last name and first name
    lms_id       the number in Canvas, or of the participant in Moodle
    login        the name to log in with
    email        the e-mail address
    team         the team in whose name a submission may come
    grace        days of grace of this learner's own, instead of the course's
    late_days    how many days late they were, where you know it better than the time of the submission
    penalty      points to take off, whatever a rule for late submissions says
"""

from __future__ import annotations

import csv
import io
import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from moe_course.grading.submission.collection import Handed

ALIASES = {
    "student": ("student", "student id", "student_id"),
    "name": ("name", "full name"),
    "lms_id": ("lms_id", "id", "participant", "identifier", "canvas id", "user id"),
    "login": ("login", "username", "sis login id", "login id"),
    "email": ("email", "e-mail", "email address", "mail"),
    "team": ("team", "group"),
    "grace": ("grace", "grace days", "extra days"),
    "late_days": ("late_days", "late days"),
    "penalty": ("penalty",),
}
_NUMBERS = ("grace", "late_days", "penalty")


@dataclass(frozen=True)
class Learner:
    """A row of the roster. grace and late_days in days, penalty in points; None where the cell is empty."""

    student: str
    name: str = ""
    lms_id: str = ""
    login: str = ""
    email: str = ""
    team: str = ""
    grace: float | None = None
    late_days: float | None = None
    penalty: float | None = None


def read_roster(path: Path) -> dict[str, Learner]:
    """{student: row}. Raises ValueError that names the line for what is no roster."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: the roster cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: the roster is not UTF-8 text: save it as “CSV UTF-8”") from None
    head = text.split("\n", 1)[0]
    separator = max(",;\t", key=head.count)
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    columns = _columns(rows[0] if rows else [])
    if "student" not in columns:
        raise ValueError(f"{path}: the roster has no column “student”; its first line is {head.strip()!r}")
    found: dict[str, Learner] = {}
    for number, row in enumerate(rows[1:], 2):
        cells = {field: row[at].strip() for field, at in columns.items() if at < len(row)}
        if not any(cells.values()):
            continue
        learner = _learner(cells, f"{path}, line {number}")
        if learner.student in found:
            raise ValueError(f"{path}, line {number}: {learner.student!r} is in the roster twice")
        found[learner.student] = learner
    return found


def _columns(head: list[str]) -> dict[str, int]:
    places = {title.strip().casefold(): at for at, title in reversed(list(enumerate(head)))}
    found = {field: [places[alias] for alias in names if alias in places] for field, names in ALIASES.items()}
    return {field: at[0] for field, at in found.items() if at}


def _learner(cells: dict[str, str], where: str) -> Learner:
    if not cells.get("student"):
        raise ValueError(f"{where}: the cell “student” is empty")
    numbers: dict[str, float | None] = {}
    for field in _NUMBERS:
        text = cells.pop(field, "")
        try:
            value = float(text.replace(",", ".")) if text else None
        except ValueError:
            value = math.nan
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{where}: {field} is {text!r}, which is no number from 0 on")
        numbers[field] = value
    texts = {field: unicodedata.normalize("NFC", text) for field, text in cells.items()}
    texts["lms_id"] = texts.get("lms_id", "").removeprefix("Participant ")
    return Learner(**texts, **numbers)  # type: ignore[arg-type]


def enrolled(handed: Iterable[Handed], roster: dict[str, Learner]) -> list[Handed]:
    """The submissions under the names of the roster; a team's once for each member.

    A submission whose learner is not found, or not without doubt, keeps the name that it came with.
    """
    found = []
    for one in handed:
        learners = _find(one, list(roster.values()))
        found += [replace(one, student=learner.student, handed_as=one.student) for learner in learners] or [
            one
        ]
    return found


def _find(one: Handed, roster: list[Learner]) -> list[Learner]:
    """The learners whose submission it is: by the surest mark that any of them has."""
    own = _plain(one.student)
    ilias = own.split("_")[2:-1]  # Lastname_Firstname_login_number
    name = _letters(one.student.removesuffix(f"_{one.lms_id}") if one.lms_id else one.student)
    marks = (
        [row for row in roster if _plain(row.student) == own],
        [row for row in roster if one.lms_id and row.lms_id == one.lms_id],
        [row for row in roster if own in (_plain(row.login), _plain(row.email))],
        [row for row in roster if row.login and _plain(row.login) == "_".join(ilias)],
        [row for row in roster if row.name and name in _orders(row.name)],
    )
    for learners in marks:
        if learners:
            return learners if len(learners) == 1 else []
    team = one.student.rpartition("_")[0] if one.student.rpartition("_")[2].isdigit() else one.student
    return [row for row in roster if row.team and _plain(row.team) in (_plain(team), own)]


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold().strip()


def _letters(text: str) -> str:
    """Letters and digits only: Canvas writes the name as one word."""
    return "".join(char for char in _plain(text) if char.isalnum())


def _orders(name: str) -> set[str]:
    """A name as one word, with the first and with the last name in front."""
    words = name.replace(",", " ").split()
    return {_letters("".join(words[at:] + words[:at])) for at in range(len(words))}
