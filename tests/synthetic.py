"""Small notebooks and courses made on the spot, for tests that are about files and not about lessons."""

import itertools
import shutil
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parent.parent
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def one_in(every, *axes):
    """All combinations of the axes, as pytest's parameters: one in `every`, other ones each day; all with --full."""
    today = int(time.time()) // 86_400
    return [
        pytest.param(*values, marks=() if (place + today) % every == 0 else pytest.mark.full)
        for place, values in enumerate(itertools.product(*axes))
    ]


def text(cell_id, source="Some words."):
    return new_markdown_cell(source, id=cell_id)


def code(cell_id, source="1 + 1", **metadata):
    return new_code_cell(source, id=cell_id, metadata=metadata)


def answer(name, body="return x + 1  # a long enough line of an answer"):
    """The solution cell of an exercise."""
    source = f"def {name}(x):\n    ### BEGIN SOLUTION\n    {body}\n    ### END SOLUTION"
    return _marked(name, source, solution=True)


def check(name, points, call=None):
    """The grade cell of an exercise."""
    return _marked(f"check_{name}", call or f"check({name})", grade=True, locked=True, points=points)


def _marked(grade_id, source, points=None, **roles):
    marks = {"schema_version": 3, "grade": False, "solution": False, "locked": False, "task": False, **roles}
    marks["grade_id"] = grade_id
    if points is not None:
        marks["points"] = points
    return new_code_cell(source, id=grade_id, metadata={"nbgrader": marks})


def notebook(*cells):
    return new_notebook(
        cells=list(cells), metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}}
    )


def write(path, *cells):
    """Write a notebook of these cells; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook(*cells), path)
    return path


def course(root, **assignments):
    """A course in `root` with the repository's nbgrader_config.py and one notebook an assignment."""
    for name, cells in assignments.items():
        write(root / "solutions" / name / f"{name}.ipynb", *cells)
    shutil.copy(ROOT / "nbgrader_config.py", root)
    return root
