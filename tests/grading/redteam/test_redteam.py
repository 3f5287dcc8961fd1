"""Hostile, damaged and honest submissions of notebook 01 in one cohort, graded by one run of `moe-course grade`.

Each case asserts the score of its own; what stands beside it is graded as if it were alone.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import hashlib
import json
import os
import pkgutil
import re
import shutil
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch
from attacks import ATTACKS, HANGING, HONEST
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from stock_nbgrader import ASSIGNMENT, NAMES, cell_of, notebook_file
from synthetic import ROOT

from moe_course.grading.cohort import grade_cohort
from moe_course.grading.cohort.gradebook import opened
from moe_course.grading.exercises.locate import graders_dir
from moe_course.grading.exercises.rubric import points
from moe_course.grading.judge import files
from moe_course.grading.judge.files import grade_submission
from moe_course.grading.judge.rendering import as_html, as_text
from moe_course.grading.judge.subject import WorkerSubject
from moe_course.grading.worker.sandbox import Limits

FULL = {name: float(points(name)) for name in NAMES}
SMALL = Limits(memory=700 << 20, processes=40, file_size=8 << 20, disk=16 << 20)
OURS = re.compile(r"(moe_course|graders\.probes)(\.\w+)+")  # a module, or a name in one
NEIGHBOURS = ("aaa_neighbour", "neighbour", "zzz_neighbour")  # before, between and after the others


# ------------------------------------------------------------------------------------- notebooks of the cohort


def answered(names):
    """The released notebook with these exercises answered as in the solutions."""
    answers = nbformat.read(notebook_file(ROOT / "solutions"), as_version=4)
    notebook = copy.deepcopy(RELEASED)
    for name in names:
        cell_of(notebook, name).source = cell_of(answers, name).source
    return notebook


RELEASED = nbformat.read(notebook_file(ROOT / "notebooks"), as_version=4)
SOLVED = answered(NAMES)


def hostile(attack, places):
    """The released notebook with the attack in place of its exercise, beside what it answers honestly."""
    notebook = answered(attack.kept)
    cell_of(notebook, attack.exercise).source = attack.source.replace("PLACES", repr(places))
    return notebook


def replaced(sources):
    """The solved notebook with other texts in some cells."""
    notebook = copy.deepcopy(SOLVED)
    for cell in notebook.cells:
        cell.source = sources.get(cell.id, cell.source)
    return notebook


def extra_cells(notebook):
    experiments = [new_code_cell(f"mine = {n}\nmine / {n % 2}") for n in range(len(notebook.cells))]
    notebook.cells = [cell for pair in zip(notebook.cells, experiments, strict=True) for cell in pair]
    notebook.cells.insert(0, new_markdown_cell("# My notes"))


def check_deleted(notebook):
    notebook.cells.remove(cell_of(notebook, "check_ffn_params"))


def checks_deleted(notebook):
    notebook.cells = [cell for cell in notebook.cells if not cell.source.startswith("check(")]


def check_edited(notebook):
    cell = cell_of(notebook, "check_ffn_params")
    cell.source, cell.metadata.nbgrader["points"] = "1e9", 1e9


def copied(notebook):
    for name in ("ffn_flops", "check_ffn_flops"):
        notebook.cells.append(copy.deepcopy(cell_of(notebook, name)))


def invented(notebook):
    marks = {"schema_version": 3, "grade": True, "solution": False, "locked": True, "task": False}
    marks |= {"grade_id": "check_bonus", "points": 1000}
    notebook.cells.append(new_code_cell("check(bonus) or 1000", metadata={"nbgrader": marks}))


def stripped(notebook):
    for cell in notebook.cells:
        cell.metadata = {}
        cell.pop("id", None)


def without_metadata(notebook):
    notebook.metadata = {}


def answer_deleted(notebook):
    notebook.cells.remove(cell_of(notebook, "ffn_params"))


def check_edited_and_nothing_answered(notebook):
    check_edited(notebook)
    cell_of(notebook, "ffn_params").source = cell_of(RELEASED, "ffn_params").source


def script_in_outputs(notebook):
    page = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [new_output("display_data", {"text/html": page, "text/plain": page})]


HARMLESS = (
    extra_cells,
    check_deleted,
    checks_deleted,
    check_edited,
    copied,
    invented,
    stripped,
    without_metadata,
    script_in_outputs,
)
COSTLY = (
    answer_deleted,
    check_edited_and_nothing_answered,
)  # one exercise is not there: its points, no others


def damaged(damage):
    notebook = copy.deepcopy(SOLVED)
    damage(notebook)
    return notebook


TEXT = json.dumps(SOLVED).encode()
UNREADABLE = {  # what cannot be graded, each with a word of the reason that it must be given
    "truncated": (TEXT[: len(TEXT) // 2], "cut off"),
    "wrong_format": (json.dumps({**SOLVED, "nbformat": 99}).encode(), "format"),
    "not_utf8": (TEXT.replace(b"SwiGLU", b"Swi\xff\xfeGLU"), "UTF-8"),
    "no_notebook": (b'"<script>alert(1)</script>"', "not a notebook"),
}


# ------------------------------------------------------------------------------------------------- the one run


def fingerprints(*tops):
    """{file: hash} of the sources and notebooks in these folders, which no submission may change."""
    files = [path for top in tops for path in top.rglob("*") if path.suffix in (".py", ".ipynb")]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Listeners:
    """Open doors on this machine that no submission may find: by TCP, by UDP, by two kinds of unix socket."""

    def __init__(self, folder):
        self.tcp, self.udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
        self.unix, self.abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        self.path, self.name = str(folder / "door"), f"\0moe-course-red-team-{os.getpid()}"
        self.all = (self.tcp, self.udp, self.unix, self.abstract)
        for door, address in zip(
            self.all, (("127.0.0.1", 0), ("127.0.0.1", 0), self.path, self.name), strict=True
        ):
            door.bind(address)
            door.setblocking(False)
            if door is not self.udp:
                door.listen()

    def places(self):
        ports = {"tcp": self.tcp.getsockname()[1], "udp": self.udp.getsockname()[1]}
        return ports | {"unix": self.path, "abstract": self.name}

    def heard(self):
        found = []
        for door in self.all:
            with contextlib.suppress(BlockingIOError):
                found.append(door.recv(100) if door is self.udp else door.accept())
        return found

    def close(self):
        for door in self.all:
            door.close()


def hurried(cells, *args, **kwargs):
    """A subject with a short deadline for the attacks that use it up, and for nobody else."""
    hangs = any(attack.source in cells for attack in HANGING.values())
    return WorkerSubject(cells, *args, **kwargs, **({"seconds": 5.0} if hangs else {}))


@pytest.fixture(scope="module")
def run(needs_sandbox, tmp_path_factory):
    """The cohort, graded: the records and gradebook by student, all verdicts, and what became of the surroundings."""
    base = tmp_path_factory.mktemp("redteam")
    submitted, database = base / "submitted", base / "gradebook.db"
    with opened(database):
        pass
    doors = Listeners(base)
    venv = Path(torch.__file__).parents[1]
    secrets = [database, submitted, base, ROOT / "solutions", ROOT / "tests"]
    secrets += [graders_dir(), graders_dir() / "oracles.py", graders_dir() / "hidden"]
    targets = [
        database,
        submitted / NEIGHBOURS[0],
        ROOT / "moe_course" / "command" / "cli.py",
        ROOT / "moe_course",
        venv,
    ]
    targets += [venv / "torch" / "__init__.py", graders_dir(), Path(sys.prefix) / "bin", ROOT / "solutions"]
    places = {**doors.places(), "judge": os.getpid(), "root": str(ROOT)}
    places |= {"secrets": list(map(str, secrets)), "targets": list(map(str, targets))}

    notebooks = dict.fromkeys(NEIGHBOURS, SOLVED)
    notebooks |= {name: hostile(attack, places) for name, attack in ATTACKS.items()}
    notebooks |= {name: replaced(sources) for name, sources in HONEST.items()}
    notebooks |= {damage.__name__: damaged(damage) for damage in (*HARMLESS, *COSTLY)}
    texts = {name: json.dumps(notebook).encode() for name, notebook in notebooks.items()}
    texts |= {name: text for name, (text, _) in UNREADABLE.items()}
    for student, text in texts.items():
        path = notebook_file(submitted / student)
        path.parent.mkdir(parents=True)
        path.write_bytes(text)

    plant_beside(notebook_file(submitted / "planted_files"))
    linked = notebook_file(submitted / "symlink")
    linked.parent.mkdir(parents=True)
    linked.symlink_to(notebook_file(submitted / NEIGHBOURS[0]))

    told = []

    def grader(*args):
        told.extend(found := grade_submission(*args))
        return found

    untouched = (ROOT / "moe_course", graders_dir(), submitted)
    before = fingerprints(*untouched)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOE_TEST_SECRET", "swordfish")
        patch.setattr(grade_cohort, "walls", lambda unsafe: SMALL)
        patch.setattr(files, "WorkerSubject", hurried)
        records = grade_cohort.grade(
            submitted, base / "out", jobs=2, seed=7, gradebook=database, grader=grader
        )
    yield SimpleNamespace(
        records={record["student"]: record for record in records},
        told=told,
        gradebook=in_gradebook(database),
        changed=sorted(set(before.items()) ^ set(fingerprints(*untouched).items())),
        appeared=planted([*targets, Path("/tmp"), Path.cwd()]),
        heard=doors.heard(),
        out=base / "out",
        students={"symlink", *texts},
    )
    doors.close()
    shutil.rmtree(base, ignore_errors=True)


def plant_beside(path):
    """Files that would take effect where a grader imports from the folder of a submission."""
    for name in ("conftest.py", "sitecustomize.py", "torch.py", "moe_course.py"):
        (path.parent / name).write_text("raise SystemExit('planted by a submission')\n")


def planted(places):
    """Files that a submission left where it should not have got."""
    return [
        str(path) for place in places if place.is_dir() for path in place.glob("planted_by_a_submission*")
    ]


def in_gradebook(database):
    """{student: {exercise: (automatic score, waits for a person)}}"""
    with opened(database) as gradebook:
        return {
            submission.student.id: {
                grade.name.removeprefix("check_"): (grade.auto_score, grade.needs_manual_grade)
                for notebook in submission.notebooks
                for grade in notebook.grades
            }
            for submission in gradebook.assignment_submissions(ASSIGNMENT)
        }


def scores(record):
    return {verdict["exercise"]: verdict["score"] for verdict in record["verdicts"]}


def statuses(record):
    return {verdict["exercise"]: verdict["status"] for verdict in record["verdicts"]}


# ------------------------------------------------------------------------------------------------------- asserts


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attacker_gets_what_the_answer_is_worth(run, name):
    attack, record = ATTACKS[name], run.records[name]
    expected = dict.fromkeys(NAMES, 0.0) | {kept: FULL[kept] for kept in attack.kept}
    expected[attack.exercise] = float(attack.score)
    assert (record["status"], scores(record)) == ("graded", expected)
    tried = {name: status for name, status in statuses(record).items() if status != "not attempted"}
    assert tried == dict.fromkeys(attack.kept, "passed") | {attack.exercise: attack.status}


@pytest.mark.parametrize("name", ATTACKS)
def test_what_an_attack_names_exists(name):
    """An import of a module that has moved ends the attack before it begins."""
    for node in ast.walk(ast.parse(ATTACKS[name].source)):
        wanted = []
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            wanted = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and OURS.fullmatch(str(node.value)):
            wanted = [node.value]
        for path in wanted:
            assert not path.startswith(("moe_course", "graders")) or pkgutil.resolve_name(path), path


@pytest.mark.parametrize("name", HONEST)
def test_honest_work_gets_full_marks(run, name):
    assert (run.records[name]["status"], scores(run.records[name])) == ("graded", FULL)


@pytest.mark.parametrize("name", [damage.__name__ for damage in HARMLESS])
def test_damage_costs_nothing_and_earns_nothing(run, name):
    assert (run.records[name]["status"], scores(run.records[name])) == ("graded", FULL)


@pytest.mark.parametrize("name", [damage.__name__ for damage in COSTLY])
def test_a_missing_answer_costs_its_own_points_only(run, name):
    assert scores(run.records[name]) == FULL | {"ffn_params": 0}
    assert statuses(run.records[name])["ffn_params"] == "not attempted"


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_ungradable_with_a_reason(run, name):
    record = run.records[name]
    assert (record["status"], record["score"]) == ("ungradable", None)
    assert UNREADABLE[name][1] in record["reason"]


def test_a_link_to_another_submission_is_not_followed(run):
    record = run.records["symlink"]
    assert (record["status"], record["score"]) == ("ungradable", None)
    assert "symbolic link" in record["reason"]


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_the_neighbours_have_full_marks(run, name):
    assert (run.records[name]["status"], scores(run.records[name])) == ("graded", FULL)


def test_the_gradebook_holds_exactly_these_scores(run):
    assert set(run.gradebook) == set(run.records) == run.students
    for student, record in run.records.items():
        graded = record["status"] == "graded"
        expected = {n: (scores(record)[n], False) if graded else (None, True) for n in NAMES}
        assert run.gradebook[student] == expected, student


def test_nothing_outside_is_touched(run):
    assert run.appeared == []
    assert run.changed == [], "a submission did this, or somebody who works on the checkout meanwhile"


def test_nothing_reached_a_listener_outside(run):
    assert run.heard == []


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are listed in /proc")
def test_no_process_outlives_its_submission(run):
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes())
        except OSError:
            continue
    assert not [line for line in lines if b"daemon-of-a-submission" in line]


def test_script_is_escaped_in_every_report(run):
    shown = sum("<script>alert" in as_text(verdict) for verdict in run.told)
    assert shown >= 2, "the attackers got it as far as this"
    pages = [as_html(verdict) for verdict in run.told]
    pages += [path.read_text(encoding="utf-8") for path in run.out.rglob("*.html")]
    assert not [page for page in pages if "<script>alert" in page or "<img src=x" in page]
