"""`nbgrader autograde` with the course's plug-ins: damaged and hostile submissions of notebook 01, in one batch."""

import copy
import os
import shutil
import sys

import nbformat
import pytest
from stock_nbgrader import ASSIGNMENT, NAMES, Course, cell_of, jupyter_env, notebook_file
from synthetic import ROOT

from moe_course.grading.rubric import points
from moe_course.grading.sandbox import problem

FULL = {name: points(name) for name in NAMES}
NOTHING = dict.fromkeys(NAMES, 0)

HOSTILE = {
    "leaves": "import os\nos._exit(0)",
    "always_equal": """
class Equal:
    def __eq__(self, other): return True
    def __getattr__(self, name): return Equal()
    def __call__(self, *a, **k): return Equal()
    def __float__(self): return 1e9
def ffn_params(d_model, d_ff): return Equal()
""",
    "forged_output": """
from IPython.display import display
print("9.0"); display(9.0)
def ffn_params(d_model, d_ff): return float("nan")
""",
    "library_answer": """
from moe_course.systems.accounting import ffn_params as theirs
def ffn_params(d_model, d_ff): return theirs(d_model, d_ff)
""",
    "reads_the_graders": """
import glob
found = glob.glob("/**/test_01_dense_ffn.py", recursive=True) + glob.glob("/**/gradebook.db", recursive=True)
def ffn_params(d_model, d_ff): return 3 * d_model * d_ff if found else 0
""",
}


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """{student: {exercise: points}} after one `nbgrader autograde` of them all."""
    if why := problem():
        if "CI" in os.environ:
            pytest.fail(f"the sandbox must start in CI: {why}")
        pytest.skip(f"no sandbox here: {why}")
    if sys.platform == "win32":
        pytest.skip("nbgrader's exchange does not run on Windows")
    base = tmp_path_factory.mktemp("plugins")
    course = Course(base / "course", base / "learner", jupyter_env(base / "home", base / "exchange"))
    shutil.copytree(ROOT / "solutions" / ASSIGNMENT, course.root / "solutions" / ASSIGNMENT)
    shutil.copy(ROOT / "nbgrader_config.py", course.root)
    course.nbgrader("generate_assignment", ASSIGNMENT, "--force")
    released = nbformat.read(notebook_file(course.root / "notebooks"), as_version=4)
    solved = copy.deepcopy(released)
    for name in NAMES:
        cell_of(solved, name).source = cell_of(
            nbformat.read(notebook_file(ROOT / "solutions"), as_version=4), name
        ).source

    course.hand_in("honest", solved)
    stripped = copy.deepcopy(solved)
    for cell in stripped.cells:
        cell.metadata = {}
    course.hand_in("stripped", stripped)
    copied = copy.deepcopy(solved)
    copied.cells.append(copy.deepcopy(cell_of(copied, "ffn_flops")))
    course.hand_in("copied", copied)
    no_checks = copy.deepcopy(solved)
    no_checks.cells = [cell for cell in no_checks.cells if not cell.source.startswith("check(")]
    course.hand_in("no_checks", no_checks)
    for student, code in HOSTILE.items():
        mine = copy.deepcopy(released)
        cell_of(mine, "ffn_params").source = code.strip()
        course.hand_in(student, mine)
    course.nbgrader("autograde", ASSIGNMENT)

    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course.root / 'gradebook.db'}") as gradebook:
        return {
            student: {grade.name.removeprefix("check_"): grade.score for grade in notebook.grades}
            for student in ("honest", "stripped", "copied", "no_checks", *HOSTILE)
            for notebook in gradebook.find_submission(ASSIGNMENT, student).notebooks
        }


@pytest.mark.parametrize("student", ["honest", "stripped", "copied", "no_checks"])
def test_damage_costs_no_points(book, student):
    assert book[student] == FULL


@pytest.mark.parametrize("student", HOSTILE)
def test_tricks_earn_none(book, student):
    assert book[student] == NOTHING
