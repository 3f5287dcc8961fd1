"""Metadata of odd types, wherever a notebook may hold some: graded all the same, or refused with a reason."""

import copy
import json

import nbformat
import pytest

from moe_course.grading.exercises.locate import released
from moe_course.grading.submission.attempts import read
from moe_course.grading.submission.collection import Handed
from moe_course.grading.submission.intake import tasks

pytestmark = pytest.mark.slow  # some hundred notebooks are repaired

ASSIGNMENT = "01_dense_ffn"
ODD = (None, True, -1, 1e308, "x", [None], {"x": None}, {"name": 5}, [["x"], {"a": [1]}])
RIGHT = "def ffn_params(d_model, d_ff):\n    return 3 * d_model * d_ff"


def answered():
    notebook = json.loads(nbformat.writes(nbformat.read(released(ASSIGNMENT), as_version=4)))
    cell = next(c for c in notebook["cells"] if grade_id(c) == "ffn_params")
    cell["source"] = RIGHT
    return notebook


def grade_id(cell):
    return cell["metadata"].get("nbgrader", {}).get("grade_id")


RELEASED = answered()
FIELDS = ("metadata", "id", "attachments", "outputs", "execution_count")
MARKS = ("grade_id", "points", "grade", "solution", "locked", "schema_version")
OTHERS = ("nbgrader", "tags", "deletable", "editable", "collapsed", "jupyter")
PLACES = {
    "the notebook's metadata": lambda nb, odd: nb.update(metadata=odd),
    "kernelspec": lambda nb, odd: nb["metadata"].update(kernelspec=odd),
    "the kernel's name": lambda nb, odd: nb["metadata"].update(kernelspec={"name": odd, "display_name": odd}),
    "language_info": lambda nb, odd: nb["metadata"].update(language_info=odd),
    "nbgrader of the notebook": lambda nb, odd: nb["metadata"].update(nbgrader=odd),
    "nbformat_minor": lambda nb, odd: nb.update(nbformat_minor=odd),
    **{
        f"{name} of every {kind}": lambda nb, odd, name=name, kind=kind: [
            set_in(cell, name, odd) for cell in nb["cells"] if kind == "cell" or grade_id(cell) is not None
        ]
        for kind in ("cell", "graded cell")
        for name in (*FIELDS, *MARKS, *OTHERS)
    },
}  # fmt: skip


def set_in(cell, name, odd):
    if name in FIELDS:
        cell[name] = odd
    elif name in MARKS:
        cell["metadata"].setdefault("nbgrader", {})[name] = odd
    else:
        cell["metadata"][name] = odd


@pytest.mark.parametrize("place", PLACES)
def test_odd_metadata_costs_nobody_an_answer(place):
    damaged = []
    for odd in ODD:
        notebook = copy.deepcopy(RELEASED)
        PLACES[place](notebook, odd)
        damaged.append(json.dumps(notebook).encode())
    for odd, task in zip(ODD, prepared(damaged), strict=True):
        assert not task.problem.startswith("cannot be read"), f"{odd!r}: {task.problem}"
        assert task.problem == "", f"{odd!r}: {task.problem}"
        assert RIGHT in task.submission.cells, repr(odd)


@pytest.mark.parametrize("place", PLACES)
def test_a_self_check_from_the_command_line_reads_them_too(place, tmp_path):
    for odd in ODD:
        notebook = copy.deepcopy(RELEASED)
        PLACES[place](notebook, odd)
        (tmp_path / "x.ipynb").write_text(json.dumps(notebook))
        assert "ffn_params" in read(tmp_path / "x.ipynb").exercises, repr(odd)


def prepared(texts):
    return tasks(
        [Handed(f"s{n:03}", ASSIGNMENT, "x.ipynb", fetch=lambda t=t: t) for n, t in enumerate(texts)], 0
    )


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_list_of_cells_is_refused_with_a_reason(odd):
    notebook = copy.deepcopy(RELEASED)
    notebook["cells"] = odd
    (task,) = prepared([json.dumps(notebook).encode()])
    assert task.problem
    assert "Error" not in task.problem
