"""Executed notebooks: each is run once, and anew when it changes."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from synthetic import code, write

from moe_course.authoring.executed import executed

DRAWN = "import os, uuid\nprint(uuid.uuid4(), sorted(name for name in os.environ if name.startswith('MOE_COURSE_')))"


def said(notebook):
    return notebook.cells[0].outputs[0].text


def test_a_notebook_runs_once_however_many_ask_and_again_when_it_changes(tmp_path):
    path = write(tmp_path / "solutions" / "some" / "some.ipynb", code("a", DRAWN))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: executed(path, tmp_path / "store"), range(2))
    assert said(first) == said(second)
    assert "['MOE_COURSE_LEGIBLE', 'MOE_COURSE_SMALL']" in said(first)

    write(path, code("a", f"{DRAWN}\n"))
    changed = executed(path, tmp_path / "store", full=True)
    assert said(changed).split()[0] != said(first).split()[0]
    assert "['MOE_COURSE_LEGIBLE']" in said(changed)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [("open('left.txt', 'w').close()", "leaves files behind: left.txt"), ("1 / 0", "ZeroDivisionError")],
)
def test_what_a_notebook_must_not_do(tmp_path, source, complaint):
    path = write(tmp_path / "solutions" / "some" / "some.ipynb", code("a", source))
    with pytest.raises(ValueError, match=complaint):
        executed(path, tmp_path / "store")
    assert not list((tmp_path / "store").glob("*.ipynb"))
