"""The times that a notebook states: that of the whole in its title, and that of each exercise in its header."""

from __future__ import annotations

import re

_WHOLE = re.compile(r"^\| Time \| about ([\d½]+) (hour|minute)", re.MULTILINE)
_EXERCISE = re.compile(r"^### (?:Exercise|Warm-up) ([\d.]+) .*?(\d+) minutes", re.MULTILINE)


def minutes(text: str) -> int:
    """The minutes that a notebook takes, as the title in its text says; 0 where it says nothing."""
    said = _WHOLE.search(text)
    if said is None:
        return 0
    return int(said[1]) if said[2] == "minute" else int(60 * hours(said[1]))


def exercise_minutes(text: str) -> dict[str, int]:
    """The minutes of each exercise in the text of a notebook, by its number."""
    return {number: int(taken) for number, taken in _EXERCISE.findall(text)}


def hours(text: str) -> float:
    """The number that “2”, “2½” or “½” stands for."""
    return float(text.replace("½", "") or 0) + 0.5 * text.endswith("½")
