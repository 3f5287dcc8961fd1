"""What the course says of the time it takes: the same everywhere, and near an estimate."""

import re

import nbformat
import pytest
from synthetic import ROOT, code, notebook, text

from moe_course.authoring import times
from moe_course.grading.exercises.registry import NOTEBOOKS
from moe_course.grading.exercises.stated import hours


def titled(time, words=1500):
    exercise = text("ex", "### Exercise 9.1 · `f` ★☆☆ · 20 minutes\n\n" + "word " * words)
    return notebook(text("title", f"# T\n\n| | |\n|---|---|\n| Time | {time} |"), exercise, code("run"))


@pytest.mark.parametrize(
    ("time", "said"),
    [
        ("about 1 hour, 20 minutes of it for the 1 exercises", ""),
        ("about ½ hours in one sitting, 20 minutes of it for the 1 exercises", ""),
        (
            "about 1 hour, 1 exercise",
            "says no “| Time | about 2½ hours, 20 minutes of it for the 1 exercises |”",
        ),
        ("about 1 hour, 25 minutes of it for the 1 exercises", "take 20 minutes, not 25 for 1"),
        ("about 3 hours, 20 minutes of it for the 1 exercises", "says 3 hours; by its length it takes 0.7"),
    ],
)
def test_a_title_that_is_wrong_about_the_time_is_told(time, said):
    found = [problem for _, problem in times.problems(titled(time))]
    assert (said in found[0]) if said else found == []


def test_hours():
    assert [hours(number) for number in ("2", "2½", "½")] == [2, 2.5, 0.5]


def stated(name):
    """The time in the title of a notebook, as tables have it: “2½ h”."""
    title = nbformat.read(ROOT / "solutions" / name / f"{name}.ipynb", as_version=4).cells[0].source
    number, unit = re.search(r"\| Time \| (?:about )?([\d½]+) (hour|minute)", title).groups()
    return f"{number} {'h' if unit == 'hour' else 'min'}"


@pytest.mark.parametrize(
    "place", ["README.md", "docs/learners.md", "solutions/00_start_here/00_start_here.ipynb"]
)
def test_every_table_of_the_notebooks_says_the_same_times(place):
    said = (ROOT / place).read_text(encoding="utf-8")
    for name in NOTEBOOKS:
        number = name[:2]
        if number == "00" and place.endswith(".ipynb"):
            continue
        row = next(line for line in said.splitlines() if re.match(rf'\s*"?\| \[?{number} ', line))
        assert re.search(rf"\| {stated(name)} \|", row), (
            f"{place}: {row.strip()}, and the notebook: {stated(name)}"
        )
