"""tests/misconceptions/ -> tests/graders/recorded/: what each misconception replies to its exercise's probes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from moe_course import files
from moe_course.grading.exercises.registry import NOTEBOOKS
from moe_course.grading.judge.catalogue import record, same_recording


def update(root: Path, check: bool = False, say: Callable[[str], None] = print) -> bool:
    """Bring the recordings up to date; with `check`, only say what is stale. Returns whether they are.

    Exercises whose files are as they were when they were recorded are not run again.
    """
    fresh = True
    for notebook in NOTEBOOKS:
        path = root / "tests" / "graders" / "recorded" / f"{notebook}.json"
        known = path.read_text(encoding="utf-8") if path.is_file() else "{}"
        text = record(root / "tests" / "misconceptions", notebook, _readable(known), with_criteria=not check)
        if known == text or (check and same_recording(known, text)):
            continue
        fresh = False
        say(f"{path.relative_to(root).as_posix()}: {'stale' if check else 'updated'}")
        if not check:
            path.parent.mkdir(exist_ok=True)
            files.write(path, text)
    return fresh or not check


def _readable(text: str) -> str:
    """The text, if it is JSON: a file with the marks of a merge conflict is recorded anew."""
    try:
        json.loads(text)
    except ValueError:
        return "{}"
    return text
