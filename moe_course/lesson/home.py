"""The folder .moe-course of a work folder, where progress, predictions and the model card are stored."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from moe_course import files

STATE = ".moe-course"
PATIENCE = 10.0  # seconds that another kernel may take to write


OUTSIDE = "this notebook is not in a work folder. `moe-course lab` makes one, and opens it"


def state_dir(inside: Path | None = None) -> Path | None:
    """The folder .moe-course in a folder (by default this one) or the nearest one above it; None where there is none.

    Without such a folder (in a checkout, or while a notebook is graded) nothing is written.
    """
    here = Path.cwd() if inside is None else inside.resolve()
    return next((folder / STATE for folder in (here, *here.parents) if (folder / STATE).is_dir()), None)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no file or it is damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def update_json(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Write what `change` makes of the object in the file. Two kernels that do so at once lose nothing: one waits.

    A file that is damaged is kept beside the new one as *.damaged. Raises OSError where nothing can be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path):
        kept = read_json(path)
        if not kept and path.is_file() and not _is_empty(path):
            files.write(path.with_name(f"{path.name}.damaged"), path.read_bytes())
        write_json(path, change(kept))


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write the object in one step: after a crash, and for every reader, it is the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """The right to change the file, for one process at a time; on a file system without locks for everybody."""
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=PATIENCE)
    try:
        lock.acquire()
    except NotImplementedError:
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _is_empty(path: Path) -> bool:
    """Whether the file holds an object without entries."""
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")) == {})
    except (OSError, ValueError):
        return False
