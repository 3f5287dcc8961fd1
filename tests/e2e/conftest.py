"""One course, taken through the round trip once, for all tests that look at what came of it."""

import copy
import shutil
import sys

import nbformat
import pytest
from stock_nbgrader import ASSIGNMENT, NAMES, Course, cell_of, jupyter_env, notebook_file
from synthetic import ROOT

ALWAYS_RENORMALISED = '''
def top_k_gate(probs_TE, k, renormalize=True):
    """Right in every respect but one: it does not listen to `renormalize`."""
    if probs_TE.dim() != 2 or not 1 <= k <= probs_TE.shape[1]:
        raise ValueError(f"k = {k} of the experts in probabilities of shape {tuple(probs_TE.shape)}")
    weights_TK, idx_TK = probs_TE.topk(k, dim=1)
    return weights_TK / weights_TK.sum(dim=1, keepdim=True), idx_TK
'''


@pytest.fixture(scope="session")
def graded(tmp_path_factory):
    """Notebook 02 after the round trip, in which three learners took part.

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
    cell_of(partly, "router_probs").source = cell_of(solved, "router_probs").source
    cell_of(partly, "top_k_gate").source = ALWAYS_RENORMALISED.strip()
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
