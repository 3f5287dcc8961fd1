"""Google Colab: a copy of a notebook installs the course in its first cell, and what comes back is graded in full."""

import json
import subprocess
import sys
import sysconfig
from email.message import Message
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell
from synthetic import ROOT, text, write

from moe_course.authoring import colab
from moe_course.command.cli import main
from moe_course.grading.cohort.grade_cohort import grade
from moe_course.grading.exercises.rubric import points
from moe_course.grading.worker import sandbox

NOTEBOOK = "01_dense_ffn"
# What the notebook's kernel may load: packages that Colab has (pip-freeze.txt in github.com/googlecolab/backend-info;
# comm comes with every ipykernel of today). The first cell installs none of them.
IN_COLAB = {
    *(
        "comm",
        "cycler",
        "debugpy",
        "filelock",
        "fonttools",
        "ipykernel",
        "ipython",
        "Jinja2",
        "jupyter_client",
    ),
    *(
        "jupyter_core",
        "kiwisolver",
        "MarkupSafe",
        "matplotlib",
        "matplotlib-inline",
        "mpmath",
        "msgpack",
        "numpy",
    ),
    *("packaging", "pexpect", "pillow", "platformdirs", "psutil", "ptyprocess", "Pygments", "pyparsing"),
    *("python-dateutil", "pyzmq", "sympy", "torch", "tornado", "tqdm", "traitlets", "typing_extensions"),
}
LOADED = """\
import importlib.metadata, json, sys
_homes = importlib.metadata.packages_distributions()
print(json.dumps(sorted({_homes[name][0] for name in sys.modules if name in _homes})))"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Stands for the public repository, which pip would build the same wheel from."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """The name of a kernel whose Python has every package of this one, but not the course."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    others = tmp_path / "others"
    others.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.lower().startswith(("moe_course", "_moe_course", "__editable__")):
            (others / path.name).symlink_to(path)
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (packages / "others.pth").write_text(f"{others}\n", encoding="utf-8")
    spec = tmp_path / "jupyter" / "kernels" / "colab" / "kernel.json"
    spec.parent.mkdir(parents=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(
        json.dumps({"argv": argv, "display_name": "Colab", "language": "python"}), encoding="utf-8"
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    for name in ("PYTHONPATH", "MOE_COURSE_OWN"):
        monkeypatch.delenv(name, raising=False)
    return "colab"


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links")
def test_a_notebook_in_colab_from_its_first_cell_to_the_grade(tmp_path, wheel, kernel):
    assert main(["colab", str(tmp_path / "copies"), "--repository", str(wheel)]) == 0
    copy = nbformat.read(tmp_path / "copies" / NOTEBOOK / f"{NOTEBOOK}.ipynb", as_version=4)
    solved = nbformat.read(ROOT / "solutions" / NOTEBOOK / f"{NOTEBOOK}.ipynb", as_version=4)
    answers = {
        cell.id: cell.source for cell in solved.cells if cell.metadata.get("nbgrader", {}).get("solution")
    }
    for cell in copy.cells:
        cell.source = answers.get(cell.id, cell.source)
        cell.metadata.clear()
        del cell["id"]
    copy.metadata = {"colab": {"provenance": []}, "kernelspec": {"name": kernel, "display_name": "Python 3"}}
    copy.nbformat_minor = 0
    copy.cells.append(new_code_cell(LOADED))
    del copy.cells[-1]["id"]
    session = tmp_path / "content"
    session.mkdir()
    NotebookClient(copy, timeout=300, resources={"metadata": {"path": str(session)}}).execute()

    shown = [out for cell in copy.cells if cell.cell_type == "code" for out in cell.outputs]
    rubrics = [
        out.data["text/plain"]
        for out in shown
        if "visible points" in out.get("data", {}).get("text/plain", "")
    ]
    assert len(rubrics) == len(answers)
    for rubric in rubrics:
        assert "passed" in rubric
        assert "Not recorded: this notebook is not in a work folder" in rubric
    assert {*json.loads(shown[-1].text)} - {"moe-course"} <= IN_COLAB

    handed_in = tmp_path / "submitted" / "ada" / NOTEBOOK / f"{NOTEBOOK}.ipynb"
    handed_in.parent.mkdir(parents=True)
    nbformat.write(copy, handed_in)
    (record,) = grade(tmp_path / "submitted", tmp_path / "out", unsafe=sandbox.problem() is not None)
    assert (record["status"], record["score"]) == ("graded", record["max_score"])
    assert record["score"] == sum(points(name) for name in answers)


def test_the_first_cell_installs_from_the_repository_that_is_named(tmp_path):
    write(tmp_path / "notebooks" / "00_a" / "00_a.ipynb", text("title"))
    said = colab.write(tmp_path / "notebooks", tmp_path / "copies", "https://example.org/moe")
    assert "is ready" in said
    first, title = nbformat.read(tmp_path / "copies" / "00_a" / "00_a.ipynb", as_version=4).cells
    assert '%pip install --quiet --no-deps "git+https://example.org/moe"' in first.source
    assert title.id == "title"
    with pytest.raises(ValueError, match="is not empty"):
        colab.write(tmp_path / "notebooks", tmp_path / "copies", "https://example.org/moe")


@pytest.mark.parametrize(
    ("repository", "package"),
    [
        ("https://example.org/moe.git", "git+https://example.org/moe.git"),
        ("git+ssh://git@example.org/moe@v1", "git+ssh://git@example.org/moe@v1"),
        ("https://example.org/moe-1.0.0-py3-none-any.whl", "https://example.org/moe-1.0.0-py3-none-any.whl"),
        ("dist/moe.whl", "dist/moe.whl"),
    ],
)
def test_what_pip_is_told(repository, package):
    assert colab.package(repository) == package


@pytest.mark.parametrize("repository", ["", "a b", 'x"; import os', "https://example.org/{user}"])
def test_a_repository_that_is_none_is_refused(repository):
    with pytest.raises(ValueError, match="neither the URL of a repository nor the path of a wheel"):
        colab.package(repository)


def test_no_repository_is_invented(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(colab.metadata, "metadata", lambda name: Message())
    assert main(["colab", str(tmp_path / "copies")]) == 2
    assert "--repository" in capsys.readouterr().err
    assert not (tmp_path / "copies").exists()
    named = Message()
    named["Project-URL"] = "Repository, https://example.org/moe"
    monkeypatch.setattr(colab.metadata, "metadata", lambda name: named)
    assert main(["colab", str(tmp_path / "copies")]) == 0
