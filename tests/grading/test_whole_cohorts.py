"""`moe-course grade` from end to end on files that nobody meant to hand in: mutilated at random, or huge."""

import copy
import json
import random
import tracemalloc
import zipfile

import nbformat
import pytest
from mutilation import mutilated
from stock_nbgrader import ASSIGNMENT, NAMES, cell_of, notebook_file
from synthetic import ROOT

from moe_course.grading.cohort import grade_cohort
from moe_course.grading.exercises.rubric import points

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("needs_sandbox")]

FULL = float(sum(map(points, NAMES)))
MUTILATED = 50


def solved():
    """The released notebook 01 with all answers of the course."""
    notebook = nbformat.read(notebook_file(ROOT / "notebooks"), as_version=4)
    answers = nbformat.read(notebook_file(ROOT / "solutions"), as_version=4)
    for name in NAMES:
        cell_of(notebook, name).source = cell_of(answers, name).source
    return notebook


SOLVED = solved()


def hand_in(submitted, student, data):
    path = notebook_file(submitted / student)
    path.parent.mkdir(parents=True)
    path.write_bytes(data)


# ------------------------------------------------------------------------------------------------------ mutilated


def intact(data):
    """Whether every answer is still there, and no cell has a text that the notebook did not have before."""
    try:
        cells = json.loads(data)["cells"]
        texts = {"".join(cell.get("source", "")) for cell in cells}
    except (ValueError, TypeError, AttributeError, KeyError):
        return False
    answers = {cell_of(SOLVED, name).source for name in NAMES}
    return answers <= texts <= {"", *(cell.source for cell in SOLVED.cells)}


@pytest.fixture(scope="module")
def damaged():
    """{student: bytes}"""
    rng = random.Random(3)
    return {f"student{number:02}": mutilated(rng, SOLVED) for number in range(MUTILATED)}


@pytest.fixture(scope="module")
def graded(damaged, tmp_path_factory):
    """{student: record} of all mutilated notebooks, with an honest one before and after them."""
    base = tmp_path_factory.mktemp("mutilated")
    for student, data in damaged.items():
        hand_in(base / "submitted", student, data)
    for student in ("a_neighbour", "z_neighbour"):
        hand_in(base / "submitted", student, json.dumps(SOLVED).encode())
    records = grade_cohort.grade(base / "submitted", base / "out", jobs=2, seed=11)
    assert sorted(path.name for path in (base / "out").glob("*.csv")) == [
        "canvas.csv",
        "grades.csv",
        "moodle.csv",
    ]
    return {record["student"]: record for record in records}


def test_every_mutilated_notebook_ends_graded_or_with_a_reason(graded, damaged):
    assert set(graded) == {"a_neighbour", "z_neighbour", *damaged}
    for student in damaged:
        record = graded[student]
        if record["status"] == "graded":
            assert record["reason"] == "", student
            assert 0 <= record["score"] <= record["max_score"] == FULL
            assert [verdict["exercise"] for verdict in record["verdicts"]] == NAMES
        else:
            assert (record["status"], record["score"]) == ("ungradable", None)
            assert len(record["reason"]) > 20, student
            assert not record["again"], f"{student}: {record['reason']}"  # it is the file, not the grader
            assert not record["reason"].startswith("cannot be read ("), f"{student}: {record['reason']}"
    assert sum(record["status"] == "graded" for record in graded.values()) > 0.6 * MUTILATED


def test_where_the_answers_are_intact_the_score_is_full(graded, damaged):
    whole = [student for student, data in damaged.items() if intact(data)]
    assert len(whole) >= 8
    assert {student: graded[student]["score"] for student in whole} == dict.fromkeys(whole, FULL)


def test_their_neighbours_keep_full_marks(graded):
    assert [graded[student]["score"] for student in ("a_neighbour", "z_neighbour")] == [FULL, FULL]


# ----------------------------------------------------------------------------------------------------------- huge


def huge():
    """A solved notebook of 200 MB: a loop that printed without end."""
    notebook = copy.deepcopy(SOLVED)
    cell_of(notebook, "ffn_params").outputs = [nbformat.v4.new_output("stream", text="HERE")]
    return json.dumps(notebook).encode().replace(b"HERE", b"x" * 200_000_000)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_notebook_of_200_mb_is_ungradable_and_costs_the_judge_no_memory(tmp_path, zipped):
    submitted = tmp_path / "submitted"
    hand_in(submitted, "neighbour", json.dumps(SOLVED).encode())
    hand_in(submitted, "printer", huge())
    if zipped:
        with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
            for path in submitted.rglob("*.ipynb"):
                archive.write(path, path.relative_to(submitted))
        submitted = tmp_path / "in.zip"
    tracemalloc.start()
    try:
        neighbour, printer = grade_cohort.grade(submitted, tmp_path / "out", ASSIGNMENT, seed=0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (neighbour["status"], neighbour["score"]) == ("graded", FULL)
    assert (printer["status"], printer["score"]) == ("ungradable", None)
    assert "larger than 100 MB: clear its outputs" in printer["reason"]
    assert "decompressed" not in printer["reason"]
    assert peak < 50_000_000
