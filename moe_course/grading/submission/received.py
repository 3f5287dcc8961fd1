"""The files of a folder or a zip that was handed in, each read where it lies: nothing is ever unpacked.

A file that cannot be taken has a `problem`, and so has a folder that is empty or cannot be read.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

SUFFIXES = (".ipynb", ".py")  # of a submission
MAX_BYTES = 100 << 20  # of one submission; a notebook of the course with all its figures has 2 MB
MAX_RATIO = 200  # decompressed over compressed; JSON reaches about 20
MAX_MEMBERS = 20_000
NOTHING = "nothing was handed in"


class Refused(ValueError):
    """A file that is not read; the message says why and what a person can do."""


@dataclass(frozen=True)
class ReceivedFile:
    """A file of what was handed in.

    path: relative to what was handed in, composed (NFC), so that one name is written in one way; fetch: reads the
    file, raises Refused; problem: why it cannot be read.
    """

    path: PurePosixPath
    fetch: Callable[[], bytes] | None
    problem: str = ""

    @property
    def answers(self) -> bool:
        """Whether its name is that of a notebook or of a script."""
        return self.path.suffix.lower() in SUFFIXES


def received(submitted: Path) -> list[ReceivedFile]:
    """Every file of a folder or a zip. Raises ValueError where there is neither, or where it cannot be read."""
    if submitted.is_dir():
        return list(_in_folder(submitted))
    if submitted.is_file():
        return list(_in_zip(submitted))
    raise ValueError(f"{submitted}: no such folder or zip of submissions")


def readable(name: str) -> str:
    """A file name as text: bytes that are no UTF-8 and control characters are replaced."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _composed(*parts: str) -> PurePosixPath:
    return PurePosixPath(*(unicodedata.normalize("NFC", part) for part in parts))


def _in_folder(root: Path) -> Iterator[ReceivedFile]:
    """The files of a folder. Links are not followed, wherever they point."""
    unreadable: list[OSError] = []
    for folder, folders, names in os.walk(root, onerror=unreadable.append):
        here = Path(folder)
        inside = _composed(*here.relative_to(root).parts)
        for name in folders + names:
            path = inside / _composed(name)
            if (here / name).is_symlink():
                yield ReceivedFile(path, None, "is a symbolic link: hand in the file itself")
            elif name in names:
                yield ReceivedFile(path, partial(_read_file, here / name))
        if not folders and not names and here != root:
            yield ReceivedFile(inside / "(empty folder)", None, NOTHING)
    for error in unreadable:
        place = Path(os.fsdecode(error.filename))
        if place == root:
            raise ValueError(f"{root}: the folder cannot be read ({error.strerror})")
        where = _composed(*place.relative_to(root).parts) / "(folder)"
        yield ReceivedFile(
            where, None, f"cannot be read ({error.strerror}): give yourself the right to, then --resume"
        )


def _read_file(path: Path) -> bytes:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with open(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Refused("is not an ordinary file")
            return _bounded(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise Refused(f"cannot be read ({error.strerror})") from None


def _in_zip(archive: Path) -> Iterator[ReceivedFile]:
    """The members of a zip. A folder without files is told, since it may be a learner's."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{archive}: neither a folder nor a zip ({error})") from None
    if len(members) > MAX_MEMBERS:
        raise ValueError(f"{archive}: has {len(members)} files, more than {MAX_MEMBERS}; is this a cohort?")
    paths = [PurePosixPath(_name(member).replace("\\", "/")) for member in members]
    holding = {parent for path in paths for parent in path.parents}
    for member, path in zip(members, paths, strict=True):
        safe = _composed(*([part for part in path.parts if part not in ("/", "..")] or ["(no name)"]))
        if member.is_dir():
            if path not in holding:
                yield ReceivedFile(safe / "(empty folder)", None, NOTHING)
        elif problem := _suspicious(member, path):
            yield ReceivedFile(safe, None, problem)
        else:
            yield ReceivedFile(safe, partial(_read_member, archive, member))


def _name(member: zipfile.ZipInfo) -> str:
    """A member's name. Some programs write UTF-8 and do not say so; `zipfile` then reads it as code page 437."""
    if not member.flag_bits & 0x800:
        with contextlib.suppress(UnicodeError):
            return member.filename.encode("cp437").decode("utf-8")
    return member.filename


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
