"""One course, taken through the round trip once, for all tests that look at what came of it."""

import copy
import shutil
import sys

import nbformat
import pytest
from stock_nbgrader import ASSIGNMENT, NAMES, Course, cell_of, jupyter_env, notebook_file
from synthetic import ROOT

NO_SHARED_EXPERTS = '''
def moe_ffn_params(d_model, d_ff, num_experts, top_k, num_shared=0):
    """Right as long as there are no shared experts."""
    if min(d_model, d_ff, num_experts) < 1 or not 1 <= top_k <= num_experts or num_shared < 0:
        raise ValueError(f"{d_model=} {d_ff=} {num_experts=} {top_k=} {num_shared=}")
    router, expert = d_model * num_experts, 3 * d_model * d_ff
    return router + num_experts * expert, router + top_k * expert
'''


@pytest.fixture(scope="session")
def graded(tmp_path_factory):
    """Notebook 01, which is the quickest, after a round trip in which three learners took part.

    `partly` came through the exchange with one right answer, one half right, and no others; `everything` has
    every answer of the course; `nothing` is the untouched release.
    """
    if sys.platform == "win32":
        pytest.skip("nbgrader's exchange does not run on Windows")
    base = tmp_path_factory.mktemp("round-trip")
    course = Course(base / "course", base / "learner", jupyter_env(base / "home", base / "exchange"))
    course.learner.mkdir()
    shutil.copytree(ROOT / "solutions" / ASSIGNMENT, course.root / "solutions" / ASSIGNMENT)
    shutil.copy(ROOT / "nbgrader_config.py", course.root)

    course.nbgrader("generate_assignment", ASSIGNMENT, "--force")
    course.nbgrader("release_assignment", ASSIGNMENT)
    course.nbgrader("fetch_assignment", ASSIGNMENT, "--course", "moe", cwd=course.learner)
    released = nbformat.read(notebook_file(course.learner), as_version=4)
    solved = nbformat.read(notebook_file(ROOT / "solutions"), as_version=4)

    partly = copy.deepcopy(released)
    cell_of(partly, "swiglu_ffn").source = cell_of(solved, "swiglu_ffn").source
    cell_of(partly, "moe_ffn_params").source = NO_SHARED_EXPERTS.strip()
    nbformat.write(partly, notebook_file(course.learner))
    course.nbgrader("submit", ASSIGNMENT, "--course", "moe", "--student", "partly", cwd=course.learner)
    course.nbgrader("collect", ASSIGNMENT)

    everything = copy.deepcopy(released)
    for name in NAMES:
        cell_of(everything, name).source = cell_of(solved, name).source
    course.hand_in("everything", everything)
    course.hand_in("nothing", released)
    course.nbgrader("autograde", ASSIGNMENT)
    course.nbgrader("generate_feedback", ASSIGNMENT)
    course.nbgrader("export")
    return course
