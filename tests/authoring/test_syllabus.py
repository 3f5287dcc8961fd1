"""Plans of a course: every notebook whole, hours as stated, and due dates that nbgrader understands."""

import re

import nbformat
import pytest
from nbgrader.utils import parse_utc
from synthetic import ROOT
from teaching import parts

from moe_course.authoring import syllabus, times
from moe_course.command import cli
from moe_course.grading.exercises.registry import NOTEBOOKS

TEXT = (ROOT / "docs/teaching/syllabi.md").read_text(encoding="utf-8")
MINUTES = {
    exercise: minutes
    for name in NOTEBOOKS
    for section in syllabus.sections_of(ROOT, name)
    for exercise, minutes in section.exercises.items()
}


@pytest.mark.parametrize("plan", syllabus.PLANS)
def test_each_notebook_of_a_plan_is_there_once_and_whole(plan):
    named = [part for unit in syllabus.PLANS[plan].units for part in unit]
    for name in {part.split()[0] for part in named}:
        found = [
            s.title for part in named if part.split()[0] == name for s in syllabus.sections_of(ROOT, part)
        ]
        assert found == [section.title for section in syllabus.sections_of(ROOT, name)]


@pytest.mark.parametrize("plan", syllabus.PLANS)
def test_the_hours_are_those_that_the_notebooks_say(plan):
    rows = re.findall(r"\| (\d*) \| .* \| ([\d.]+) \|$", syllabus.table(ROOT, plan), re.MULTILINE)
    *hours, total = [float(number) for _, number in rows]
    names = {part.split()[0] for unit in syllabus.PLANS[plan].units for part in unit}
    notebooks = [nbformat.read(ROOT / "solutions" / name / f"{name}.ipynb", as_version=4) for name in names]
    assert total == round(sum(map(times.stated_minutes, notebooks)) / 60, 1)
    assert abs(sum(hours) - total) < 0.05 * (len(hours) + 1)


def test_the_long_plans_leave_nothing_out():
    for plan in ("six-weeks", "semester"):
        units = syllabus.PLANS[plan].units
        assert list(dict.fromkeys(part.split()[0] for unit in units for part in unit)) == list(NOTEBOOKS)


def test_sections_that_a_notebook_lacks_are_refused():
    with pytest.raises(ValueError, match="03_dispatch has no sections 7-9"):
        syllabus.sections_of(ROOT, "03_dispatch 7-9")


@pytest.mark.parametrize("plan", syllabus.PLANS)
def test_due_dates_are_read_by_nbgrader_and_follow_the_plan(plan):
    lines = list(syllabus.dates(plan, "2027-01-11"))
    due = [re.fullmatch(r'nbgrader db assignment add (\w+) --duedate="(.*)"', line) for line in lines]
    when = {found[1]: parse_utc(found[2]) for found in due if found}
    released = {name: day for line in lines if line[0] == "#" for name, day in released_in(line)}
    assert list(when) == [name for name in released if name != "00_start_here"]
    assert all(str(when[name].date()) >= released[name] for name in when)
    assert sorted(when.values()) == list(when.values())


def released_in(comment):
    names, day = re.fullmatch(r"# \w+ \d+: release (.*) on (\S+)", comment).groups()
    return [(name, day) for name in names.split(", ")]


def test_a_notebook_of_two_weeks_is_due_at_the_end_of_the_second(capsys):
    assert cli.main(["dates", "--start", "2027-01-11", "--plan", "semester"]) == 0
    said = capsys.readouterr().out
    assert "# week 4: release 04_load_balancing on 2027-02-01\n" in said
    assert 'nbgrader db assignment add 04_load_balancing --duedate="2027-02-14 23:59:00 UTC"\n' in said
    assert said.count("04_load_balancing") == 2


@pytest.mark.parametrize(
    ("plan", "start", "said"),
    [
        ("a-year", "2027-01-11", "no plan 'a-year'; the plans are five-days, six-weeks, semester"),
        ("semester", "11.1.2027", "'11.1.2027' is no date; write it as 2027-01-11"),
        ("semester", "2027-02-30", "'2027-02-30' is no date"),
    ],
)
def test_bad_arguments_are_named(plan, start, said, capsys):
    assert cli.main(["dates", "--start", start, "--plan", plan]) == 2
    assert said in capsys.readouterr().err


def test_half_a_day_is_four_hours_and_holds_its_exercises():
    rows = re.findall(r"^\| (\d+) \| (.*?) \| ?(.*?) ?\|$", parts(TEXT, "## ")["Half a day"], re.MULTILINE)
    assert sum(int(minutes) for minutes, _, _ in rows) == 240
    for minutes, what, exercises in rows:
        listed = re.findall(r"\d+\.\d", exercises)
        assert sum(MINUTES[number] for number in listed) < int(minutes), what
    assert sum(len(re.findall(r"\d+\.\d", exercises)) for _, _, exercises in rows) >= 6


def test_the_exam_questions_that_syllabi_name_exist():
    assessed = " ".join(re.findall(r"(?:exam|quiz|midterm)[^|]*", TEXT))
    named = re.findall(r"\b(\d\d)\.(\d)\b", assessed)
    assert len(named) > 10
    for notebook, number in named:
        (name,) = (name for name in NOTEBOOKS if name.startswith(notebook))
        assert f"### Question {number} (" in (ROOT / f"docs/teaching/{name}.md").read_text(encoding="utf-8")


def test_every_plan_stands_in_the_syllabi():
    assert re.findall(r"<!-- generated: plan (\S+) -->", TEXT) == list(syllabus.PLANS)
