"""How far a learner is: `moe-course progress` for a terminal, and the panel of notebook 00.

What has passed is what `moe-course status` says. The time that is left follows from the times that notebooks state: a
notebook's time is shared out over its exercises by their minutes.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moe_course.grading.exercises import stated
from moe_course.grading.exercises.registry import NOTEBOOKS, Exercise, label
from moe_course.grading.submission.attempts import cell_source
from moe_course.lesson import home, workspace

if TYPE_CHECKING:
    from moe_course.grading.cohort.certificate import Certificate

BAR = 20  # characters


@dataclass(frozen=True)
class Standing:
    """One notebook: which of its exercises have passed, and how many of its minutes are left."""

    notebook: str
    exercises: int
    passed: tuple[Exercise, ...]
    minutes: int
    left: int


def standings(work: Path) -> list[Standing]:
    """How far the learner is in each notebook of the work folder. Raises ValueError where there is none."""
    workspace.demand_notebooks(work)
    return [_standing(notebook, work) for notebook in NOTEBOOKS]


def _standing(notebook: str, work: Path) -> Standing:
    states = workspace.states(notebook, work)
    passed = tuple(exercise for exercise, state, _ in states if state == "passed")
    text = _text(work / home.STATE / "base" / f"{notebook}.ipynb")
    taken = stated.exercise_minutes(text)
    open_minutes = sum(taken.values()) - sum(taken.get(exercise.number, 0) for exercise in passed)
    whole = stated.minutes(text)
    left = round(whole * open_minutes / sum(taken.values())) if taken else whole
    return Standing(notebook, len(states), passed, whole, left)


def certificate(name: str, work: Path) -> Certificate:
    """What the learner has passed, by their own self-checks. Raises ValueError if that is nothing."""
    from moe_course.grading.cohort.certificate import Certificate, Part

    parts = tuple(
        Part(one.notebook, tuple(exercise.name for exercise in one.passed), one.exercises)
        for one in standings(work)
        if one.passed
    )
    if not parts:
        raise ValueError(f"no exercise has passed yet in {work}")
    return Certificate(name, parts)


def as_text(work: Path) -> str:
    """A bar for each notebook, the hours left, and the next exercise, for a terminal."""
    found = standings(work)
    lines = []
    for one in found:
        filled = BAR * len(one.passed) // max(one.exercises, 1)
        row = f"{one.notebook:<24}{'█' * filled}{'·' * (BAR - filled)}  {len(one.passed):>2} of {one.exercises:<3}"
        lines.append(f"{row}{_time_left(one)}".rstrip())
    return "\n".join([*lines, "", *_summary(found, work)])


def as_html(work: Path) -> str:
    """The same as a table."""
    found = standings(work)
    rows = "".join(
        f'<tr style="background:none"><td style="text-align:left">{one.notebook}</td>'
        f'<td><progress aria-label="{one.notebook}" value="{len(one.passed)}" max="{one.exercises}"></progress></td>'
        f"<td>{len(one.passed)} of {one.exercises}</td><td>{_time_left(one)}</td></tr>"
        for one in found
    )
    said = "".join(f"<p>{html.escape(line)}</p>" for line in _summary(found, work))
    return f"<table><caption><b>Your progress</b></caption>{rows}</table>{said}"


def show() -> None:
    """Show the progress of the work folder that this notebook is in."""
    from moe_course.viz.style import publish

    state = home.state_dir()
    if state is None:
        text = f"No progress to show: {home.OUTSIDE}."
        publish(f"<p>{html.escape(text)}</p>", text)
        return
    publish(as_html(state.parent), as_text(state.parent))


def _summary(found: Sequence[Standing], work: Path) -> list[str]:
    passed, exercises = sum(len(one.passed) for one in found), sum(one.exercises for one in found)
    left, whole = (sum(getattr(one, which) for one in found) / 60 for which in ("left", "minutes"))
    following = workspace.next_open(work)
    return [
        f"{passed} of {exercises} exercises passed; about {left:.0f} of {whole:.0f} hours left, "
        "by the times that the notebooks state.",
        f"Next: {label(following.name)} in {following.notebook}" if following else "Everything is passed.",
    ]


def _time_left(one: Standing) -> str:
    if not one.left:
        return ""
    return f"{one.left} min left" if one.left < 60 else f"{one.left / 60:.1f} h left"


def _text(base: Path) -> str:
    """The text cells of a notebook as it was handed out; empty where it cannot be read."""
    cells = home.read_json(base).get("cells", [])
    return "\n\n".join(cell_source(cell) for cell in cells if cell.get("cell_type") == "markdown")
