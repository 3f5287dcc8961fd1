"""`nbgrader autograde` with the course's plug-ins: damaged and hostile submissions of notebook 01, in one run.

The attacks are representatives of tests/grading/redteam, where all of them go through `moe-course grade`.
"""

import contextlib
import copy
import hashlib
import os
import shutil
import socket
import sqlite3
import sys
from types import SimpleNamespace

import nbformat
import pytest
from grading.redteam.attacks import ATTACKS
from nbformat.v4 import new_code_cell
from stock_nbgrader import ASSIGNMENT, NAMES, Course, cell_of, jupyter_env, notebook_file
from synthetic import ROOT

from moe_course.grading.exercises.rubric import points

pytestmark = pytest.mark.slow

FULL = {name: points(name) for name in NAMES}
REPRESENTATIVES = (  # one of each kind
    *("always_equal", "nan", "patched_torch", "display", "frames_and_gc"),
    *("reads_what_is_secret", "writes_everywhere", "planted_files", "os_exit_in_cell"),
    *("swallows_every_signal", "fork_bomb", "memory", "tcp", "imports_the_answer"),
)
NEIGHBOURS = ("aaa_neighbour", "neighbour", "zzz_neighbour")  # the first is graded before anybody attacks
ABOUT_NOBODY = (
    "assignment",
    "notebook",
    "base_cell",
    "grade_cells",
    "solution_cells",
    "source_cell",
)  # tables

HURRIED = """
from functools import partial
from moe_course.grading import plugins
from moe_course.grading.judge import files
from moe_course.grading.worker import sandbox
plugins.walls = lambda unsafe: sandbox.Limits(memory=700 << 20, processes=40, file_size=8 << 20, disk=16 << 20)
files.WorkerSubject = partial(files.WorkerSubject, seconds=10.0)
"""


# ------------------------------------------------------------------------------------------- what is handed in


def released():
    return nbformat.read(notebook_file(ROOT / "notebooks"), as_version=4)


def answered(names):
    """The released notebook with these exercises answered as in the solutions."""
    notebook, answers = released(), nbformat.read(notebook_file(ROOT / "solutions"), as_version=4)
    for name in names:
        cell_of(notebook, name).source = cell_of(answers, name).source
    return notebook


def hostile(attack, places):
    notebook = answered(attack.kept)
    cell_of(notebook, attack.exercise).source = attack.source.replace("PLACES", repr(places))
    return notebook


def stripped(notebook):
    for cell in notebook.cells:
        cell.metadata = {}


def copied(notebook):
    notebook.cells.append(copy.deepcopy(cell_of(notebook, "ffn_flops")))
    notebook.cells.append(copy.deepcopy(cell_of(notebook, "check_ffn_flops")))


def no_checks(notebook):
    notebook.cells = [cell for cell in notebook.cells if not cell.source.startswith("check(")]


def edited(notebook):
    cell = cell_of(notebook, "check_ffn_params")
    cell.source, cell.metadata.nbgrader.points = "1e9", 1e9


def invented(notebook):
    marks = {"schema_version": 3, "grade": True, "solution": False, "locked": True, "task": False}
    marks |= {"grade_id": "check_bonus", "points": 1000, "cell_type": "code"}
    notebook.cells.append(new_code_cell("1000", metadata={"nbgrader": marks}))


DAMAGES = (stripped, copied, no_checks, edited, invented)


def plant_beside(notebook_path):
    """Files that would take effect where a grader imports from the folder of a submission."""
    for name in ("conftest.py", "sitecustomize.py", "torch.py", "nbgrader_config.py", "moe_course.py"):
        (notebook_path.parent / name).write_text("raise SystemExit('planted by a submission')\n")
    (notebook_path.parent / "pytest.ini").write_text("[pytest]\naddopts = --collect-only\n")
    page = "<script>fetch('/formgrader/api/grade/1', {method: 'PUT'})</script>"
    (notebook_path.parent / "pages").mkdir()
    for name in ("results.html", "pages/results.xhtml", "plot.svg", "a.js", "noname", "b.IPYNB", "c.HTML"):
        (notebook_path.parent / name).write_text(page)
    (notebook_path.parent / "gradebook.txt").symlink_to(notebook_path.parents[3] / "gradebook.db")
    (notebook_path.parent / "timestamp.txt").write_text("2027-03-01 12:00:00 UTC")


# ------------------------------------------------------------------------------------------------- the one run


@pytest.fixture(scope="module")
def run(needs_sandbox, tmp_path_factory):
    """What the gradebook and the course's folder held before the attack, and what they hold afterwards."""
    if sys.platform == "win32":
        pytest.skip("nbgrader's exchange does not run on Windows")
    base = tmp_path_factory.mktemp("plugins")
    course = Course(base / "course", base / "learner", jupyter_env(base / "home", base / "exchange"))
    shutil.copytree(ROOT / "solutions" / ASSIGNMENT, course.root / "solutions" / ASSIGNMENT)
    (course.root / "solutions" / ASSIGNMENT / "figure.svg").write_text("<svg/>")
    config = (ROOT / "nbgrader_config.py").read_text(encoding="utf-8")
    (course.root / "nbgrader_config.py").write_text(config + HURRIED, encoding="utf-8")
    course.nbgrader("generate_assignment", ASSIGNMENT, "--force")
    solved = answered(NAMES)

    for student in NEIGHBOURS:
        course.hand_in(student, solved)
    course.nbgrader("autograde", ASSIGNMENT, "--student", NEIGHBOURS[0])

    database = course.root / "gradebook.db"
    targets = [database, course.root / "submitted" / NEIGHBOURS[0], course.root / "autograded", course.root]
    targets += [ROOT / "moe_course" / "command" / "cli.py", ROOT / "tests" / "graders"]
    secrets = [
        database,
        course.root / "submitted",
        ROOT / "tests" / "graders" / "oracles.py",
        ROOT / "solutions",
    ]
    places = {"targets": list(map(str, targets)), "secrets": list(map(str, secrets)), "judge": os.getpid()}
    with listening() as door:
        places["tcp"] = door.getsockname()[1]
        for name in REPRESENTATIVES:
            course.hand_in(name, hostile(ATTACKS[name], places))
        for damage in DAMAGES:
            damaged = copy.deepcopy(solved)
            damage(damaged)
            course.hand_in(damage.__name__, damaged)
        plant_beside(notebook_file(course.root / "submitted" / "always_equal"))
        before = rows(database), files(course.root)
        course.nbgrader("autograde", ASSIGNMENT)
        heard = connections(door)
    return SimpleNamespace(
        rows=(before[0], rows(database)),
        files=(before[1], files(course.root)),
        scores=scores(database),
        heard=heard,
    )


@contextlib.contextmanager
def listening():
    """An open door on the loopback address that no submission may find."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        door.setblocking(False)
        yield door


def connections(door):
    with contextlib.suppress(BlockingIOError):
        return [door.accept()]
    return []


def rows(database):
    """{table: everything that it holds}"""
    with sqlite3.connect(database) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {table: set(connection.execute(f'SELECT * FROM "{table}"')) for (table,) in tables}


def files(folder):
    """{file: hash} of all but the gradebook itself."""
    found = [
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and not path.name.startswith("gradebook.db")
    ]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def scores(database):
    """{student: {exercise: points}}"""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{database}") as gradebook:
        return {
            submission.student.id: {
                grade.name.removeprefix("check_"): grade.score
                for notebook in submission.notebooks
                for grade in notebook.grades
            }
            for submission in gradebook.assignment_submissions(ASSIGNMENT)
        }


# ------------------------------------------------------------------------------------------------------ asserts


@pytest.mark.parametrize("student", [damage.__name__ for damage in DAMAGES])
def test_damage_costs_no_points_and_earns_none(run, student):
    assert run.scores[student] == FULL


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_an_attacker_gets_what_the_answer_is_worth(run, name):
    attack = ATTACKS[name]
    expected = dict.fromkeys(NAMES, 0) | {kept: FULL[kept] for kept in attack.kept}
    assert run.scores[name] == expected | {attack.exercise: attack.score}


@pytest.mark.parametrize("student", NEIGHBOURS)
def test_the_neighbours_have_full_marks(run, student):
    assert run.scores[student] == FULL


def test_what_the_gradebook_held_it_still_holds(run):
    before, after = run.rows
    assert {table: rows - after[table] for table, rows in before.items() if rows - after[table]} == {}


def test_no_assignment_cell_or_student_is_invented(run):
    before, after = run.rows
    assert set(before) >= set(ABOUT_NOBODY), "nbgrader's tables have other names by now"
    assert {table: after[table] for table in ABOUT_NOBODY} == {table: before[table] for table in ABOUT_NOBODY}
    handed_in = {*NEIGHBOURS, *REPRESENTATIVES, *(damage.__name__ for damage in DAMAGES)}
    assert set(run.scores) == handed_in
    assert {row[0] for row in after["student"]} == handed_in


def test_no_file_that_was_there_is_changed(run):
    before, after = run.files
    assert {path for path, content in before.items() if after.get(path) != content} == set()
    assert not [path for path in after if "planted_by_a_submission" in path]


def test_formgrader_and_feedback_get_the_notebook_alone(run):
    """And what the course's own folder has beside it."""
    _, after = run.files
    folder = f"autograded/always_equal/{ASSIGNMENT}/"
    beside = {path.removeprefix(folder) for path in after if path.startswith(folder)}
    assert beside == {f"{ASSIGNMENT}.ipynb", "timestamp.txt", "figure.svg"}
    assert f"submitted/always_equal/{ASSIGNMENT}/results.html" in after


def test_nothing_reached_a_listener_outside(run):
    assert run.heard == []
