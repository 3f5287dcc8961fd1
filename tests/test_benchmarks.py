"""The cohorts that the benchmarks make up: varied, whole notebooks, the same every time."""

import importlib.util

import nbformat
import pytest
from stock_nbgrader import cell_of, notebook_file
from synthetic import ROOT

from moe_course.grading.exercises.registry import NOTEBOOKS, exercises_of
from moe_course.grading.submission.repair import repair


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("grading_benchmark", ROOT / "benchmarks" / "grading.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("assignment", NOTEBOOKS)
def test_submissions_hold_right_answers_mistakes_and_stubs(benchmark, assignment):
    handed_in = benchmark.submissions(assignment, 25)
    assert handed_in == benchmark.submissions(assignment, 25)
    released, solved = (
        nbformat.read(notebook_file(ROOT / tree, assignment), as_version=4)
        for tree in ("notebooks", "solutions")
    )
    for exercise in exercises_of(assignment):
        answers = {cell_of(notebook, exercise.name).source for notebook in handed_in.values()}
        assert len(answers) > 3
        assert cell_of(released, exercise.name).source in answers
        assert cell_of(solved, exercise.name).source in answers
        assert any("caught_by(" in answer for answer in answers)


def test_submissions_need_no_repair(benchmark):
    released = nbformat.read(notebook_file(ROOT / "notebooks"), as_version=4)
    for notebook in benchmark.submissions("01_dense_ffn", 5).values():
        assert repair(notebook, released).notes == ()
