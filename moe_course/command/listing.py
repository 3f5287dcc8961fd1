"""What `moe-course --help` lists: the commands under the headings of those who need them, learners first."""

from __future__ import annotations

from collections.abc import Mapping

GROUPS = {
    "for learners": (
        *("lab", "start", "status", "progress", "check", "reset", "card", "certificate", "doctor"),
    ),
    "language model and systems": (
        *("params", "explain", "train", "sample", "compare", "bench"),
    ),
    "for teachers and authors": (
        *("grade", "regrade", "course", "dates", "bundle", "colab", "slides", "site"),
        *("release", "results", "test", "quality"),
    ),
}  # fmt: skip


def listing(texts: Mapping[str, str]) -> str:
    """The help of every command, by its name, a line each under its heading."""
    lines = []
    for heading, names in GROUPS.items():
        lines += ["", f"{heading}:", *(f"  {name:<12} {texts[name]}" for name in names)]
    return "\n".join(lines[1:])
