"""docs/teaching/: the guides are whole and fresh, and every number of an exam's answers is computed here."""

import re

import nbformat
import pytest
from synthetic import ROOT
from teaching import fences, parts

from moe_course.authoring import guides, times
from moe_course.grading.exercises.registry import NOTEBOOKS, exercises_of
from moe_course.grading.exercises.rubric import grader_of, hidden_points, points

FOLDER = ROOT / guides.FOLDER
GUIDES = {name: (FOLDER / f"{name}.md").read_text(encoding="utf-8") for name in NOTEBOOKS}
HEADINGS = [
    "Goals",
    "Minutes",
    "Before the lesson",
    "Teaching it",
    "Where people get stuck",
    "Discussion",
    "Exam",
    "Mistakes and what they tell",
]


def test_the_generated_parts_are_fresh(capsys):
    assert guides.update(ROOT, check=True), capsys.readouterr().out + "run `moe-course release`"


def test_a_stale_part_is_told_and_made_anew(tmp_path, capsys):
    (tmp_path / "docs/teaching").mkdir(parents=True)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    guide = tmp_path / "docs/teaching/00.md"
    guide.write_text("Before.\n<!-- generated: mistakes 00_start_here -->\nold\n<!-- end -->\nBehind.\n")
    assert not guides.update(tmp_path, check=True)
    assert "docs/teaching/00.md: stale" in capsys.readouterr().out
    assert guides.update(tmp_path)
    text = guide.read_text(encoding="utf-8")
    assert text.startswith("Before.\n<!-- generated")
    assert text.endswith("<!-- end -->\nBehind.\n")
    assert "old" not in text
    assert "| It tells you: not yet |" in text
    assert guides.update(tmp_path, check=True)


def test_an_unknown_part_is_refused(tmp_path):
    (tmp_path / "docs/teaching").mkdir(parents=True)
    (tmp_path / "docs/teaching/x.md").write_text("<!-- generated: jokes 01_dense_ffn -->\n<!-- end -->")
    with pytest.raises(ValueError, match="no generated part “jokes 01_dense_ffn”"):
        guides.update(tmp_path)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_minutes_of_the_sections_add_up_to_what_the_notebook_says(name):
    notebook = nbformat.read(ROOT / "solutions" / name / f"{name}.ipynb", as_version=4)
    found = times.sections(notebook)
    assert sum(section.minutes for section in found) == times.stated_minutes(notebook)
    assert [number for section in found for number in section.exercises] == [
        exercise.number for exercise in exercises_of(name)
    ]
    assert all(section.minutes >= sum(section.exercises.values()) for section in found)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_guide_has_all_its_parts(name):
    found = parts(GUIDES[name], "## ")
    assert list(found) == HEADINGS
    assert 3 <= len(parts(found["Discussion"], "### ")) <= 5
    assert 4 <= len(parts(found["Exam"], "### ")) <= 6
    for kind in ("minutes", "predictions", "mistakes"):
        assert f"<!-- generated: {kind} {name} -->" in GUIDES[name]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_prediction_is_told_and_at_most_one_option_is_right(name):
    text = (ROOT / "solutions" / name / f"{name}.ipynb").read_text(encoding="utf-8")
    told = re.findall(r"^- `([\w-]+)`: (.*)$", guides.predictions(ROOT, name), re.MULTILINE)
    assert [key for key, _ in told] == re.findall(r'predict\(\\n",\s*"    \\"([\w-]+)\\"', text)
    assert all((line.count("**") == 2) != ("*The run decides:*" in line) for _, line in told)


def questions(name):
    """[(title, question, answer without its code, its code)] of a guide's exam."""
    found = []
    for title, text in parts(parts(GUIDES[name], "## ")["Exam"], "### ").items():
        question, _, answer = text.partition("**Answer.**")
        code = "\n".join(fences(answer))
        found.append((title, question, re.sub(r"```.*?```", "", answer, flags=re.DOTALL), code))
    return found


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_points_of_an_answer_are_those_of_the_question(name):
    for title, _, answer, _ in questions(name):
        worth = int(re.fullmatch(r"Question \d \((\d+) points\)", title)[1])
        assert sum(map(int, re.findall(r"\[(\d)\]", answer))) == worth, title


def numbers(text):
    """The numbers of a text that have a decimal point or four digits, without those of notebooks and exercises."""
    text = re.sub(r"(?i)(?:notebook|section|exercise)s? [\d.]+\d", "", text)
    return {float(n) for n in re.findall(r"\d+\.\d+|\d{4,}", re.sub(r"(?<=\d)[,_](?=\d{3})", "", text))}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_number_of_an_answer_is_computed(name):
    """The code below an answer runs, and holds each number that the answer tells and the question does not."""
    world = {}
    for title, question, answer, code in questions(name):
        exec(code, world)
        assert numbers(answer) <= numbers(code) | numbers(question), title
        assert not code or "assert" in code, title


def test_a_rubric_tells_all_points_and_nothing_of_what_hidden_criteria_try():
    text = (FOLDER / "rubrics.md").read_text(encoding="utf-8")
    for name in NOTEBOOKS:
        for exercise in exercises_of(name):
            told = parts(text, f"### {exercise.number} · `{exercise.name}`")[""]
            numbers = [int(n) for n in re.findall(r"\| (\d+) \|$", told, re.MULTILINE)]
            assert sum(numbers) == points(exercise.name), exercise.name
            assert f"| **{points(exercise.name)}** |" in told
            hidden = hidden_points(exercise.name)
            assert ("*hidden, tried at grading only*" in told) == (hidden > 0)
            assert len(numbers) == len(guides.criteria(grader_of(exercise.name))) + (hidden > 0)
