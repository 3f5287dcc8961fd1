"""The instructor's page: one self-contained HTML file an assignment, drawn from the overview of its records.

Everything that a submission may have written is escaped by the template engine, and a content security policy
keeps the page from running or loading anything at all.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moe_course.grading.cohort.ledger import Record
from moe_course.grading.cohort.overview import overview
from moe_course.grading.cohort.similarity import FEW, LONG
from moe_course.grading.judge import templates

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_REASON = 600  # characters


def page(
    assignment: str,
    records: Sequence[Record],
    anonymous: bool = False,
    remarks: Sequence[tuple[str, Sequence[str]]] = (),
) -> str:
    """The page of one assignment. `records` already carry the names to show.

    remarks: what else needs a person, as the end of a sentence and the students it is about.
    """
    found = overview(assignment, records, remarks)
    return _environment().get_template("page.html").render(o=found, anonymous=anonymous, few=FEW, long=LONG)


def by_assignment(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of each page. A file of unknown assignment belongs to the only one there is, else to ""."""
    known = sorted({record["assignment"] for record in records} - {""})
    pages: dict[str, list[Record]] = {}
    for record in records:
        only = known[0] if len(known) == 1 else ""
        pages.setdefault(record["assignment"] or only, []).append(record)
    return pages


@functools.cache
def _environment() -> Environment:
    environment = templates.environment(Path(__file__).parent)
    environment.filters |= {
        "number": lambda value: f"{round(value, 1):g}",
        "seconds": lambda value: f"{value:.1f} s" if value < 100 else f"{value:.0f} s",
        "percent": lambda part, whole: f"{part / whole:.0%}" if whole else "–",
        "width": lambda part, whole: f"width:{100 * part / whole:.1f}%" if whole else "width:0",
        "short": lambda text: text if len(text) <= MAX_REASON else text[:MAX_REASON] + " …",
        "when": lambda time: time[:16].replace("T", " "),
    }
    return environment
