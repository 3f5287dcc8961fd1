"""Whose a file is, told by the names that nbgrader and learning platforms give to folders and files.

    ada/02_topk_routing/hw.ipynb                        nbgrader: learner/assignment/file
    ada/hw.ipynb, Doe_Jane_jdoe_4711/hw.ipynb           a folder a learner; ILIAS names its folders like the second
    Ada Lovelace_417_assignsubmission_file_/hw.ipynb    Moodle: name_participant_assignsubmission_kind
    Ada Lovelace_417_assignsubmission_file_hw.ipynb     Moodle, downloaded without folders
    lovelaceada_LATE_417_9921_hw-1.ipynb                Canvas: name_user_attachment_file
    assignment_12_export/submission_345/hw.ipynb        Gradescope; submission_metadata.yml says whose 345 is
    ada.ipynb                                           a flat folder: the file is called after the learner

Everything may lie in one more folder around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moe_course.grading.exercises.registry import NOTEBOOKS
from moe_course.grading.submission.received import ReceivedFile

METADATA = "submission_metadata.yml"  # of a Gradescope export

_MOODLE = re.compile(
    r"(?P<name>.+?)(?:_(?P<id>\d+))?_assignsubmission_(?P<kind>[a-z]+)(?:_(?P<file>.*))?$", re.DOTALL
)
_CANVAS = re.compile(
    r"(?P<name>[^_]+)_(?:late_)?(?P<id>\d+)_(?P<nth>\d+)_(?P<file>.+)$", re.IGNORECASE | re.DOTALL
)
_ILIAS = re.compile(r"[^_]+_[^_]+_.+_\d+$")
_GRADESCOPE = re.compile(r"submission_\d+$")
_TEAM = re.compile(
    r"\b(team|group|default group|gruppe|groupe|équipe|equipo|grupo|gruppo|squadra)\b", re.IGNORECASE
)
_WRAPPERS = re.compile(
    r"(submitted|submissions?|downloads?|multi_feedback_.+|assignment_\d+_export|homeworks?)$", re.IGNORECASE
)


@dataclass(frozen=True)
class Owner:
    """Whose a file is.

    student: the name under which the learner is graded; lms_id: their number on the platform, "" where the name tells
    none; inside: the file's path without what the platform put before it; nth: Canvas's number of the attachment;
    folder: the name of the learner's folder; team: whether it is a team's, whose number is no learner's.
    """

    student: str
    lms_id: str
    inside: tuple[str, ...]
    nth: int = 0
    folder: str = ""
    team: bool = False


def owner(parts: Sequence[str]) -> Owner:
    """Whose the file at this path is. A name of its own is the learner's where no platform is recognised."""
    first, rest = parts[0], tuple(parts[1:])
    if match := _MOODLE.match(first):
        name, number = match["name"], match["id"] or ""
        # A team's folder has the team's name and the team's number, or the default name and none.
        team = not number or bool(_TEAM.search(name))
        student = f"{name}_{number}" if number else name
        inside = rest or ((match["file"] or first),)
        return Owner(
            student, "" if team else number, inside, folder=f"{student}_assignsubmission_file_", team=team
        )
    if not rest and (match := _CANVAS.match(first)):
        return Owner(f"{match['name']}_{match['id']}", match["id"], (match["file"],), int(match["nth"]))
    return Owner(first if rest else Path(first).stem, "", rest or (first,), folder=first if rest else "")


def by_platform(name: str, is_folder: bool) -> bool:
    """Whether a learning platform gave this name to a learner's folder or file."""
    if _MOODLE.match(name):
        return True
    if is_folder:
        return bool(_ILIAS.match(name) or _GRADESCOPE.match(name))
    return bool(_CANVAS.match(name))


def without_outer_folders(files: Sequence[ReceivedFile], submitted: Path, assignment: str | None) -> int:
    """How many folders lie around all submissions: their names belong to no learner.

    Raises ValueError where it cannot be told whether the one folder that there is belongs to a learner.
    """
    depth = 0
    while _is_outer([file for file in files if len(file.path.parts) > depth], depth, submitted, assignment):
        depth += 1
    return depth


def _is_outer(files: Sequence[ReceivedFile], depth: int, submitted: Path, assignment: str | None) -> bool:
    deeper = [file for file in files if len(file.path.parts) > depth + 1]
    beside = [file for file in files if len(file.path.parts) == depth + 1 and (file.answers or file.problem)]
    tops = {file.path.parts[depth] for file in deeper}
    if len(tops) != 1 or beside:
        return False
    (top,) = tops
    direct = [file for file in deeper if len(file.path.parts) == depth + 2]
    answers = [file for file in direct if file.answers]
    folders = {file.path.parts[depth + 1] for file in deeper if len(file.path.parts) > depth + 2}
    holding = {
        file.path.parts[depth + 1] for file in deeper if len(file.path.parts) > depth + 2 and file.answers
    }
    known = {*NOTEBOOKS, *([assignment] if assignment else [])}
    if _MOODLE.match(top):
        return False
    if top in known or _WRAPPERS.match(top) or top == submitted.stem:
        return not (folders & known and top not in known)
    platform = [by_platform(name, True) for name in folders]
    if any(platform) or any(by_platform(file.path.name, False) for file in direct):
        return True
    if _GRADESCOPE.match(top) or folders & known or any(file.path.stem in known for file in answers):
        return False  # a learner's: ada/02_topk_routing/hw.ipynb or ada/02_topk_routing.ipynb
    if len(holding) > 1 and not answers:
        return True
    if not holding or _ILIAS.match(top):
        return not by_platform(top, True) and _flat(direct, answers, submitted, top)
    deep = {file.path.parts[depth + 2] for file in deeper if len(file.path.parts) > depth + 3}
    if not answers and (deep & known or _is_outer(deeper, depth + 1, submitted, assignment)):
        return True
    inside = ", ".join(sorted(holding))
    raise ValueError(
        f"{submitted}: is {top!r} a learner, or the folder around the learners' folders ({inside})? "
        f"Hand over what is inside {top!r}, or say which assignment it is with --assignment"
    )


def _flat(direct: Sequence[ReceivedFile], answers: Sequence[ReceivedFile], submitted: Path, top: str) -> bool:
    """Whether the files in the only folder are those of several learners. In a zip, one file does not tell."""
    if submitted.is_dir() or not answers:
        return False
    if len(answers) > 1 and all(file.path.suffix == ".ipynb" for file in direct):
        return True
    names = ", ".join(sorted(file.path.name for file in direct))
    raise ValueError(
        f"{submitted}: is {top!r} a learner, or are the files in it called after learners ({names})? "
        f"Zip the files without the folder, or put each learner's into a folder of their name"
    )


def submitters(text: str) -> dict[str, list[tuple[str, str]]]:
    """Gradescope's submission_metadata.yml: folder → (name, student id or e-mail address) of each who submitted it.

    Only these lines of the file are read; it also holds all results.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    folder, inside = "", False
    for line in text.splitlines():
        if match := re.match(r"(submission_\d+):\s*$", line):
            folder, inside = match[1], False
        elif inside and folder and (match := re.match(r"\s+(-?)\s*:(name|sid|email):\s*(.*?)\s*$", line)):
            people = found.setdefault(folder, [])
            if match[1]:
                people.append(("", ""))
            if people:
                name, number = people[-1]
                value = match[3].strip("'\"")
                value = "" if value in ("null", "~") else value
                people[-1] = (
                    (value, number) if match[2] == "name" else (name, _first(match[2], number, value))
                )
        elif match := re.match(r"\s+:(\w+):\s*$", line):
            inside = match[1] == "submitters"
        elif not line.startswith(" "):
            inside = False
    return found


def _first(field: str, number: str, value: str) -> str:
    """The student id where there is one, else the e-mail address."""
    return (value or number) if field == "sid" else (number or value)


def assignments(inside: Iterable[tuple[str, ReceivedFile, tuple[str, ...]]], named: str | None) -> set[str]:
    """The folders of learners that are assignments, not of a learner's own making.

    inside: learner, file and its path in the learner's folder. A folder is an assignment if it is called like a
    notebook of the course or like `named`, or if several learners have it and files to grade in it.
    """
    holders: dict[str, set[str]] = {}
    loose: set[str] = set()
    for student, file, path in inside:
        if len(path) > 1 and (file.answers or file.problem):
            holders.setdefault(path[0], set()).add(student)
        elif file.answers:
            loose.add(student)
    known = {*NOTEBOOKS, *([named] if named else [])}
    return known | {name for name, who in holders.items() if len(who - loose) > 1}
