"""What learners get back: a page for each, and a zip for Moodle's upload of feedback files.

    DIR/ASSIGNMENT/LEARNER.html             to send, or to put where the learner finds it
    DIR/moodle-feedback-ASSIGNMENT.zip      the same pages in the folders that Moodle's download had

A page tells what a learner may know: nothing of what hidden criteria tried. It runs nothing and loads nothing.
"""

from __future__ import annotations

import functools
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_course import files
from moe_course.grading.cohort.late import Late
from moe_course.grading.cohort.ledger import Record, write
from moe_course.grading.exercises.registry import label
from moe_course.grading.judge import templates
from moe_course.grading.judge.diagnosis import Diagnosis
from moe_course.grading.judge.rendering import mistake_told

if TYPE_CHECKING:
    from jinja2 import Template

_MOODLE = re.compile(r".+_assignsubmission_file_?$", re.DOTALL)


def write_feedback(folder: Path, records: Sequence[Record], late: dict[tuple[str, str], Late]) -> list[Path]:
    """Write the pages and zips into `folder`; returns their paths. Other files in it stay as they are."""
    written: dict[str, dict[str, Record]] = {}
    for record in records:
        pages = written.setdefault(_safe(record["assignment"] or "unknown"), {})
        pages[_free(_safe(record["student"]), pages)] = record
    paths = []
    for assignment, pages in written.items():
        (folder / assignment).mkdir(parents=True, exist_ok=True)
        texts = {
            name: page(record, late.get((record["student"], record["assignment"])))
            for name, record in pages.items()
        }
        for name, text in texts.items():
            paths.append(folder / assignment / f"{name}.html")
            write(paths[-1], text)
        uploads = {
            record["folder"]: texts[name]
            for name, record in pages.items()
            if _MOODLE.match(record.get("folder", ""))
        }
        if uploads:
            paths.append(folder / f"moodle-feedback-{assignment}.zip")
            _zip(paths[-1], uploads)
    return paths


def page(record: Record, late: Late | None) -> str:
    """One learner's page about one assignment."""
    verdicts = [{**verdict, **verdict.get("feedback", _UNTOLD)} for verdict in record["verdicts"]]
    return _template().render(r=record, verdicts=verdicts, late=late)


_UNTOLD: Record = {
    "reason": "",
    "checks": [],
    "diagnosis": None,
}  # a record of an older version does not say what may be told


def _zip(path: Path, pages: dict[str, str]) -> None:
    """Moodle finds the learner by the name of the folder."""
    with (
        files.writing(path, private=True) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, text in pages.items():
            archive.writestr(f"{name}/feedback.html", text)


def _safe(name: str) -> str:
    """A name that every file system takes."""
    return re.sub(r"[^\w@+. -]", "_", name).strip(". ")[:80] or "_"


def _free(name: str, taken: dict[str, Record]) -> str:
    """The name, or with a number behind it where another learner's looks the same to a file system."""
    folded = {other.casefold() for other in taken}
    names = [name, *(f"{name}~{n}" for n in range(2, len(taken) + 3))]
    return next(free for free in names if free.casefold() not in folded)


def _told(found: dict[str, Any]) -> tuple[str, str, str]:
    """A recorded diagnosis in the words of the notebook's check."""
    return mistake_told(Diagnosis(found["name"], found["question"], found.get("fit", "whole")))


@functools.cache
def _template() -> Template:
    environment = templates.environment(Path(__file__).parent)
    environment.filters |= {"number": lambda value: f"{round(value, 2):g}", "label": label}
    environment.filters["told"] = _told
    return environment.get_template("feedback.html")
