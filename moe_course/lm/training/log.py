"""A run's record: one JSON object a line, readable while the run goes on and after it was killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from moe_course import files


def append(path: Path, record: dict[str, Any]) -> None:
    """Add a line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """All records. A last line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]  # what follows the last newline is not a whole line


def cut(path: Path, step: int) -> None:
    """Forget what was logged from `step` on: a resumed run will log it again."""
    kept = [record for record in read(path) if record["step"] < step]
    files.write(path, "".join(json.dumps(record) + "\n" for record in kept))
