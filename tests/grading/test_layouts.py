"""Who is who: each learner exactly once under the right name, or a line that says why not."""

import os
import unicodedata
import zipfile
from pathlib import Path

import pytest

from moe_course.grading.submission.collection import submissions

DENSE, ROUTING = "01_dense_ffn", "02_topk_routing"
NOTEBOOK = b'{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'
METADATA = """\
---
submission_345:
  :submitters:
  - :name: Jane Doe
    :sid: '1001'
    :email: jane@example.org
  - :name: Roe Lee
    :sid:
    :email: roe@example.org
  :created_at: 2026-11-29 10:00:00 Z
  :score: 1.0
  :results:
    tests:
    - :name: not a person
      :sid: '9'
submission_346:
  :submitters:
  - :name: Ann O'Neil
    :sid: '1003'
    :email: ann@example.org
"""


def lay(root, files):
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        elif name.endswith(".yml"):
            path.write_text(METADATA)
        else:
            path.write_bytes(NOTEBOOK)
    return root


def zipped(root, files, name="download.zip"):
    with zipfile.ZipFile(root / name, "w") as archive:
        for file in files:
            archive.writestr(
                file, METADATA if file.endswith(".yml") else b"" if file.endswith("/") else NOTEBOOK
            )
    return root / name


def outline(handed):
    """{learner: "" or the reason}, after a look that nobody is there twice."""
    assert len({(one.student, one.assignment) for one in handed}) == len(handed)
    return {one.student: one.problem for one in handed}


LAYOUTS = {
    "one folder around folders": (["hw1/jdoe/a.ipynb", "hw1/roe/b.ipynb"], {"jdoe", "roe"}),
    "one folder around nbgrader": (
        [f"hw1/jdoe/{DENSE}/x.ipynb", f"hw1/roe/{DENSE}/y.ipynb"],
        {"jdoe", "roe"},
    ),
    "one folder around one learner": ([f"hw1/jdoe/{DENSE}/x.ipynb"], {"jdoe"}),
    "two folders around": (["term/hw1/jdoe/a.ipynb", "term/hw1/roe/b.ipynb"], {"jdoe", "roe"}),
    "the assignment's folder around": ([f"{DENSE}/jdoe/a.ipynb", f"{DENSE}/roe/b.ipynb"], {"jdoe", "roe"}),
    "submitted/": ([f"submitted/jdoe/{DENSE}/{DENSE}.ipynb", "submitted/jdoe/notes.txt"], {"jdoe"}),
    "around, beside a roster": (["roster.csv", "hw1/jdoe/a.ipynb", "hw1/roe/b.ipynb"], {"jdoe", "roe"}),
    "ILIAS": (
        [
            f"multi_feedback_Sheet_1_77/Doe_Jane_jdoe_1001/{DENSE}.ipynb",
            "multi_feedback_Sheet_1_77/Lee_Roe_r_2/b.py",
        ],
        {"Doe_Jane_jdoe_1001", "Lee_Roe_r_2"},
    ),
    "ILIAS, one learner": (["Sheet 1/Doe_Jane_jdoe_1001/hw.ipynb"], {"Doe_Jane_jdoe_1001"}),
    "Gradescope": (
        [
            "assignment_12_export/submission_metadata.yml",
            "assignment_12_export/submission_345/hw.ipynb",
            "assignment_12_export/submission_346/hw.ipynb",
            "assignment_12_export/submission_347/hw.ipynb",
        ],
        {"1001", "roe@example.org", "1003", "submission_347"},
    ),
    "Canvas": (
        [
            f"doejane_1001_5001_{DENSE}.ipynb",
            "doejane_1001_5002_report.pdf",
            f"roelee_LATE_1002_5003_{DENSE}-1.ipynb",
            "roelee_LATE_1002_5004_data_2.csv",
        ],
        {"doejane_1001", "roelee_1002"},
    ),
    "Moodle": (
        [
            f"Jane Doe_123_assignsubmission_file_/{DENSE}.ipynb",
            "Jane Doe_123_assignsubmission_onlinetext_/onlinetext.html",
            "Roe_Lee_124_assignsubmission_file/my work/hw.ipynb",
        ],
        {"Jane Doe_123", "Roe_Lee_124"},
    ),
    "Moodle without folders": (
        [
            f"Jane Doe_123_assignsubmission_file_{DENSE}.ipynb",
            "Jane Doe_123_assignsubmission_onlinetext_onlinetext.html",
            "Jane Doe_123_assignsubmission_file_figure.png",
            "Roe Lee_124_assignsubmission_file_my_hw_2.ipynb",
        ],
        {"Jane Doe_123", "Roe Lee_124"},
    ),
    "flat, a PDF beside": (["jdoe.ipynb", "jdoe.pdf", "roe.py", ".hidden"], {"jdoe", "roe"}),
    "assignments of the instructor's naming": (
        ["jdoe/ps1/a.ipynb", "jdoe/ps1/fig/x.png", "roe/ps1/b.ipynb"],
        {"jdoe", "roe"},
    ),
    "folders of a learner's own": (
        [
            f"jdoe/src/{DENSE}.ipynb",
            "jdoe/data/x.csv",
            "jdoe/img/",
            f"roe/{DENSE}.ipynb",
            "roe/lib/helper.py",
        ],
        {"jdoe", "roe"},
    ),
    "dot-named folders": (
        [f".jdoe/{DENSE}/x.ipynb", f"roe/{DENSE}/x.ipynb", ".git/config", ".git/hook.py"],
        {".jdoe", "roe"},
    ),
    "what programs leave": (
        [
            "hw1/jdoe/a.ipynb",
            "hw1/jdoe/.ipynb_checkpoints/a-checkpoint.ipynb",
            "hw1/roe/b.ipynb",
            "hw1/roe/._b.ipynb",
            "__MACOSX/hw1/jdoe/._a.ipynb",
            "hw1/.DS_Store",
        ],
        {"jdoe", "roe"},
    ),
}


@pytest.mark.parametrize("inside", ["folder", "zip"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_learner_exactly_once(tmp_path, layout, inside):
    files, learners = LAYOUTS[layout]
    found = submissions(lay(tmp_path / "in", files) if inside == "folder" else zipped(tmp_path, files))
    assert outline(found) == dict.fromkeys(learners, "")
    assert all(one.fetch() == NOTEBOOK for one in found)


@pytest.mark.parametrize("assignment", [None, DENSE])
def test_attachments_belong_to_one_learner(tmp_path, assignment):
    """The platform's number tells whose a file is, and the learner's own name of the file what it answers."""
    files, _ = LAYOUTS["Canvas"]
    jane, roe = submissions(zipped(tmp_path, files), assignment)
    assert (jane.lms_id, jane.assignment, jane.name) == ("1001", DENSE, f"doejane_1001_5001_{DENSE}.ipynb")
    assert (roe.lms_id, roe.assignment) == ("1002", DENSE)


def test_of_two_versions_in_canvas_the_later_one_counts_and_this_is_told(tmp_path):
    files = [f"doe_1_{nth}_{DENSE}{again}.ipynb" for nth, again in ((99, ""), (1012, "-2"), (1011, "-1"))]
    (jane,) = submissions(lay(tmp_path / "in", files))
    assert jane.name == f"doe_1_1012_{DENSE}-2.ipynb"
    assert "3 versions" in jane.notes[0]


def test_a_team_is_told_and_its_number_is_no_participants(tmp_path):
    files = ["Team Blue_57_assignsubmission_file_/x.ipynb", "Default group_assignsubmission_file_/y.ipynb",
             "Jane Doe_58_assignsubmission_file_/z.ipynb"]  # fmt: skip
    found = {one.student: one for one in submissions(lay(tmp_path / "in", files))}
    assert {name: one.lms_id for name, one in found.items()} == {
        "Team Blue_57": "",
        "Default group": "",
        "Jane Doe_58": "58",
    }
    assert "team" in found["Team Blue_57"].notes[0]


REASONS = {
    "only a copy": (
        [f"jdoe/{DENSE}/.ipynb_checkpoints/x-checkpoint.ipynb"],
        "jdoe",
        "copy that Jupyter makes",
    ),
    "only a copy, beside another assignment": (
        [f"jdoe/{ROUTING}/x.ipynb", f"jdoe/{DENSE}/.ipynb_checkpoints/x.ipynb"],
        "jdoe",
        "copy that Jupyter makes",
    ),
    "an empty folder": ([f"jdoe/{DENSE}/"], "jdoe", "nothing was handed in"),
    "a folder of rubbish": ([f"jdoe/{DENSE}/.DS_Store"], "jdoe", "nothing was handed in"),
    "online text only": (
        ["Jane Doe_5_assignsubmission_onlinetext_/onlinetext.html"],
        "Jane Doe_5",
        "only online",
    ),
    "a PDF in Canvas": (["doejane_1001_5001_report.pdf"], "doejane_1001", "only report.pdf"),
    "two candidates": ([f"jdoe/{DENSE}/a.ipynb", f"jdoe/{DENSE}/b.ipynb"], "jdoe", "leave one"),
    "two notebooks of the course": (
        [f"doe_1_2_{DENSE}.ipynb", f"doe_1_3_{ROUTING}.ipynb"],
        "doe_1",
        "leave one",
    ),
    "called after a notebook": ([f"{DENSE}.ipynb"], DENSE, "not after a learner"),
}


@pytest.mark.parametrize("inside", ["folder", "zip"])
@pytest.mark.parametrize("layout", REASONS)
def test_or_a_line_that_says_why(tmp_path, layout, inside):
    files, learner, reason = REASONS[layout]
    files = [*files, f"roe/{DENSE}/x.ipynb"]
    found = submissions(lay(tmp_path / "in", files) if inside == "folder" else zipped(tmp_path, files))
    assert set(outline(found)) >= {learner, "roe"} if len(found) == 2 else True
    (problem,) = [one.problem for one in found if one.student == learner and one.problem]
    assert reason in problem


@pytest.mark.parametrize(
    "files",
    [
        ["hw1/jdoe/x.ipynb"],
        ["jdoe/lib/x.py", "jdoe/x.ipynb"],
        ["a/b/c/x.ipynb"],
        ["hw1/jdoe/x.ipynb", "hw1/roe/"],
    ],
)
def test_where_a_folder_may_be_a_learners_or_not_nothing_is_guessed(tmp_path, files):
    with pytest.raises(ValueError, match=r"is '\w+' a learner"):
        submissions(lay(tmp_path / "in", files))


def test_in_a_zip_one_folder_of_files_is_not_guessed(tmp_path):
    with pytest.raises(ValueError, match="is 'hw1' a learner, or are the files in it called after learners"):
        submissions(zipped(tmp_path, ["hw1/ada.ipynb"]))
    assert set(outline(submissions(zipped(tmp_path, ["x/ada.ipynb", "x/bob.ipynb"])))) == {"ada", "bob"}
    assert set(outline(submissions(zipped(tmp_path, ["hw1/ada.ipynb"], "hw1.zip")))) == {"ada"}
    assert set(outline(submissions(zipped(tmp_path, [f"ada/{DENSE}.ipynb"])))) == {"ada"}


def test_one_name_written_in_two_ways_is_one_learner(tmp_path):
    """macOS takes accents apart (NFD): é is then e and an accent."""
    ways = [unicodedata.normalize(form, f"Zoé/{DENSE}/x.ipynb") for form in ("NFC", "NFD")]
    (alone,) = submissions(lay(tmp_path / "apart", ways[1:]))
    assert (alone.student, alone.problem) == ("Zoé", "")
    (both,) = submissions(lay(tmp_path / "both", ways))
    assert both.student == "Zoé"
    assert "leave one" in both.problem


def test_accents_in_a_zip_that_does_not_say_its_names_are_utf_8(tmp_path):
    name = f"Zoé/{DENSE}/x.ipynb"
    path = zipped(tmp_path, [name.replace("é", "??")])
    path.write_bytes(path.read_bytes().replace(b"??", "é".encode()))
    assert [one.student for one in submissions(path)] == ["Zoé"]


def test_a_folder_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    submitted = lay(tmp_path / "in", [f"{name}/{DENSE}/x.ipynb" for name in ("ada", "bob", "eve")])
    usual = os.scandir

    def scandir(path):
        if Path(path) in (submitted / "bob", submitted / "eve" / DENSE):
            raise PermissionError(13, "Permission denied", str(path))
        return usual(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = outline(submissions(submitted))
    assert found["ada"] == ""
    assert "cannot be read (Permission denied)" in found["bob"]
    assert "cannot be read (Permission denied)" in found["eve"]
    monkeypatch.setattr(
        os, "scandir", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied", str(path)))
    )
    with pytest.raises(ValueError, match=r"in: the folder cannot be read \(Permission denied\)"):
        submissions(submitted)
