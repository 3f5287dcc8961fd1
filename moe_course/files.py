"""Writing a file in one step: after a crash or a full disk it is whole, the old one or the new one.

The new content goes into a file of another name in the same folder and is forced to the disk; only then does that
file take the place of the old one. Every module of the course that replaces a file does it with these functions.
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_ENDING = ".new"


def write(path: Path, content: str | bytes, *, private: bool = False) -> None:
    """Replace the file at `path` by `content`, text as UTF-8. Arguments and errors as those of `writing`."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    with writing(path, private=private) as file:
        file.write(data)


@contextlib.contextmanager
def writing(path: Path, *, private: bool = False, keep: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write to in pieces. It takes the place of `path` when the block ends without an error.

    private: only the owner may read the new file; otherwise it has the permissions of the file that it replaces.
    keep: where the file that is replaced is kept. Between the two renames there is no file at `path`, so whoever
    reads `path` must then read `keep` instead.
    Raises OSError with the name `path` where the disk does not take it; `path` is then what it was. The folder must
    exist.
    """
    beside = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}{_ENDING}")
    try:
        with naming(path):
            beside.touch(mode=0o600 if private else 0o666, exist_ok=False)
            with beside.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if not private:
                with contextlib.suppress(OSError):  # there is no old file, or it is another user's
                    os.chmod(beside, stat.S_IMODE(path.stat().st_mode))
            if keep is not None and path.exists():
                os.replace(path, keep)
            os.replace(beside, path)
            _force_names_to_disk(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def leftovers(path: Path) -> list[Path]:
    """The files that processes left behind when they were killed while they replaced `path`; they may be whole."""
    return list(path.parent.glob(f".{glob.escape(path.name[:40])}.*{_ENDING}"))


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError of the block names `path`: a full disk is noticed at a write, which knows no name."""
    try:
        yield
    except OSError as error:
        raise _about(path, error) from error


def _about(path: Path, error: OSError) -> OSError:
    """The same error, of the same class, about `path`: nobody knows the other file's name."""
    if error.errno is None:
        return error
    return OSError(error.errno, error.strerror or os.strerror(error.errno), str(path))


def _force_names_to_disk(folder: Path) -> None:
    """A rename is on the disk once its folder is. Not every system can do this to a folder."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
