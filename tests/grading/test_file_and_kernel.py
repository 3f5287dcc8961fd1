"""`moe-course check FILE` and a live check agree on a notebook that is run from top to bottom, whatever is in it."""

from __future__ import annotations

import json
import linecache

import pytest

from moe_course.grading.exercises.locate import released
from moe_course.grading.judge import live
from moe_course.grading.judge.files import check_file, grade_submission
from moe_course.grading.submission.attempts import cell_source, from_notebook, read

PARAMS, FLOPS = "ffn_params", "ffn_flops"
HELPED = {
    PARAMS: "def helper(a, b):\n    return 3 * a * b\n\n\ndef ffn_params(d_model, d_ff):\n"
    "    return helper(d_model, d_ff)",
    FLOPS: "def helper(a):\n    return 6 * a\n\n\ndef ffn_flops(num_tokens, d_model, d_ff):\n"
    "    return helper(num_tokens * d_model * d_ff)",
}


def notebook_with(answers, *below):
    """Notebook 01 with these answers, and own cells at the end."""
    notebook = json.loads(released("01_dense_ffn").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = answers.get(cell["id"], cell["source"])
    notebook["cells"] += [
        {
            "cell_type": "code",
            "metadata": {},
            "source": text,
            "id": f"own-{n}",
            "outputs": [],
            "execution_count": None,
        }
        for n, text in enumerate(below)
    ]
    return notebook


def live_statuses(notebook, names):
    """What a kernel says that runs the answers and the checks from top to bottom."""
    namespace, statuses = {"__name__": "__main__"}, {}
    for cell in notebook["cells"]:
        source = cell_source(cell)
        if cell["id"] in names or "setup" in cell["metadata"].get("tags", []):
            name = f"<cell {len(linecache.cache)} of a file>"
            linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
            exec(compile(source, name, "exec"), namespace)
        elif cell["id"].removeprefix("check_") in names:
            name = cell["id"].removeprefix("check_")
            statuses[name] = live.examine(namespace[name], namespace=namespace, seed=3).status
    return statuses


def file_statuses(tmp_path, notebook, names):
    path = tmp_path / "01_dense_ffn.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    _, verdicts = check_file(path, None, 3)
    return {verdict.exercise: verdict.status for verdict in verdicts if verdict.exercise in names}


def test_two_exercises_may_each_have_a_helper_of_the_same_name(tmp_path):
    notebook = notebook_with(HELPED)
    found = file_statuses(tmp_path, notebook, HELPED)
    assert found == live_statuses(notebook, HELPED) == dict.fromkeys(HELPED, "passed")


def test_a_wrong_helper_is_wrong_in_both(tmp_path):
    wrong = {**HELPED, PARAMS: HELPED[PARAMS].replace("3 *", "2 *")}
    notebook = notebook_with(wrong)
    found = file_statuses(tmp_path, notebook, HELPED)
    assert found == live_statuses(notebook, HELPED) == {PARAMS: "failed", FLOPS: "passed"}


def test_a_helper_mended_below_the_check_counts(tmp_path):
    """The learner's kernel holds the mended one, and so it passes there; only run anew from the top it would not."""
    wrong = {PARAMS: HELPED[PARAMS].replace("3 *", "2 *")}
    mended = notebook_with(wrong, "def helper(a, b):\n    return 3 * a * b")
    assert file_statuses(tmp_path, mended, wrong) == {PARAMS: "passed"}


@pytest.mark.parametrize(
    ("below", "makes_a_difference"),
    [
        ("", False),
        ("def other(a):\n    return a", False),
        ("def helper(a):\n    return a", True),
        ("helper = None", True),
        (HELPED[PARAMS], False),
    ],
)
def test_only_names_that_the_answer_uses_are_looked_at(tmp_path, below, makes_a_difference):
    submission = from_notebook(tmp_path, notebook_with({PARAMS: HELPED[PARAMS]}, below))
    assert (submission.checked_after(PARAMS) is not None) == makes_a_difference


def test_in_a_script_the_line_with_the_check_says_where(tmp_path):
    path = tmp_path / "mine.py"
    cells = [HELPED[PARAMS], "check(ffn_params)", HELPED[FLOPS], "check(ffn_flops)"]
    path.write_text(
        "\n\n# %%\n".join(["from moe_course.grading.check import check", *cells]), encoding="utf-8"
    )
    verdicts = grade_submission(read(path), [PARAMS, FLOPS], 3)
    assert [verdict.status for verdict in verdicts] == ["passed", "passed"]


def test_a_notebook_without_any_metadata_is_repaired_as_grade_does(tmp_path):
    """Also the answer whose code does not parse, which only its place and its text tell."""
    answers = {**HELPED, "moe_ffn_params": "def moe_ffn_params(d_model:\n    return 0"}
    notebook = notebook_with(answers)
    for cell in notebook["cells"]:
        cell["metadata"] = {}
        cell.pop("id")
    notebook["metadata"], notebook["nbformat_minor"] = {}, 4
    path = tmp_path / "Untitled.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    _, verdicts = check_file(path, None, 3)
    found = {verdict.exercise: verdict for verdict in verdicts}
    assert found[PARAMS].status == found[FLOPS].status == "passed"
    assert found["moe_ffn_params"].status == "failed"
    assert found["swiglu_ffn"].status == "not attempted"
    assert any("nbgrader metadata lost: reattached" in note for note in verdicts[0].notes)


def test_a_notebook_of_ones_own_is_checked_for_what_it_defines(tmp_path):
    path = tmp_path / "scratch.ipynb"
    cell = {
        "cell_type": "code",
        "metadata": {},
        "source": HELPED[PARAMS],
        "outputs": [],
        "execution_count": None,
    }
    notebook = {"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [cell]}
    path.write_text(json.dumps(notebook), encoding="utf-8")
    _, (verdict,) = check_file(path, None, 3)
    assert (verdict.exercise, verdict.status) == (PARAMS, "passed")
    assert not any("repaired" in note for note in verdict.notes)
