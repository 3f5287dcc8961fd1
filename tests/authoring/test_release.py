"""The release: what the stock command makes, made safely."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from synthetic import answer, check, code, course, text

from moe_course.authoring.release import ReleaseError, release

CELLS = (text("title", "# Über ∑"), code("setup", "import math", tags=["setup"]), answer("f"), check("f", 3))


@pytest.fixture
def root(tmp_path):
    return course(tmp_path, one=CELLS, two=CELLS)


def released(root):
    folder = root / "notebooks"
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_release_has_stubs_stable_ids_and_no_answers(root):
    assert release(root)
    notebook = nbformat.read(root / "notebooks/one/one.ipynb", as_version=4)
    assert [cell.id for cell in notebook.cells] == ["title", "setup", "f", "check_f"]
    assert notebook.cells[2].source == "def f(x):\n    raise NotImplementedError  # your code here"
    assert b"SOLUTION" not in released(root)["one/one.ipynb"]


def test_releasing_twice_gives_the_same_bytes_and_touches_nothing(root, capsys):
    release(root)
    before = {path: path.stat().st_mtime_ns for path in (root / "notebooks").rglob("*.ipynb")}
    first = released(root)
    capsys.readouterr()
    assert release(root)
    assert capsys.readouterr().out == "notebooks/ is up to date with solutions/\n"
    assert released(root) == first
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_the_stock_command_gives_the_same_bytes(root):
    release(root)
    ours = released(root)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # nbgrader calls alembic
    command = [sys.executable, "-m", "nbgrader", "generate_assignment", "one", "--force"]
    subprocess.run(command, cwd=root, env={**os.environ, "PATH": path}, check=True, capture_output=True)
    assert (root / "gradebook.db").exists()
    assert released(root) == ours


def test_check_names_what_is_stale_and_changes_nothing(root, capsys):
    release(root)
    course(root, one=(*CELLS, text("more")), three=CELLS)
    (root / "notebooks/two").rename(root / "notebooks/four")
    before = released(root)
    capsys.readouterr()
    assert not release(root, check=True)
    said = capsys.readouterr().out
    assert "notebooks/one/one.ipynb: different" in said
    assert "notebooks/two/two.ipynb: missing" in said
    assert "notebooks/three/three.ipynb: missing" in said
    assert "notebooks/four/two.ipynb: orphaned" in said
    assert released(root) == before

    assert release(root)
    assert sorted(released(root)) == ["one/one.ipynb", "three/three.ipynb", "two/two.ipynb"]
    assert not (root / "notebooks/four").exists()
    assert release(root, check=True)


def test_a_broken_source_leaves_every_release_as_it_was(root):
    release(root)
    before = released(root)
    broken = answer("f")
    broken.source = broken.source.replace("### END SOLUTION", "")
    course(root, one=(*CELLS, text("more")), two=(text("title"), broken, check("f", 3)))
    with pytest.raises(ReleaseError, match="No end solution statement found"):
        release(root)
    assert released(root) == before


def test_the_release_keeps_its_hands_off_the_gradebook(root):
    release(root)
    assert sorted(path.name for path in root.iterdir()) == ["nbgrader_config.py", "notebooks", "solutions"]
