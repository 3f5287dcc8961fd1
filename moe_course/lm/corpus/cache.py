"""A folder in which built files are kept between runs, each with its own SHA-256 in its first line.

`cached` is for what fits into memory; `mapped` writes and reads an array piece by piece.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import platformdirs
from filelock import FileLock

from moe_course import files


def cache_folder() -> Path:
    """The folder named by the environment variable MOE_COURSE_CACHE, else the user's cache folder."""
    named = os.environ.get("MOE_COURSE_CACHE")
    return Path(named).expanduser() if named else platformdirs.user_cache_path("moe-course", appauthor=False)


def cached(name: str, build: Callable[[], bytes]) -> bytes:
    """The bytes that are kept under `name`. If there are none, or they are damaged, they are built and kept.

    If two processes ask at the same time, one builds, and the other waits and then reads. Nobody ever reads half a
    file. If nothing can be written (a read-only home, a full disk), the bytes are built and returned all the same,
    with a warning.
    """
    path = cache_folder() / name
    kept = _read(path)
    if kept is not None:
        return kept
    with _turn(path) as usable:
        kept = _read(path) if usable else None
        if kept is not None:
            return kept
        content = build()
        if usable:
            with _warning(path):
                _write(path, content)
        return content


def mapped(name: str, build: Callable[[], Iterable[bytes]]) -> np.ndarray:
    """The bytes that are kept under `name`, as an array uint8 that lies on the disk and is read where it is used.

    They are built in pieces, which are never together in memory. Otherwise as `cached`; if the folder cannot be
    used, the array lies in a temporary file.
    """
    path = cache_folder() / name
    kept = _map(path)
    if kept is not None:
        return kept
    with _turn(path) as usable:
        kept = _map(path) if usable else None
        if kept is None and usable:
            with _warning(path), files.writing(path) as file:
                _fill(file, build())
            kept = _map(path)
        if kept is not None:
            return kept
    with files.naming(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as file:
        _fill(file, build())
        file.flush()
        return np.memmap(file, np.uint8, mode="c", offset=_HEAD)


@contextmanager
def _turn(path: Path) -> Iterator[bool]:
    """Wait until no other process builds `path`. Yields whether the folder can be used."""
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        warnings.warn(f"{path.parent} cannot be used as a cache: {error}", stacklevel=4)
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextmanager
def _warning(path: Path) -> Iterator[None]:
    """Warn that an old file is damaged. Warn, too, where the disk does not take the new one."""
    if path.exists():
        warnings.warn(f"{path} is damaged; it is built anew", stacklevel=4)
    try:
        yield
    except OSError as error:
        warnings.warn(f"{path} could not be kept: {error}", stacklevel=4)


_HEAD = 128
"""The first line of a mapped file, filled up with blanks: what follows is aligned for every number."""


def _fill(file: BinaryIO, pieces: Iterable[bytes]) -> None:
    digest = hashlib.sha256()
    file.write(bytes(_HEAD))
    for piece in pieces:
        digest.update(piece)
        file.write(piece)
    file.seek(0)
    file.write(_head(digest.hexdigest()))


def _head(digest: str) -> bytes:
    return digest.encode().ljust(_HEAD - 1) + b"\n"


def _map(path: Path) -> np.ndarray | None:
    """What `_fill` wrote; None if there is no file, or if it is damaged. It can be changed; the file stays."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            if head != _head(hashlib.file_digest(file, "sha256").hexdigest()):
                return None
            return np.memmap(file, np.uint8, mode="c", offset=_HEAD)
    except OSError:
        return None


def _read(path: Path) -> bytes | None:
    """What `_write` wrote; None if there is no file, or if its SHA-256 is not the one in its first line."""
    try:
        digest, _, content = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest().encode() == digest else None


def _write(path: Path, content: bytes) -> None:
    files.write(path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
