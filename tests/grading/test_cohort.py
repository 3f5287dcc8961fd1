"""A cohort: who handed in what, graded once each whatever happens, and never a silent zero."""

import contextlib
import gc
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import weakref
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from moe_course.grading.cohort.grade_cohort import Change, Conditions, grade, regrade_diff, run
from moe_course.grading.cohort.ledger import Ledger
from moe_course.grading.cohort.pools import pool
from moe_course.grading.exercises.rubric import points
from moe_course.grading.judge.verdict import without_running
from moe_course.grading.submission import intake
from moe_course.grading.submission.collection import submissions
from moe_course.grading.submission.received import MAX_BYTES
from moe_course.grading.worker import sandbox

ASSIGNMENT = "01_dense_ffn"
FULL = points("ffn_params")
RIGHT = "def ffn_params(d_model, d_ff):\n    return 3 * d_model * d_ff\n"
WRONG = "def ffn_params(d_model, d_ff):\n    return 2 * d_model * d_ff\n"


def fake(submission, names, seed, limits):
    """A grader without a worker: full marks for the right text of the one exercise that these tests answer."""
    time.sleep(float(os.environ.get("FAKE_SECONDS", 0)))
    verdicts = [without_running(name, "failed") for name in names]
    right = {"ffn_params"} if RIGHT.strip() in "".join(submission.cells) else set()
    return [replace(v, status="passed", score=v.max_score) if v.exercise in right else v for v in verdicts]


def notebook(*sources):
    cells = [{"cell_type": "code", "source": s, "metadata": {}, "outputs": []} for s in sources]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def lay(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


@pytest.fixture
def cohort(tmp_path):
    """Three students in nbgrader's layout: right, wrong, unreadable."""
    texts = {"ada": notebook(RIGHT), "bob": notebook(WRONG), "eve": '{"cells": [{"cell_type"'}
    files = {f"{student}/{ASSIGNMENT}/{ASSIGNMENT}.ipynb": text for student, text in texts.items()}
    return lay(tmp_path / "submitted", files)


def outline(records):
    return {(r["student"], r["assignment"]): (r["status"], r["score"]) for r in records}


def graded_lines(out):
    return [(line["student"], line["assignment"]) for line in Ledger(out).log.records()]


LAYOUTS = {
    "nbgrader": ({f"ada/{ASSIGNMENT}/hw.ipynb": RIGHT, f"ada/{ASSIGNMENT}/data.csv": "1"}, "ada", ""),
    "flat": ({"ada.ipynb": RIGHT}, "ada", ""),
    "canvas": ({"lovelaceada_LATE_417_9921_hw-1.ipynb": RIGHT}, "lovelaceada_417", "417"),
    "moodle": ({"Ada Lovelace_88_assignsubmission_file_/hw.ipynb": RIGHT}, "Ada Lovelace_88", "88"),
    "folders": ({"ada/hw.py": RIGHT}, "ada", ""),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout, zipped):
    files, student, lms_id = LAYOUTS[layout]
    files = {name: notebook(text) if name.endswith("ipynb") else text for name, text in files.items()}
    other = {name.replace("ada", "bob").replace("Ada", "Bob"): text for name, text in files.items()}
    submitted = lay(tmp_path / "in", files | other | {".DS_Store": "x", "__MACOSX/y": "x"})
    if zipped:
        with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
            for path in submitted.rglob("*"):
                archive.write(path, path.relative_to(submitted))
        submitted = tmp_path / "in.zip"
    records = grade(submitted, tmp_path / "out", unsafe=True, grader=fake)
    assert len(records) == 2
    mine = next(record for record in records if record["student"] == student)
    assert (mine["lms_id"], mine["assignment"], mine["status"], mine["score"]) == (
        lms_id,
        ASSIGNMENT,
        "graded",
        FULL,
    )


def test_a_zip_with_one_folder_around_everything(tmp_path):
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr(f"submitted/ada/{ASSIGNMENT}/hw.ipynb", notebook(RIGHT))
    assert [(h.student, h.assignment) for h in submissions(tmp_path / "in.zip")] == [("ada", ASSIGNMENT)]


def test_attacks_in_a_zip_are_ungradable_with_a_reason_and_harm_nobody(tmp_path):
    link = zipfile.ZipInfo("link.ipynb")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "in.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../slip.ipynb", notebook(RIGHT))
        archive.writestr("/absolute.ipynb", notebook(RIGHT))
        archive.writestr(link, "/etc/passwd")
        archive.writestr("bomb.ipynb", b"0" * (20 << 20))
        archive.writestr("ada.ipynb", notebook(RIGHT))
    (tmp_path / "here").mkdir()
    records = grade(tmp_path / "in.zip", tmp_path / "here/out", unsafe=True, grader=fake)
    reasons = {record["student"]: record["reason"] for record in records}
    assert "outside itself" in reasons["slip"]
    assert "outside itself" in reasons["absolute"]
    assert "symbolic link" in reasons["link"]
    assert "200 times its size" in reasons["bomb"]
    assert reasons["ada"] == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "in.zip"]


def test_a_folder_with_links_pipes_and_giants(tmp_path):
    secret = lay(tmp_path, {"secret.ipynb": notebook(RIGHT)}) / "secret.ipynb"
    submitted = lay(tmp_path / "in", {"big.ipynb": "", "essay.pdf": "%PDF", "ok.py": RIGHT})
    os.truncate(submitted / "big.ipynb", MAX_BYTES + 1)
    (submitted / "link.ipynb").symlink_to(secret)
    (submitted / "folder").symlink_to(tmp_path)
    (submitted / "empty").mkdir()
    os.mkfifo(submitted / "pipe.ipynb")
    records = {r["student"]: r for r in grade(submitted, tmp_path / "out", unsafe=True, grader=fake)}
    expected = {
        "big": "larger than",
        "essay": "ask for the .ipynb",
        "link": "symbolic link",
        "folder": "symbolic link",
        "empty": "nothing was handed in",
        "pipe": "not an ordinary file",
    }
    assert {name: r["status"] for name, r in records.items()} == dict.fromkeys(expected, "ungradable") | {
        "ok": "graded"
    }
    for name, reason in expected.items():
        assert reason in records[name]["reason"]
        assert records[name]["score"] is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"\xff\xfe", "UTF-8"),
        (b'{"cells": [', "cut off"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "not a notebook"),
        (notebook("x = 1").encode(), "defines no exercise"),
    ],
)
def test_what_cannot_be_graded_says_why(tmp_path, text, reason):
    (record,) = grade(lay(tmp_path / "in", {"ada.ipynb": text}), tmp_path / "out", unsafe=True, grader=fake)
    assert (record["status"], record["score"], record["max_score"]) == ("ungradable", None, None)
    assert reason in record["reason"]
    assert str(tmp_path) not in record["reason"]


def test_one_assignment_of_several(tmp_path):
    other = "02_topk_routing"
    files = {f"ada/{name}/{name}.ipynb": notebook(RIGHT) for name in (ASSIGNMENT, other)}
    submitted = lay(tmp_path / "in", files | {"roster.csv": "ada", "ada/note.txt": "ill in week 2"})
    assert {handed.assignment for handed in submissions(submitted)} == {ASSIGNMENT, other}
    assert [handed.assignment for handed in submissions(submitted, ASSIGNMENT)] == [ASSIGNMENT]
    with pytest.raises(ValueError, match="holds no submission of 03"):
        submissions(submitted, "03")


def test_two_files_of_one_student_wait_for_a_person(tmp_path):
    files = {f"ada/{ASSIGNMENT}/a.ipynb": notebook(RIGHT), f"ada/{ASSIGNMENT}/b.ipynb": notebook(WRONG)}
    files |= {"bob.ipynb": notebook(RIGHT), "bob.py": RIGHT}
    records = grade(lay(tmp_path / "in", files), tmp_path / "out", unsafe=True, grader=fake)
    assert outline(records) == {
        ("ada", ASSIGNMENT): ("ungradable", None),
        ("bob", ASSIGNMENT): ("ungradable", None),
    }
    assert all("leave one" in record["reason"] for record in records)


def test_repairs_are_reported(cohort, tmp_path):
    ada = next(r for r in grade(cohort, tmp_path / "out", unsafe=True, grader=fake) if r["student"] == "ada")
    assert any("swiglu_ffn" in repair and "restored" in repair for repair in ada["repairs"])
    assert ada["score"] == FULL


def test_an_exercise_that_is_not_there_is_not_attempted(tmp_path):
    (ada,) = grade(lay(tmp_path / "in", {"ada.py": RIGHT}), tmp_path / "out", unsafe=True, grader=fake)
    swiglu = next(v for v in ada["verdicts"] if v["exercise"] == "swiglu_ffn")
    assert (swiglu["status"], swiglu["score"]) == ("not attempted", 0)
    assert "does not define it" in swiglu["reason"]
    assert ada["max_score"] == sum(points(verdict["exercise"]) for verdict in ada["verdicts"])


def test_a_second_run_grades_nothing_again_and_a_changed_answer_only(cohort, tmp_path):
    out = tmp_path / "out"
    first = grade(cohort, out, unsafe=True, grader=fake)
    assert grade(cohort, out, resume=True, unsafe=True, grader=fake) == first
    assert len(graded_lines(out)) == 3
    lay(cohort, {f"bob/{ASSIGNMENT}/{ASSIGNMENT}.ipynb": notebook(RIGHT)})
    second = grade(cohort, out, resume=True, unsafe=True, grader=fake)
    assert graded_lines(out)[3:] == [("bob", ASSIGNMENT)]
    assert [r["score"] for r in second if r["student"] == "bob"] == [FULL]


def test_a_mended_grader_grades_everybody_anew(cohort, tmp_path, monkeypatch):
    for hashed in ("faulty", "mended", "mended"):
        monkeypatch.setattr(intake, "graders", lambda hashed=hashed: hashed)
        grade(cohort, tmp_path / "out", resume=True, unsafe=True, grader=fake)
    lines = [("ada", ASSIGNMENT), ("bob", ASSIGNMENT)] * 2 + [
        ("eve", ASSIGNMENT)
    ]  # eve's file is no notebook
    assert sorted(graded_lines(tmp_path / "out")) == sorted(lines)


def test_a_failure_of_the_grader_is_no_zero_and_is_tried_again(cohort, tmp_path):
    def broken(submission, names, seed, limits):
        raise KeyError("oops")

    def without_worker(submission, names, seed, limits):
        return [without_running(name, "ungradable", "the worker did not start") for name in names]

    for grader, reason in ((broken, "KeyError"), (without_worker, "did not start")):
        records = grade(cohort, tmp_path / "out", resume=True, unsafe=True, grader=grader)
        assert {r["status"] for r in records} == {"ungradable"}
        assert {r["score"] for r in records} == {None}
        assert reason in records[0]["reason"]
    assert outline(grade(cohort, tmp_path / "out", resume=True, unsafe=True, grader=fake)) == {
        ("ada", ASSIGNMENT): ("graded", FULL),
        ("bob", ASSIGNMENT): ("graded", 0),
        ("eve", ASSIGNMENT): ("ungradable", None),
    }


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -1.0, 1e9])
def test_an_impossible_score_is_never_kept(cohort, tmp_path, score):
    def cheating(submission, names, seed, limits):
        return [replace(without_running(name, "passed"), score=score) for name in names]

    records = grade(cohort, tmp_path / "out", unsafe=True, grader=cheating)
    assert {record["score"] for record in records} == {None}


def test_the_seed_is_drawn_once_and_cannot_change(cohort, tmp_path):
    seeds = []

    def listening(submission, names, seed, limits):
        seeds.append(seed)
        return fake(submission, names, seed, limits)

    grade(cohort, tmp_path / "out", unsafe=True, grader=listening)
    assert set(seeds) == {Ledger(tmp_path / "out").seed()}
    with pytest.raises(ValueError, match="--seed"):
        grade(cohort, tmp_path / "out", resume=True, seed=-5, unsafe=True, grader=fake)
    grade(cohort, tmp_path / "given", seed=7, unsafe=True, grader=listening)
    assert seeds[-1] == Ledger(tmp_path / "given").seed() == 7


def test_a_folder_that_may_not_be_written_to_is_refused(cohort, tmp_path):
    grade(cohort, tmp_path / "out", unsafe=True, grader=fake)
    with pytest.raises(ValueError, match="--resume continues"):
        grade(cohort, tmp_path / "out", unsafe=True, grader=fake)
    foreign = lay(tmp_path / "thesis", {"thesis.tex": "my only copy"})
    with pytest.raises(ValueError, match=r"thesis\.tex"):
        grade(cohort, foreign, resume=True, unsafe=True, grader=fake)
    with Ledger(tmp_path / "out").opened(True, None), pytest.raises(ValueError, match="another run"):
        grade(cohort, tmp_path / "out", resume=True, unsafe=True, grader=fake)
    with pytest.raises(ValueError, match="no such folder"):
        grade(tmp_path / "typo", tmp_path / "new", unsafe=True, grader=fake)
    assert not (tmp_path / "new").exists()


def test_no_sandbox_no_grading(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "problem", lambda: "no bubblewrap here")
    with pytest.raises(ValueError, match="--unsafe"):
        grade(cohort, tmp_path / "out", grader=fake)
    assert not (tmp_path / "out").exists()


def test_a_diff_says_what_would_change_and_writes_nothing(cohort, tmp_path):
    out = tmp_path / "out"
    grade(cohort, out, unsafe=True, grader=fake)
    lay(cohort, {f"bob/{ASSIGNMENT}/{ASSIGNMENT}.ipynb": notebook(RIGHT)})
    lay(cohort, {f"eve/{ASSIGNMENT}/{ASSIGNMENT}.ipynb": notebook(RIGHT + "\n# tidied")})
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    changes = regrade_diff(cohort, out, unsafe=True, grader=fake)
    assert Change("bob", ASSIGNMENT, "ffn_params", 0, FULL) in changes
    assert Change("eve", ASSIGNMENT, "ffn_params", None, FULL) in changes
    assert {change.student for change in changes} == {"bob", "eve"}
    assert str(changes[0]) == f"bob: {ASSIGNMENT}: ffn_params: 0 → {FULL}"
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


KILLED = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[3])
    from test_cohort import fake
    from moe_course.grading.cohort.grade_cohort import grade
    from moe_course.grading.submission import intake
    intake.graders = lambda: "the same all the time"
    grade(Path(sys.argv[1]), Path(sys.argv[2]), jobs=2, resume=True, seed=5, unsafe=True, grader=fake)
    """
)


def test_killed_and_resumed_nothing_is_lost_or_graded_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(
        intake, "graders", lambda: "the same all the time"
    )  # a checkout may be worked on meanwhile
    files = {f"s{n:02}.py": f"# {n}\n{RIGHT if n % 3 else WRONG}" for n in range(30)}
    submitted, out = lay(tmp_path / "in", files), tmp_path / "out"
    argv = [sys.executable, "-c", KILLED, submitted, out, Path(__file__).parent]
    for wanted in (4, 12):
        run = subprocess.Popen(argv, env={**os.environ, "FAKE_SECONDS": "0.15"}, start_new_session=True)
        try:
            while len(list(out.glob("records/*/*.json"))) < wanted:
                assert run.poll() is None, "the run ended before it could be killed"
                time.sleep(0.005)
        finally:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
    with open(out / "log.jsonl", "ab") as log:
        log.write(b'{"graded": "2026-01-')  # what a power cut leaves of a line
    resumed = grade(submitted, out, resume=True, unsafe=True, grader=fake)
    whole = grade(submitted, tmp_path / "whole", seed=5, unsafe=True, grader=fake)
    times = ("started", "graded", "seconds")
    without = [
        [{k: v for k, v in r.items() if k not in times} for r in records] for records in (resumed, whole)
    ]
    assert without[0] == without[1]
    assert sorted(graded_lines(out)) == sorted((f"s{n:02}", ASSIGNMENT) for n in range(30))


def test_a_record_whose_line_a_kill_kept_out_is_logged_later(cohort, tmp_path):
    grade(cohort, tmp_path / "out", unsafe=True, grader=fake)
    log = tmp_path / "out" / "log.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    grade(cohort, tmp_path / "out", resume=True, unsafe=True, grader=fake)
    assert len(set(graded_lines(tmp_path / "out"))) == len(graded_lines(tmp_path / "out")) == 3


def test_with_real_workers_a_crash_costs_its_own_student_only(tmp_path):
    crash = "import os\ndef ffn_params(d_model, d_ff):\n    os._exit(0)\n"
    submitted = lay(tmp_path / "in", {"ada.py": RIGHT, "mallory.py": crash})
    records = grade(submitted, tmp_path / "out", jobs=2, unsafe=True)
    status = {
        r["student"]: {v["exercise"]: v["status"] for v in r["verdicts"]}["ffn_params"] for r in records
    }
    assert status == {"ada": "passed", "mallory": "crashed"}
    assert outline(records) == {("ada", ASSIGNMENT): ("graded", FULL), ("mallory", ASSIGNMENT): ("graded", 0)}


def gone(group):
    """Whether a process group ends by itself within some seconds."""
    for _ in range(300):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_interrupted_it_ends_at_once_says_how_to_go_on_and_loses_nothing(tmp_path):
    """Ctrl-C reaches the whole process group, as in a terminal."""
    slow = "import time\ndef ffn_params(d_model, d_ff):\n    time.sleep(25)\n    return 3 * d_model * d_ff\n"
    texts = {f"a{n}.py": RIGHT for n in range(2)} | {f"b{n}.py": slow for n in range(6)}
    submitted, out = lay(tmp_path / "in", texts), tmp_path / "out"
    argv = [sys.executable, "-m", "moe_course", "grade", submitted, "--out", out, "--jobs", "2", "--unsafe"]
    run = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        while len(list(out.glob("records/*/*.json"))) < 2:
            assert run.poll() is None, run.communicate()
            time.sleep(0.02)
        time.sleep(1)  # into the slow ones
        os.killpg(run.pid, signal.SIGINT)
        said, errors = run.communicate(timeout=120)
        assert gone(run.pid), "a process of it is left"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == 130
    assert "Traceback" not in said + errors
    assert re.search(r"interrupted: 2 of 8 submissions are graded and kept in .*--resume", errors)
    assert sorted(graded_lines(out)) == [("a0", ASSIGNMENT), ("a1", ASSIGNMENT)]


@pytest.mark.parametrize("changed", ["environment", "seed", "limits", "graders", "an answer", "nothing"])
def test_a_key_changes_with_all_that_decides_a_grade_and_with_nothing_else(tmp_path, monkeypatch, changed):
    submitted = lay(tmp_path / "in", {"ada.py": RIGHT})

    def key(seed=1, limits=None):
        (task,) = Conditions(seed, limits, fake).tasks(submitted, None, None)
        return task.key

    walls = sandbox.Limits()
    before = key(limits=walls)
    seed = 1
    if changed == "environment":
        monkeypatch.setattr(intake, "environment", lambda: {"python": "3.99"})
    elif changed == "seed":
        seed = 2
    elif changed == "limits":
        walls = replace(walls, memory=walls.memory - 1)
    elif changed == "graders":
        monkeypatch.setattr(intake, "graders", lambda: "mended")
    elif changed == "an answer":
        lay(submitted, {"ada.py": WRONG})
    else:
        os.utime(submitted / "ada.py", (1, 1))
    assert (key(seed, walls) == before) == (changed == "nothing")
    assert key(seed, None) != key(seed, walls)


def test_a_record_is_on_the_disk_before_its_line_is_in_the_log(cohort, tmp_path, monkeypatch):
    """A power cut may keep a rename and lose what was written before it: the order is file, rename, folder, line."""
    steps = []
    usual_sync, usual_replace = os.fsync, os.replace

    def fsync(descriptor):
        steps.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        usual_sync(descriptor)

    def rename(source, target):
        steps.append((Path(source), Path(target)))
        usual_replace(source, target)

    ledger = Ledger(tmp_path / "out")
    with ledger.opened(False, 1):
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "replace", rename)
        ledger.keep(grade(cohort, tmp_path / "other", unsafe=True, grader=fake)[0])
    path = ledger.path("ada", ASSIGNMENT)
    at = next(n for n, step in enumerate(steps) if isinstance(step, tuple) and step[1] == path)
    assert steps[at - 1] == steps[at][0]
    assert steps[at + 1 :] == [path.parent, ledger.log.path]


def test_a_record_that_is_on_the_disk_is_held_in_memory_by_nobody(tmp_path):
    """The replies and messages of a whole cohort would be gigabytes."""

    class Kept(dict):
        """A record that can be watched."""

    given = []

    class Watched(Conditions):
        def record(self, task):
            return Kept(super().record(task))

    conditions = Watched(1, None, fake)
    waiting = conditions.tasks(
        lay(tmp_path / "in", {f"s{n}.py": f"# {n}\n{RIGHT}" for n in range(6)}), None, None
    )
    alive = []
    with pool(1, None, False) as threads:
        for record in run(conditions, waiting, 6, threads):
            given.append(weakref.ref(record))
            del record
            gc.collect()
            alive.append(sum(ref() is not None for ref in given))
    assert max(alive) <= 2  # the one just given, which the loop still names
