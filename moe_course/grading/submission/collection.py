"""What was handed in: whose it is and which assignment it is for, read out of a folder or a zip.

`layouts` knows how nbgrader and learning platforms name things, `received` reads the files. Every learner comes out
exactly once for each assignment. Where no file can be taken for theirs, the `Handed` says why, so that nobody is
missing without a word.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from moe_course.grading.exercises.registry import NOTEBOOKS
from moe_course.grading.submission import layouts
from moe_course.grading.submission.layouts import Owner
from moe_course.grading.submission.received import (
    NOTHING,
    SUFFIXES,
    ReceivedFile,
    Refused,
    readable,
    received,
)

_TOOLS = {
    "__MACOSX",
    "__pycache__",
    ".ipynb_checkpoints",
    ".git",
    ".venv",
    ".vscode",
    ".idea",
}  # folders of programs
_ONLY_A_COPY = "holds only the copy that Jupyter makes by itself (.ipynb_checkpoints): ask for the notebook"
_TEAM = "handed in by a team, and the download does not name its members"
_LEFT_BY_TOOLS = re.compile(r"\._.*|\.DS_Store|Thumbs\.db|desktop\.ini|\.gitignore|\.lock", re.IGNORECASE)


@dataclass(frozen=True)
class Handed:
    """One learner's submission of one assignment.

    assignment: "" where the layout does not tell; name: the file, relative to what was handed in; lms_id: the
    learner's number in Canvas or Moodle, where the download names it; fetch: reads the file, raises Refused; problem:
    why nothing can be read; notes: what an instructor should know about the choice of the file; folder: the
    platform's name of the learner's folder; submitted: when, in the words of nbgrader's timestamp.txt; handed_as: the
    name that it came with, where a roster knows the learner by another.
    """

    student: str
    assignment: str
    name: str
    lms_id: str = ""
    fetch: Callable[[], bytes] | None = None
    problem: str = ""
    notes: tuple[str, ...] = ()
    folder: str = ""
    submitted: str = ""
    handed_as: str = ""


@dataclass(frozen=True)
class _Owned:
    """A file and whose it is."""

    file: ReceivedFile
    owner: Owner

    @property
    def stem(self) -> str:
        """Its name as the learner gave it: without what Canvas or a browser adds to a second copy."""
        return re.sub(r"(-\d+| ?\(\d+\))$", "", Path(self.owner.inside[-1]).stem)


def submissions(submitted: Path, assignment: str | None = None) -> list[Handed]:
    """Every submission in a folder or zip, ordered by learner.

    assignment: where learners have a folder for each assignment, the others are left out; elsewhere it is what every
    file is taken for. Raises ValueError where there is none, and where it cannot be told who the learners are.
    """
    files = _without_tools(received(submitted))
    outer = layouts.without_outer_folders(files, submitted, assignment)
    named = assignment or next((n for n in NOTEBOOKS if files and n in files[0].path.parts[:outer]), None)
    people = _gradescope(files)
    owned = [
        _Owned(file, layouts.owner(file.path.parts[outer:])) for file in files if len(file.path.parts) > outer
    ]
    chosen = [_choose(inside, group, named) for inside, group in _groups(owned, named)]
    found = [one for handed in chosen for one in _people(handed, people)]
    found = [handed for handed in found if assignment in (None, "", handed.assignment)]
    if not found:
        wanted = f" of {assignment}" if assignment else ""
        raise ValueError(
            f"{submitted}: holds no submission{wanted} (expected student/assignment/notebook.ipynb)"
        )
    return sorted(found, key=lambda handed: (handed.student, handed.assignment, handed.name))


def _without_tools(files: Sequence[ReceivedFile]) -> list[ReceivedFile]:
    """The files without those that programs left. A folder that holds only such files is told as one without a
    submission: it may be a learner's."""
    mine: list[ReceivedFile] = []
    others: dict[tuple[str, ...], str] = {}
    for file in files:
        parts = file.path.parts
        at = next(
            (n for n, part in enumerate(parts) if part in _TOOLS or _LEFT_BY_TOOLS.fullmatch(part)), None
        )
        if at is None:
            mine.append(file)
        elif at > 0 and others.get(parts[:at]) != _ONLY_A_COPY:
            others[parts[:at]] = _ONLY_A_COPY if ".ipynb_checkpoints" in parts and file.answers else NOTHING
    holding = {file.path.parts[:n] for file in mine for n in range(1, len(file.path.parts))}
    lonely = {folder: problem for folder, problem in others.items() if folder not in holding}
    return mine + [
        ReceivedFile(PurePosixPath(*folder, "(folder)"), None, lonely[folder]) for folder in lonely
    ]


def _groups(owned: Sequence[_Owned], named: str | None) -> list[tuple[str, list[_Owned]]]:
    """(assignment, files) of each learner, the assignment "" where the layout does not tell it.

    What lies beside the folders of the assignments or of the learners is nobody's submission unless it could be
    graded: a roster, say, or notes of the instructor's. Two files of a flat folder that are called after one learner
    stay apart: a person has to choose.
    """
    in_folders = [(one.owner.student, one.file, one.owner.inside) for one in owned if one.owner.folder]
    course = layouts.assignments(in_folders, named)
    groups: dict[tuple[str, str, str], list[_Owned]] = {}
    for one in owned:
        inside = one.owner.inside
        key = inside[0] if one.owner.folder and len(inside) > 1 and inside[0] in course else ""
        alone = str(one.file.path) if _flat(one) and one.file.answers else ""
        groups.setdefault((one.owner.student, key, alone), []).append(one)
    nested = {student for student, key, alone in groups if key or alone}
    folders = any(file.answers for _, file, _ in in_folders)
    return [
        (key, group)
        for (student, key, _), group in groups.items()
        if key
        or any(one.file.answers or one.file.problem not in ("", NOTHING) for one in group)
        or not (student in nested or (_flat(group[0]) and (folders or student.startswith("."))))
    ]


def _flat(one: _Owned) -> bool:
    """Whether only the file's own name says whose it is."""
    return not one.owner.folder and not one.owner.lms_id


def _choose(inside: str, group: Sequence[_Owned], named: str | None) -> Handed:
    """The one submission among the files of a learner."""
    owner = group[0].owner
    answers = [one for one in group if one.file.answers] or group
    known = [n for n in NOTEBOOKS if any(n in one.owner.inside[-1] for one in answers)]
    wanted = inside or named or (known[0] if len(known) == 1 else "")
    good = [one for one in group if not one.file.problem]
    bad = [one.file for one in group if one.file.problem and (one.file.problem != NOTHING or not good)]
    chosen, problem, notes = _only(good, wanted)
    if chosen is None or (chosen.stem != wanted and any(other.answers for other in bad)):
        problem = "; ".join(f"{other.path.name} {other.problem}" for other in bad) or problem
    elif _flat(chosen) and chosen.stem in NOTEBOOKS:
        problem = (
            "is called after a notebook, not after a learner: put it into a folder with the learner's name"
        )
    shown = chosen.file if chosen else group[0].file
    return Handed(
        readable(owner.student),
        readable(wanted),
        readable(str(shown.path)),
        owner.lms_id,
        shown.fetch if chosen and not problem else None,
        problem,
        (*notes, *([_TEAM] if owner.team else [])),
        readable(owner.folder),
        _submitted(group),
    )


def _submitted(group: Sequence[_Owned]) -> str:
    """What nbgrader's exchange noted down beside a submission, "" where there is nothing to read."""
    for one in group:
        if one.file.path.name == "timestamp.txt" and one.file.fetch is not None:
            with contextlib.suppress(Refused):
                return readable(one.file.fetch()[:100].decode("utf-8", "replace").strip())
    return ""


def _only(files: Sequence[_Owned], assignment: str) -> tuple[_Owned | None, str, tuple[str, ...]]:
    """The file to grade among those handed in together, or the reason why it cannot be told; and notes on it."""
    for suffix in SUFFIXES:
        fitting = [one for one in files if one.file.path.suffix.lower() == suffix]
        called = [one for one in fitting if one.stem == assignment]
        known = [one for one in fitting if one.stem in NOTEBOOKS]
        for choice in (called, fitting, known):
            if len(choice) == 1:
                return choice[0], "", ()
        versions = called or fitting
        if versions and len({one.stem for one in versions}) == 1 and all(one.owner.nth for one in versions):
            latest = max(versions, key=lambda one: one.owner.nth)
            note = f"{len(versions)} versions were handed in: the latest, {latest.file.path.name}, was taken"
            return latest, "", (readable(note),)
        if fitting:
            return None, _several(fitting), ()
    names = ", ".join(sorted(one.owner.inside[-1] for one in files)) or "nothing"
    return None, readable(f"no notebook was handed in, only {names}: ask for the .ipynb file"), ()


def _several(files: Sequence[_Owned]) -> str:
    names = ", ".join(sorted(str(one.file.path) for one in files))
    return readable(f"several files could be the submission ({names}): leave one")


def _gradescope(files: Iterable[ReceivedFile]) -> dict[str, list[tuple[str, str]]]:
    """Who submitted what, in an export of Gradescope's."""
    for file in files:
        if file.path.name == layouts.METADATA and file.fetch is not None:
            return layouts.submitters(file.fetch().decode("utf-8", "replace"))
    return {}


def _people(handed: Handed, people: dict[str, list[tuple[str, str]]]) -> list[Handed]:
    """A submission of Gradescope's for each learner who submitted it together; any other as it is."""
    who = [(name, number) for name, number in people.get(handed.student, []) if name or number]
    return [replace(handed, student=readable(number or name)) for name, number in who] or [handed]
