"""The folder .moe-course of a work folder, where progress, predictions and the model card are stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from moe_course import files

STATE = ".moe-course"


def state_dir() -> Path | None:
    """The folder .moe-course in this folder or the nearest one above it; None outside a work folder.

    Without such a folder (in a checkout, or while a notebook is graded) nothing is written.
    """
    here = Path.cwd()
    return next((folder / STATE for folder in (here, *here.parents) if (folder / STATE).is_dir()), None)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no file or it is damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write the object in one step: after a crash, and for every reader, it is the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
