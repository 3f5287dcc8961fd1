"""The learner's copy: handed out, brought up to date, reset and accounted for, and never overwritten."""

import json
import os

import nbformat
import pytest
from synthetic import answer, check, text, write

from moe_course.grading.exercises.registry import EXERCISES
from moe_course.lesson import workspace
from moe_course.lesson.handing_out import start
from moe_course.lesson.workspace import record, reset, source_hash, status

NAME, NOTEBOOK = "top_k_gate", "02_topk_routing"
MINE = "def top_k_gate(probs_TE, k):\n    return probs_TE.topk(k)"


def stub(name=NAME, signature="probs_TE, k"):
    cell = answer(name)
    cell.source = f"def {name}({signature}):\n    raise NotImplementedError  # your code here"
    return cell


def publish(root, words="Words.", **kwargs):
    """Make a release of one notebook and one file of data; returns the folder of notebooks."""
    cells = (text("title", "# Routing"), text("why", words), stub(**kwargs), check(NAME, 8))
    write(root / "notebooks" / NOTEBOOK / f"{NOTEBOOK}.ipynb", *cells)
    (root / "notebooks" / NOTEBOOK / "tokens.txt").write_text("a b c")
    return root / "notebooks"


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


@pytest.fixture
def mine(tmp_path, work):
    """The learner's file, fresh from `start`."""
    start(publish(tmp_path), work)
    return work / NOTEBOOK / f"{NOTEBOOK}.ipynb"


def edit(path, **sources):
    """Change cells of a notebook file as a learner would, by id."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = sources.get(cell.id, cell.source)
    nbformat.write(notebook, path)


def sources(path):
    return {cell.id: cell.source for cell in nbformat.read(path, as_version=4).cells}


def test_start_hands_out_the_release_once(tmp_path, work, mine):
    released = publish(tmp_path)
    assert mine.read_bytes() == (released / NOTEBOOK / mine.name).read_bytes()
    assert (mine.parent / "tokens.txt").read_text() == "a b c"
    edit(mine, **{NAME: MINE})
    before = mine.read_bytes()
    assert start(released, work) == []
    assert mine.read_bytes() == before


def test_start_brings_the_answer_to_a_new_release_and_keeps_the_old_file(tmp_path, work, mine):
    edit(mine, **{NAME: MINE})
    before = mine.read_bytes()
    messages = start(publish(tmp_path, words="Better words."), work)
    assert sources(mine)["why"] == "Better words."
    assert sources(mine)[NAME] == MINE
    (kept,) = mine.parent.glob(f"{NOTEBOOK}.before-*.ipynb")
    assert kept.read_bytes() == before
    assert "1 answer(s)" in messages[0]
    assert kept.name in messages[1]
    assert "Reload Notebook from Disk" in messages[-1]

    start(publish(tmp_path, words="Still better."), work)  # a second update on the same day
    assert len(list(mine.parent.glob(f"{NOTEBOOK}.before-*.ipynb"))) == 2
    assert sources(mine)[NAME] == MINE


def test_start_says_when_an_answered_exercise_changed(tmp_path, work, mine):
    edit(mine, **{NAME: MINE})
    messages = start(publish(tmp_path, signature="probs_TE, k, renormalize=True"), work)
    assert sources(mine)[NAME] == MINE
    assert any("moe-course reset top_k_gate" in message for message in messages)


@pytest.mark.parametrize("damage", ["not json", "[]", '{"cells": [{}]}', b"\xff\xfe"])
def test_a_damaged_file_is_left_alone(tmp_path, work, mine, damage):
    mine.write_bytes(damage.encode() if isinstance(damage, str) else damage)
    before = mine.read_bytes()
    (message,) = start(publish(tmp_path, words="Better words."), work)
    assert mine.read_bytes() == before
    assert str(mine) in message
    assert "left alone" in message
    assert list(mine.parent.glob("*before*")) == []
    with pytest.raises(ValueError, match="not a readable notebook"):
        reset(NAME, work)
    assert mine.read_bytes() == before
    assert "notebook unreadable" in status(work)


def test_a_file_of_unknown_origin_is_kept(tmp_path, work, mine):
    edit(mine, **{NAME: MINE})
    (work / ".moe-course" / "base" / mine.name).unlink()
    before = mine.read_bytes()
    (message,) = start(publish(tmp_path, words="Better words."), work)
    assert "kept as it is" in message
    assert mine.read_bytes() == before


def test_a_deleted_notebook_is_handed_out_again(tmp_path, work, mine):
    mine.unlink()
    assert start(publish(tmp_path, words="Better words."), work) == [f"{mine}: ready"]
    assert sources(mine)["why"] == "Better words."


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_update_cut_off_anywhere_is_finished_by_the_next(tmp_path, work, mine, monkeypatch, after):
    edit(mine, **{NAME: MINE})
    released = publish(tmp_path, words="Better words.")
    replaced = []

    def replace(source, target):
        if len(replaced) + 1 == after:
            raise KeyboardInterrupt
        replaced.append(target)
        os.rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(workspace.os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            start(released, work)
    assert sources(mine)[NAME] == MINE
    start(released, work)
    assert sources(mine)[NAME] == MINE
    assert sources(mine)["why"] == "Better words."
    assert start(released, work) == []


def test_reset_restores_the_stub_and_keeps_the_code(work, mine):
    edit(mine, **{NAME: MINE, "why": "My words."})
    before = mine.read_bytes()
    messages = reset(NAME, work)
    assert sources(mine)[NAME] == stub().source
    assert sources(mine)["why"] == "My words."
    backups = work / ".moe-course" / "backups"
    (code,) = backups.glob(f"{NAME}-*.py")
    assert code.read_text() == MINE + "\n"
    (whole,) = backups.glob(f"{NOTEBOOK}-*.ipynb")
    assert whole.read_bytes() == before
    assert str(code) in messages[0]
    assert "Reload Notebook from Disk" in messages[1]


def test_reset_brings_a_deleted_cell_back(work, mine):
    notebook = nbformat.read(mine, as_version=4)
    del notebook.cells[2:]
    nbformat.write(notebook, mine)
    reset(NAME, work)
    assert list(sources(mine)) == ["title", "why", NAME, f"check_{NAME}"]


def test_reset_knows_its_exercises_and_needs_a_workspace(work, mine):
    with pytest.raises(ValueError, match="no exercise called 'topk'"):
        reset("topk", work)
    with pytest.raises(ValueError, match="moe-course start"):
        reset("swiglu_ffn", work)


def line(work, name=NAME):
    return next(row for row in status(work).splitlines() if f" {name} " in row)


@pytest.fixture
def checked(work, mine, monkeypatch):
    """What a live check leaves behind, in the learner's workspace."""
    monkeypatch.chdir(work / NOTEBOOK)

    def checked(status, score, source=MINE):
        verdict = {"exercise": NAME, "status": status, "score": score, "max_score": 8.0, "checks": []}
        record(verdict, {NAME: source})

    return checked


def test_status_follows_an_exercise_from_open_to_passed(work, mine, checked):
    assert "open" in line(work)
    edit(mine, **{NAME: MINE})
    assert "written, not checked yet" in line(work)
    checked("failed", 3.0)
    assert "failed" in line(work)
    assert line(work).endswith("3 of 8")
    checked("passed", 8.0)
    assert "✓" in line(work)
    assert line(work).endswith("8 of 8")
    edit(mine, **{NAME: MINE + "  # a comment changes nothing"})
    assert "✓" in line(work)
    edit(mine, **{NAME: MINE.replace("topk(k)", "topk(k, dim=1)")})
    assert "changed since it passed" in line(work)
    reset(NAME, work)
    assert "open" in line(work)


def test_status_names_what_comes_next(work, mine, checked):
    first = next(iter(EXERCISES.values()))
    assert status(work).splitlines()[-1].startswith(f"Next: {first.number} {first.name} in ")
    assert "no notebook yet" in line(work, "swiglu_ffn")
    said = status(work)
    assert "0 of 7 passed" in said
    assert all(f" {each.name} " in said for each in EXERCISES.values())


def test_a_check_that_cannot_be_recorded_is_no_error(work, mine, checked):
    (work / ".moe-course" / "progress.json").mkdir()
    checked("passed", 8.0)


def test_nothing_is_recorded_outside_a_work_folder(tmp_path, work, checked, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checked("passed", 8.0)
    assert list(tmp_path.rglob("progress.json")) == []


def test_nothing_is_recorded_while_nbgrader_runs_the_notebook(work, mine, checked, monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    checked("passed", 8.0)
    assert not (work / ".moe-course" / "progress.json").exists()


def test_the_record_has_its_documented_format(work, mine, checked):
    checked("passed", 8.0)
    (entry,) = json.loads((work / ".moe-course" / "progress.json").read_text()).values()
    assert entry.pop("when")
    passed = entry.pop("passed")
    assert passed.pop("when")
    assert (
        entry
        == passed
        == {
            "status": "passed",
            "score": 8.0,
            "max_score": 8.0,
            "source_hash": source_hash({NAME: MINE}),
        }
    )


def test_the_hash_sees_code_and_nothing_else():
    same = "def top_k_gate(probs_TE, k):\n    '''Doc.'''\n    return probs_TE.topk( k )  # why"
    assert source_hash({NAME: MINE}) == source_hash({NAME: same})
    assert source_hash({NAME: MINE}) != source_hash({NAME: MINE.replace("k)", "2)")})
    assert source_hash({NAME: "def top_k_gate(:"}) != source_hash({NAME: "def top_k_gate(::"})


def test_a_copy_with_the_stub_costs_no_pass(work, mine, checked):
    edit(mine, **{NAME: MINE})
    checked("passed", 8.0)
    for outcome in ("not attempted", "failed", "interrupted"):
        checked(outcome, 0.0, stub().source)
        assert "✓" in line(work), outcome
        assert line(work).endswith("8 of 8")
    checked("failed", 3.0)  # this very code, say with another helper
    assert "failed" in line(work)
    checked("passed", 8.0)
    reset(NAME, work)
    assert "~" in line(work)
    assert "open again, passed before" in line(work)


def test_points_that_grading_decides_are_no_lost_points(work, mine, checked):
    edit(mine, **{NAME: MINE})
    workspace.record_file(
        mine, {"exercise": NAME, "status": "passed", "score": 6.0, "max_score": 8.0, "undecided": 2.0}
    )
    assert line(work).endswith("6 of 6, 2 at grading")


def test_records_of_an_earlier_version_of_the_course_still_count(work, mine, checked):
    edit(mine, **{NAME: MINE})
    entry = {"status": "passed", "score": 8.0, "max_score": 8.0, "source_hash": source_hash({NAME: MINE})}
    (work / ".moe-course" / "progress.json").write_text(json.dumps({NAME: entry}))
    assert "✓" in line(work)
    checked("not attempted", 0.0, stub().source)
    assert "✓" in line(work)


def test_a_check_of_the_file_is_recorded_in_its_work_folder(tmp_path, work, mine, monkeypatch):
    edit(mine, **{NAME: MINE})
    monkeypatch.chdir(tmp_path)
    verdict = {"exercise": NAME, "status": "passed", "score": 8.0, "max_score": 8.0}
    workspace.record_file(mine, verdict)
    assert "✓" in line(work)
    outside = tmp_path / "elsewhere.ipynb"
    outside.write_bytes(mine.read_bytes())
    workspace.record_file(outside, verdict)
    assert len(list(tmp_path.rglob("progress.json"))) == 1


def test_it_is_said_where_nothing_is_recorded(tmp_path, work, mine, checked, monkeypatch):
    verdict = {"exercise": NAME, "status": "passed", "score": 8.0, "max_score": 8.0}
    assert record(verdict, {NAME: MINE}) == ""
    monkeypatch.chdir(tmp_path)
    assert "not in a work folder" in record(verdict, {NAME: MINE})
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    assert record(verdict, {NAME: MINE}) == ""


def test_an_exercise_may_be_called_by_its_number(work, mine):
    edit(mine, **{NAME: MINE})
    reset("2.2", work)
    assert sources(mine)[NAME] == stub().source
    with pytest.raises(ValueError, match=r"no exercise called '2\.22'"):
        reset("2.22", work)
