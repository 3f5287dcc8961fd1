"""What a new version of the course brings a class that is under way: the lines of CHANGELOG.md that learners read.

A line for learners is an entry that begins with "Learners: ".
"""

from __future__ import annotations

import re
from itertools import takewhile

from moe_course.grading.exercises.locate import changelog

UNRECORDED = "0.1.0"  # the version of work folders in which no version is written down
_VERSION = re.compile(r"^## \[(\d[^\]]*)\]", re.MULTILINE)
_FOR_LEARNERS = re.compile(r"^- Learners: (.*(?:\n {2}.*)*)", re.MULTILINE)


def versions() -> dict[str, str]:
    """The versions in the changelog, newest first, each with its text."""
    _, *parts = _VERSION.split(changelog().read_text(encoding="utf-8"))
    return dict(zip(parts[::2], parts[1::2], strict=True))


def newest() -> str:
    """The version of this course."""
    return next(iter(versions()))


def since(version: str) -> list[str]:
    """What is new for learners after `version`, newest first. Of a version that is unknown here, nothing is told."""
    known = versions()
    if version not in known:
        return []
    later = takewhile(lambda name: name != version, known)
    entries = [entry for name in later for entry in _FOR_LEARNERS.findall(known[name])]
    return [re.sub(r"\s*\n\s*", " ", entry) for entry in entries]
