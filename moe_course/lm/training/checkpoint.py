"""Checkpoints that survive a kill at any moment, a full disk and a damaged file.

A file is what torch.save writes, followed by its SHA-256. `moe_course.files` replaces the old one in one
step and keeps it as the previous one.
"""

from __future__ import annotations

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
    for unfinished in files.leftovers(path):  # a checkpoint is large, and only one run writes here
        unfinished.unlink(missing_ok=True)
    with files.writing(path, keep=previous(path)) as file:
        file.write(buffer.getbuffer())
        file.write(hashlib.sha256(buffer.getbuffer()).digest())


def load(path: Path) -> dict[str, Any]:
    """The state that was saved last, on the CPU; if it is damaged or missing, the one before it, with a warning.

    Raises FileNotFoundError if there is no checkpoint, and DamagedCheckpoint if all are damaged.
    """
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
    return path.exists() or previous(path).exists()


def _read(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    body, digest = memoryview(content)[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        raise DamagedCheckpoint(f"{path} is damaged: its {len(content):,} bytes do not match their SHA-256")
    return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
