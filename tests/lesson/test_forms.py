"""A work folder of scripts: the same cells, the same verdicts, the same updates, and back to notebooks."""

import json
import subprocess
import sys

import nbformat
import pytest
from stock_nbgrader import notebook_file
from synthetic import ROOT, answer, check, text, write

from moe_course.command import launch
from moe_course.grading.exercises import locate
from moe_course.grading.exercises.registry import NOTEBOOKS
from moe_course.grading.judge.files import check_file
from moe_course.lesson import forms, news, workspace
from moe_course.lesson.handing_out import start

NAME, NOTEBOOK = "ffn_params", "01_dense_ffn"
STUB = "def ffn_params(d_model, d_ff):\n    raise NotImplementedError  # your code here"
MINE = "def ffn_params(d_model, d_ff):\n    return 3 * d_model * d_ff"


def publish(root, words="Words."):
    stub = answer(NAME)
    stub.source = STUB
    cells = (text("title", "# Counting"), text("why", words), stub, check(NAME, 7), text("end", "The end."))
    write(root / "notebooks" / NOTEBOOK / f"{NOTEBOOK}.ipynb", *cells)
    return root / "notebooks"


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "work"
    start(publish(tmp_path), folder, scripts=True)
    return folder


@pytest.fixture
def script(work):
    return work / NOTEBOOK / f"{NOTEBOOK}.py"


def solve(path):
    path.write_text(path.read_text(encoding="utf-8").replace(STUB, MINE), encoding="utf-8")


def cells(path):
    return [(cell.cell_type, cell.source) for cell in forms.read_notebook(path).cells]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_script_holds_the_cells_of_its_notebook_and_nothing_else(tmp_path, name):
    released = forms.read_notebook(locate.released(name))
    forms.write_notebook(tmp_path / f"{name}.py", released)
    assert cells(tmp_path / f"{name}.py") == [
        (cell.cell_type, cell.source.strip("\n")) for cell in released.cells
    ]
    assert "nbgrader" not in (tmp_path / f"{name}.py").read_text(encoding="utf-8")
    assert "jupytext" not in released.metadata


def test_a_script_gets_the_verdict_of_the_notebook(tmp_path):
    solved = forms.read_notebook(notebook_file(ROOT / "solutions"))
    wrong = next(cell for cell in solved.cells if cell.get("id") == NAME)
    wrong.source = MINE.replace("3 *", "2 *")
    told = []
    for ending in (".py", ".ipynb"):
        forms.write_notebook(tmp_path / f"{NOTEBOOK}{ending}", solved)
        _, (verdict,) = check_file(tmp_path / f"{NOTEBOOK}{ending}", NAME, seed=7)
        told.append((verdict.status, verdict.score, verdict.diagnosis.name))
    assert told[0] == told[1]
    assert told[0][0] == "failed"


def test_a_work_folder_of_scripts(work, script):
    assert sorted(path.name for path in script.parent.iterdir()) == [script.name]
    assert cells(script)[2:4] == [("code", STUB), ("code", f"check({NAME})")]
    rows = [line.split() for line in workspace.status(work).splitlines()]
    assert ["·", "1.2", NAME, "open"] in rows
    solve(script)
    assert "written, not checked yet" in workspace.status(work)
    verdict = {"exercise": NAME, "status": "passed", "score": 7.0, "max_score": 7.0}
    workspace.record_file(script, verdict)
    assert "✓ 1.2" in workspace.status(work)
    (said, _) = workspace.reset(NAME, work)
    assert "is the stub again" in said
    assert cells(script)[2] == ("code", STUB)
    assert MINE in "".join(
        path.read_text(encoding="utf-8") for path in (work / ".moe-course" / "backups").glob("*.py")
    )


def test_an_update_keeps_what_was_written_in_a_script(tmp_path, work, script):
    solve(script)
    written = script.read_text(encoding="utf-8") + "\n# %%\nffn_params(2, 3)\n"
    script.write_text(written, encoding="utf-8")
    assert start(publish(tmp_path), work) == []
    said = start(publish(tmp_path, words="Better words."), work)
    assert "1 answer(s) and 1 cell(s) of yours" in said[0]
    assert ("markdown", "Better words.") in cells(script)
    assert ("code", MINE) in cells(script)
    assert cells(script)[-1] == ("code", "ffn_params(2, 3)")
    (kept,) = script.parent.glob("*.before-*.py")
    assert kept.read_text(encoding="utf-8") == written


def test_a_script_without_cells_is_left_alone(tmp_path, work, script):
    script.write_text(MINE, encoding="utf-8")
    said = start(publish(tmp_path, words="Better words."), work)
    assert "no line starts with # %%" in said[0]
    assert script.read_text(encoding="utf-8") == MINE
    with pytest.raises(ValueError, match=r"01_dense_ffn\.py: not a readable script"):
        start(publish(tmp_path), work, scripts=False)
    assert forms.uses_scripts(work)


def test_there_and_back_again(tmp_path, work, script):
    """Each turn takes the answers along, and the files of the other form stay."""
    solve(script)
    said = start(publish(tmp_path), work, scripts=False)
    notebook = script.with_suffix(".ipynb")
    assert said == [f"{notebook}: made from {script.name}, which stays, and no longer counts"]
    made = nbformat.read(notebook, as_version=4)
    assert made.cells[2].source == MINE
    assert made.cells[2].metadata.nbgrader.grade_id == NAME
    assert "written, not checked yet" in workspace.status(work)

    made.cells[2].source = MINE.replace("3 * d_model", "d_model * 3")
    nbformat.write(made, notebook)
    old = script.read_bytes()
    start(publish(tmp_path), work, scripts=True)
    assert "d_model * 3" in script.read_text(encoding="utf-8")
    (kept,) = script.parent.glob("*.before-*.py")
    assert kept.read_bytes() == old
    assert start(publish(tmp_path), work, scripts=True) == []


def test_jupyterlab_opens_the_script(work, capsys):
    assert launch.next_notebook(work) == "00_start_here/00_start_here.py"
    solve(work / NOTEBOOK / f"{NOTEBOOK}.py")
    (work / "00_start_here").mkdir()
    (work / "00_start_here" / "00_start_here.py").write_text("# %%\n", encoding="utf-8")
    assert launch.next_notebook(work) == "00_start_here/00_start_here.py"
    assert "Next: 0.1" in capsys.readouterr().out


def test_a_check_in_a_script_prints_its_rubric_and_is_recorded(work, script):
    """As `python FILE` runs it; VS Code's interactive window sends the cells to a kernel, which notebooks do, too."""
    solve(script)
    begin = "# %%\nfrom moe_course.lesson import check\n\n"
    script.write_text(begin + script.read_text(encoding="utf-8"), encoding="utf-8")
    said = subprocess.run([sys.executable, script.name], cwd=script.parent, capture_output=True, text=True)
    assert "1.2 ffn_params: passed" in said.stdout, said.stderr
    assert "✓ 1.2" in workspace.status(work)


# ------------------------------------------------------------------------------------------ a newer version


def test_a_running_class_is_told_what_changed(tmp_path, monkeypatch):
    log = tmp_path / "CHANGELOG.md"
    monkeypatch.setattr(news, "changelog", lambda: log)
    old = "## [1.0.0] - 2026-01-01\n\n### Added\n\n- Learners: old.\n"
    log.write_text(old, encoding="utf-8")
    work = tmp_path / "work"
    assert "ready" in start(publish(tmp_path), work)[0]
    assert json.loads((work / ".moe-course" / "made.json").read_text(encoding="utf-8")) == {
        "version": "1.0.0"
    }

    new = (
        "## [1.1.0] - 2026-02-01\n\n### Fixed\n\n- Learners: a sentence\n  of two lines.\n- Something else.\n"
    )
    log.write_text(f"# Changelog\n\n{new}\n{old}", encoding="utf-8")
    write(tmp_path / "notebooks" / "10_serving" / "10_serving.ipynb", text("title", "# Serving"))
    said = start(publish(tmp_path, words="Better words."), work)
    assert said[-4:] == [
        "This is version 1.1.0 of the course; your folder was made with 1.0.0.",
        f"  changed: {NOTEBOOK}",
        "  new: 10_serving",
        "  a sentence of two lines.",
    ]
    assert start(publish(tmp_path, words="Better words."), work) == []

    (work / ".moe-course" / "made.json").unlink()  # as before versions were written down
    assert start(publish(tmp_path, words="Better words."), work) == [
        "This is version 1.1.0 of the course; your folder was made with 0.1.0."
    ]


def test_the_changelog_has_news_for_learners_of_the_first_version():
    assert news.UNRECORDED in news.versions()
    told = news.since(news.UNRECORDED)
    assert any(line.startswith("notebook 09 ") for line in told)
    assert news.since(news.newest()) == news.since("0.0.1") == []
