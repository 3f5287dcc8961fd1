"""What was handed in: whose it is and which assignment it is for, read out of a folder or a zip, nothing unpacked.

Layouts, told apart file by file:

    ada/02_topk_routing/02_topk_routing.ipynb      nbgrader: student/assignment/notebook
    Ada Lovelace_417_assignsubmission_file_/x.ipynb    Moodle's download: name_participant_assignsubmission_file
    lovelaceada_LATE_417_9921_x.ipynb              Canvas's download: name_user_submission_file
    ada.ipynb                                      a flat folder: the file is called after the student

A file that cannot be taken becomes a `Handed` with a `problem`; nobody drops out quietly.
"""

from __future__ import annotations

import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from moe_course.grading.exercises.registry import NOTEBOOKS

SUFFIXES = (".ipynb", ".py")
MAX_BYTES = 100 << 20  # of one submission; a notebook of the course with all its figures has 2 MB
MAX_RATIO = 200  # decompressed over compressed; JSON reaches about 20
MAX_MEMBERS = 20_000

_MOODLE = re.compile(r"(?P<name>.+)_(?P<id>\d+)_assignsubmission_file_?$")
_CANVAS = re.compile(r"(?P<name>[^_]+)_(?:late_)?(?P<id>\d+)_\d+_(?P<file>.+)$", re.IGNORECASE)
_SKIPPED = {"__MACOSX", "__pycache__"}


class Refused(ValueError):
    """A file that is not read; the message says why and what a person can do."""


@dataclass(frozen=True)
class Handed:
    """One student's submission of one assignment.

    assignment: "" where the layout does not tell; lms_id: the student's number in Canvas or Moodle, where the
    download names it; fetch: reads the file, raises Refused; problem: why nothing can be read.
    """

    student: str
    assignment: str
    name: str  # the file, relative to what was handed in
    lms_id: str = ""
    fetch: Callable[[], bytes] | None = None
    problem: str = ""


@dataclass(frozen=True)
class _File:
    path: PurePosixPath
    fetch: Callable[[], bytes] | None
    problem: str = ""


def submissions(submitted: Path, assignment: str | None = None) -> list[Handed]:
    """Every submission in a folder or zip, ordered by student. Raises ValueError where there is none.

    assignment: in nbgrader's layout, leave the others out; elsewhere, what every file is taken for.
    """
    if submitted.is_dir():
        files = list(_in_folder(submitted))
    elif submitted.is_file():
        files = list(_in_zip(submitted))
    else:
        raise ValueError(f"{submitted}: no such folder or zip of submissions")
    groups: dict[tuple[str, ...], list[_File]] = {}
    for file in files:
        if not any(part.startswith(".") or part in _SKIPPED for part in file.path.parts):
            groups.setdefault(_group(file.path), []).append(file)
    nested = {key[0] for key in groups if len(key) == 2 and not _MOODLE.match(key[0])}
    found = [
        _choose(key, group, assignment) for key, group in groups.items() if not _stray(key, group, nested)
    ]
    found = [handed for handed in found if assignment in (None, "", handed.assignment)]
    if not found:
        wanted = f" of {assignment}" if assignment else ""
        raise ValueError(
            f"{submitted}: holds no submission{wanted} (expected student/assignment/notebook.ipynb)"
        )
    return sorted(found, key=lambda handed: (handed.student, handed.assignment, handed.name))


def _group(path: PurePosixPath) -> tuple[str, ...]:
    """What belongs together: a folder an assignment, a folder a student, or a single file."""
    return path.parts[: min(len(path.parts) - 1, 2)] or path.parts


def _stray(key: tuple[str, ...], group: list[_File], nested: set[str]) -> bool:
    """Whether files lie beside the folders of nbgrader's layout: a roster, notes of the instructor's."""
    beside = key[0] in nested or (bool(nested) and len(group[0].path.parts) == 1)
    return beside and len(key) == 1 and not any(f.problem or f.path.suffix in SUFFIXES for f in group)


def _choose(key: tuple[str, ...], group: list[_File], assignment: str | None) -> Handed:
    """The one submission among the files of a group."""
    student, lms_id, name = key[0], "", group[0].path.name
    inside = key[1] if len(key) == 2 else ""
    if match := _MOODLE.match(key[0]):
        student, lms_id = f"{match['name']}_{match['id']}", match["id"]
        inside = ""  # folders of the student's own making
    elif len(group) == 1 and len(group[0].path.parts) == 1:
        student = group[0].path.stem
        if match := _CANVAS.match(group[0].path.name):
            student, lms_id, name = f"{match['name']}_{match['id']}", match["id"], match["file"]
    wanted = inside or assignment or next((known for known in NOTEBOOKS if known in name), "")
    file, problem = _only([file for file in group if not file.problem], wanted)
    bad = [file for file in group if file.problem]
    if file is None or (file.path.stem != wanted and any(other.path.suffix in SUFFIXES for other in bad)):
        problem = "; ".join(f"{other.path.name} {other.problem}" for other in bad) or problem
    shown = file.path if file else group[0].path
    return Handed(
        _clean(student), _clean(wanted), _clean(str(shown)), lms_id, file.fetch if file else None, problem
    )


def _only(files: list[_File], assignment: str) -> tuple[_File | None, str]:
    """The file to grade among those handed in together, or the reason why it cannot be told."""
    for suffix in SUFFIXES:
        fitting = [file for file in files if file.path.suffix == suffix]
        called = [file for file in fitting if file.path.stem == assignment]
        known = [file for file in fitting if file.path.stem in NOTEBOOKS]
        for choice in (called, fitting, known):
            if len(choice) == 1:
                return choice[0], ""
        if fitting:
            names = ", ".join(sorted(str(file.path) for file in fitting))
            return None, f"several files could be the submission ({names}): leave one"
    names = ", ".join(sorted(file.path.name for file in files)) or "nothing"
    return None, f"no notebook was handed in, only {names}: ask for the .ipynb file"


def _clean(name: str) -> str:
    """A file name as text: bytes that are no UTF-8 and control characters are replaced."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _in_folder(root: Path) -> Iterator[_File]:
    """The files of a folder. Links are not followed, wherever they point."""
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        inside = PurePosixPath(here.relative_to(root).as_posix())
        for name in folders + names:
            if (here / name).is_symlink():
                yield _File(inside / name, None, "is a symbolic link: hand in the file itself")
            elif name in names:
                yield _File(inside / name, partial(_read_file, here / name))
        if not folders and not names and here != root:
            yield _File(inside / "(empty folder)", None, "nothing was handed in")


def _read_file(path: Path) -> bytes:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with open(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Refused("is not an ordinary file")
            return _bounded(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise Refused(f"cannot be read ({error.strerror})") from None


def _in_zip(archive: Path) -> Iterator[_File]:
    """The members of a zip, each read where it lies: nothing is ever unpacked to a path that the archive names."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{archive}: neither a folder nor a zip ({error})") from None
    if len(members) > MAX_MEMBERS:
        raise ValueError(f"{archive}: has {len(members)} files, more than {MAX_MEMBERS}; is this a cohort?")
    strip = _wrapper([PurePosixPath(member.filename).parts for member in members])
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        parts = [part for part in path.parts if part not in ("/", "..")]
        safe = PurePosixPath(*(parts[strip:] or ["(no name)"]))
        if problem := _suspicious(member, path):
            yield _File(safe, None, problem)
        else:
            yield _File(safe, partial(_read_member, archive, member))


def _wrapper(paths: list[tuple[str, ...]]) -> int:
    """1 where all members lie in one folder that is neither a student's nor an assignment's, else 0."""
    if len({parts[:1] for parts in paths}) != 1 or not paths[0] or _MOODLE.match(paths[0][0]):
        return 0
    depths = {len(parts) for parts in paths if parts[-1].endswith(SUFFIXES)}
    return int(bool(depths) and (min(depths) >= 4 or depths == {2}))


def _suspicious(member: zipfile.ZipInfo, path: PurePosixPath) -> str:
    mode = member.external_attr >> 16
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", member.filename):
        return "the archive names a path outside itself: ask for the file again"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "is a symbolic link or device in the archive: hand in the file itself"
    if member.flag_bits & 1:
        return "is encrypted: hand in a file without a password"
    if member.file_size > max(MAX_RATIO * member.compress_size, 1 << 20):
        return f"unpacks to more than {MAX_RATIO} times its size (a zip bomb?): ask for the file again"
    return ""


def _read_member(archive: Path, member: zipfile.ZipInfo) -> bytes:
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(member) as file:
            return _bounded(file, member.file_size)
    except Refused:
        raise
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError) as error:
        raise Refused(f"is damaged in the archive ({error}): ask for it again") from None
    except Exception as error:  # zlib.error, lzma.LZMAError: there is no common class
        raise Refused(f"cannot be decompressed ({error}): ask for it again") from None


def _bounded(file: IO[bytes], size: int) -> bytes:
    """What a file holds, read piece by piece. One that is too large by its own account is not read at all."""
    data = bytearray()
    while size <= MAX_BYTES and (piece := file.read(1 << 20)):
        data += piece
        size = max(size, len(data))
    if size > MAX_BYTES:
        raise Refused(
            f"is larger than {MAX_BYTES >> 20} MB: clear its outputs (Kernel → Restart & Clear) first"
        )
    return bytes(data)
