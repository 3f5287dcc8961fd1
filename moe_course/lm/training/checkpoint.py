"""Checkpoints that survive a kill at any moment, a full disk and a damaged file.

A file is what torch.save writes, followed by its SHA-256. `moe_course.files` replaces the old one in one step; if
that is whole, it is kept as the previous one. A process that is killed between writing and replacing leaves the new
checkpoint under another name: `load` finds it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
from pathlib import Path
from typing import Any

import torch

from moe_course import files

_DIGEST = hashlib.sha256().digest_size


class DamagedCheckpoint(ValueError):
    """The content of the file is not what was written."""


def previous(path: Path) -> Path:
    """Where the checkpoint before the one at `path` is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state`: tensors and plain values, in dicts, lists and tuples.

    Raises OSError where the disk does not take it; the files at `path` and `previous(path)` are then unchanged.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    left = files.leftovers(path)  # only one run writes here
    for unfinished in [file for file in left if not _whole(file)]:
        unfinished.unlink(missing_ok=True)  # a checkpoint is large, and the new one needs room
    keep = previous(path) if _whole(path) else None  # a damaged file must not take the place of a good one
    with files.writing(path, keep=keep) as file:
        file.write(buffer.getbuffer())
        file.write(hashlib.sha256(buffer.getbuffer()).digest())
    for older in left:
        older.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """The state that was saved last, on the CPU; if it is damaged or missing, the one before it, with a warning.

    Raises FileNotFoundError if there is no checkpoint, and DamagedCheckpoint if all are damaged.
    """
    for left in _unplaced(path):
        with contextlib.suppress(FileNotFoundError):  # its writer lives and has placed it now
            return _read(left)
    complaints = []
    for candidate in (path, previous(path)):
        try:
            state = _read(candidate)
        except FileNotFoundError:
            continue
        except DamagedCheckpoint as damage:
            complaints.append(str(damage))
            continue
        if complaints:
            warnings.warn(f"{complaints[0]}; using {candidate.name} instead", stacklevel=2)
        return state
    if complaints:
        raise DamagedCheckpoint("; ".join(complaints) + ": no checkpoint is left to use")
    raise FileNotFoundError(f"there is no checkpoint at {path}")


def exists(path: Path) -> bool:
    """Whether there is a checkpoint to load; it may be damaged."""
    return path.exists() or previous(path).exists() or bool(_unplaced(path))


def _read(path: Path) -> dict[str, Any]:
    return torch.load(io.BytesIO(_body(path)), map_location="cpu", weights_only=True)


def _unplaced(path: Path) -> list[Path]:
    """Whole checkpoints, newer than the one at `path`, whose writer was killed before it could put them there."""
    since = path.stat().st_mtime_ns if path.exists() else 0
    return [left for left in files.leftovers(path) if _whole(left) and left.stat().st_mtime_ns > since]


def _whole(path: Path) -> bool:
    try:
        _body(path)
    except (FileNotFoundError, DamagedCheckpoint):
        return False
    return True


def _body(path: Path) -> memoryview:
    """What torch.save wrote. Raises DamagedCheckpoint where it is something else."""
    content = path.read_bytes()
    body, digest = memoryview(content)[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        raise DamagedCheckpoint(f"{path} is damaged: its {len(content):,} bytes do not match their SHA-256")
    return body
