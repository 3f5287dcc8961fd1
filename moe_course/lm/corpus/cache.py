"""A folder in which built files are kept between runs, each with its own SHA-256 in its first line."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path

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
    lock = FileLock(path.with_name(f"{name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        warnings.warn(f"{path.parent} cannot be used as a cache: {error}", stacklevel=2)
        return build()
    try:
        kept = _read(path)
        return _build_and_keep(path, build) if kept is None else kept
    finally:
        lock.release()


def _build_and_keep(path: Path, build: Callable[[], bytes]) -> bytes:
    if path.exists():
        warnings.warn(f"{path} is damaged; it is built anew", stacklevel=4)
    content = build()
    try:
        _write(path, content)
    except OSError as error:
        warnings.warn(f"{path} could not be kept: {error}", stacklevel=4)
    return content


def _read(path: Path) -> bytes | None:
    """What `_write` wrote; None if there is no file, or if its SHA-256 is not the one in its first line."""
    try:
        digest, _, content = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest().encode() == digest else None


def _write(path: Path, content: bytes) -> None:
    files.write(path, hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
