"""Plans of a course: which notebooks in which week, how many hours that is, and nbgrader's due dates.

A plan lists its units (weeks or days), and a unit its parts: a notebook ("03_dispatch"), or those of its sections
with certain numbers ("04_load_balancing 0-3", "11_clinic 1-4"; a clinic's sections are its cases).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from moe_course.authoring.times import Section, sections
from moe_course.grading.exercises.registry import exercises_of
from moe_course.tables import markdown_table


@dataclass(frozen=True)
class Plan:
    """The units of a plan, how many days one lasts, and what one is called. Work is due when its last unit ends."""

    unit: str  # "week"
    days: int
    units: tuple[tuple[str, ...], ...]


PLANS = {
    "five-days": Plan(
        "day",
        1,
        (
            ("00_start_here", "01_dense_ffn", "02_topk_routing"),
            ("03_dispatch", "04_load_balancing"),
            ("05_capacity", "06_modern_moe"),
            ("07_moe_language_model", "10_serving"),
            ("11_clinic",),
        ),
    ),
    "six-weeks": Plan(
        "week",
        7,
        (
            ("00_start_here", "01_dense_ffn", "02_topk_routing"),
            ("03_dispatch", "04_load_balancing"),
            ("05_capacity", "06_modern_moe"),
            ("07_moe_language_model", "08_specialization"),
            ("09_expert_parallelism", "10_serving"),
            ("11_clinic",),
        ),
    ),
    "semester": Plan(
        "week",
        7,
        (
            ("00_start_here", "01_dense_ffn"),
            ("02_topk_routing",),
            ("03_dispatch",),
            ("04_load_balancing 0-3",),
            ("04_load_balancing 4-8",),
            ("05_capacity",),
            ("06_modern_moe",),
            ("07_moe_language_model 0-5",),
            ("07_moe_language_model 6-8",),
            ("08_specialization",),
            ("09_expert_parallelism",),
            ("10_serving",),
            ("11_clinic 1-4",),
            ("11_clinic 5-9",),
        ),
    ),
}


def dates(plan: str, start: str) -> Iterator[str]:
    """The lines of a shell script that gives nbgrader each notebook's due date; comments say what to release when.

    A notebook is due in the last minute (UTC) of the unit in which it ends. Notebooks without points have no due
    date. Raises ValueError for a plan that there is not, and for a start that is no date.
    """
    if plan not in PLANS:
        raise ValueError(f"there is no plan {plan!r}; the plans are {', '.join(PLANS)}")
    try:
        first = date.fromisoformat(start)
    except ValueError:
        raise ValueError(f"{start!r} is no date; write it as 2027-01-11") from None
    chosen = PLANS[plan]
    names = [[part.split()[0] for part in unit] for unit in chosen.units]
    for number, unit in enumerate(names):
        begins = first + timedelta(days=chosen.days * number)
        ends = begins + timedelta(days=chosen.days - 1)
        if new := [name for name in unit if all(name not in before for before in names[:number])]:
            yield f"# {chosen.unit} {number + 1}: release {', '.join(new)} on {begins}"
        for name in unit:
            graded = any(exercise.graded for exercise in exercises_of(name))
            if graded and all(name not in later for later in names[number + 1 :]):
                yield f'nbgrader db assignment add {name} --duedate="{ends} 23:59:00 UTC"'


def table(root: Path, plan: str) -> str:
    """A plan in Markdown: its units, their notebooks, exercises and hours."""
    chosen, rows, total = PLANS[plan], [], 0
    for number, unit in enumerate(chosen.units, 1):
        found = [section for part in unit for section in sections_of(root, part)]
        minutes = sum(section.minutes for section in found)
        exercises = [exercise for section in found for exercise in section.exercises]
        rows.append((f"{number}", "; ".join(map(_said, unit)), _span(exercises), f"{minutes / 60:.1f}"))
        total += minutes
    rows.append(("", "all", "", f"{total / 60:.1f}"))
    return markdown_table((chosen.unit.capitalize(), "Notebooks", "Exercises", "Hours"), rows, left=(0, 1, 2))


def sections_of(root: Path, part: str) -> list[Section]:
    """The sections of a notebook that a part of a plan names. Raises ValueError when there are none."""
    import nbformat

    name, _, numbers = part.partition(" ")
    notebook = nbformat.read(root / "solutions" / name / f"{name}.ipynb", as_version=4)
    first, _, last = numbers.partition("-")
    found = [
        section
        for section in sections(notebook)
        if not numbers or int(first) <= section.number <= int(last or first)
    ]
    if not found:
        raise ValueError(f"{name} has no sections {numbers}")
    return found


def _said(part: str) -> str:
    name, _, numbers = part.partition(" ")
    link, what = f"[{name[:2]}]({name}.md)", "cases" if name == "11_clinic" else "sections"
    return f"{link}, {what} {numbers.replace('-', ' to ')}" if numbers else link


def _span(numbers: list[str]) -> str:
    """“1.1 to 1.6, 2.1 to 2.7” for the numbers of exercises, which are consecutive within a notebook."""
    by_notebook: dict[str, list[str]] = {}
    for number in numbers:
        by_notebook.setdefault(number.split(".")[0], []).append(number)
    return ", ".join(
        f"{found[0]} to {found[-1]}" if len(found) > 1 else found[0] for found in by_notebook.values()
    )
