"""Every released notebook, top to bottom in a fresh kernel; and one score, whichever way it is asked for.

test_solutions.py does the same for the notebooks with answers.
"""

import json
import re
import subprocess
import sys

import pytest
from synthetic import ROOT, one_in

from moe_course.grading.exercises.registry import NOTEBOOKS, exercises_of
from moe_course.grading.exercises.rubric import hidden_points, points

TREE = "notebooks"


def live_scores(notebook):
    """{exercise: score}, read from the outputs of the check cells as nbgrader reads them."""
    scores = {}
    for cell in notebook.cells:
        mark = re.match(r"check\((\w+)", cell.source)
        if cell.cell_type == "code" and mark:
            (result,) = [out for out in cell.outputs if out.output_type == "execute_result"]
            scores[mark[1]] = float(result.data["text/plain"])
    return scores


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_runs_top_to_bottom(executed, name, request):
    """No error, no file left behind, nothing on stderr, and every check says what it should."""
    tree = request.module.TREE
    notebook = executed(tree, name)
    noise = [
        out.text
        for cell in notebook.cells
        if cell.cell_type == "code"
        for out in cell.outputs
        if out.get("name") == "stderr"
    ]
    assert noise == []
    public = {ex.name: points(ex.name) - hidden_points(ex.name) for ex in exercises_of(name)}
    assert live_scores(notebook) == (public if tree == "solutions" else dict.fromkeys(public, 0))


@pytest.mark.parametrize("name", one_in(3, NOTEBOOKS))
def test_the_same_score_from_the_command_and_from_pytest(executed, name, request):
    tree = request.module.TREE
    file = ROOT / tree / name / f"{name}.ipynb"
    live = live_scores(executed(tree, name))

    run = [sys.executable, "-m", "moe_course.command.cli", "check", str(file), "--json"]
    said = subprocess.run(run, capture_output=True, text=True, cwd=ROOT)
    verdicts = [json.loads(line) for line in said.stdout.splitlines()]
    # What is hidden from a live check is decided here.
    full = {name: score + hidden_points(name) if score else 0 for name, score in live.items()}
    assert {verdict["exercise"]: verdict["score"] for verdict in verdicts} == full
    status = "passed" if tree == "solutions" else "not attempted"
    assert {verdict["status"] for verdict in verdicts} == {status}
    assert said.returncode == (0 if tree == "solutions" else 1)

    graders = [str(path) for path in (ROOT / "tests" / "graders").rglob(f"test_{name}.py")]
    run = [sys.executable, "-m", "pytest", *graders, "--submission", str(file), "-p", "no:cacheprovider"]
    said = subprocess.run(run, capture_output=True, text=True, cwd=ROOT)
    scores = dict(re.findall(r"^(\w+): (\d+) of \d+$", said.stdout, re.MULTILINE))
    assert {exercise: float(score) for exercise, score in scores.items()} == full
    assert ("not attempted" in said.stdout) == (tree == "notebooks")
