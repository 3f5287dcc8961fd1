"""`moe-course lab`, `test` and `quality`."""

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from types import SimpleNamespace

import nbformat
import pytest

from moe_course.command import launch
from moe_course.grading.exercises import locate
from moe_course.grading.exercises.registry import EXERCISES, exercises_of
from moe_course.lesson import workspace


@pytest.mark.parametrize(
    ("environ", "platform", "seen"),
    [
        ({}, "linux", False),
        ({"DISPLAY": ""}, "linux", False),
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({"DISPLAY": "localhost:10.0", "SSH_CONNECTION": "1.2.3.4 5 6.7.8.9 22"}, "linux", False),
        ({"SSH_CONNECTION": "1.2.3.4 5 6.7.8.9 22"}, "darwin", False),
        ({}, "darwin", True),
        ({}, "win32", True),
        ({"CI": "true"}, "darwin", False),
    ],
)
def test_has_screen(environ, platform, seen):
    assert launch.has_screen(environ, platform) is seen


def test_lab_command_asks_jupyter_for_what_the_machine_needs(tmp_path):
    def command(screen, as_root):
        return launch.lab_command(
            tmp_path, "work/a.ipynb", screen=screen, as_root=as_root, extra=["--port=9000"]
        )

    assert "--no-browser" in command(False, False)
    assert "--no-browser" not in command(True, False)
    assert "--allow-root" in command(True, True)
    assert "--allow-root" not in command(True, False)
    assert command(True, False)[-1] == "--port=9000"


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of one notebook, released in a folder of its own."""
    notebook = tmp_path / "released" / launch.FIRST_NOTEBOOK
    notebook.parent.mkdir(parents=True)
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("Start", id="title")]), notebook
    )
    monkeypatch.setattr(locate, "notebooks_dir", lambda: tmp_path / "released")
    return tmp_path


def _answers(address):
    try:
        return urllib.request.urlopen(address, timeout=10).status == 200
    except urllib.error.URLError:
        return False


@pytest.mark.slow
def test_lab_until_ready_leaves_a_work_copy_and_no_server(course, capfd):
    assert launch.lab(course, until_ready=True) == 0
    said, complaints = capfd.readouterr()
    assert "nbgrader" not in (said + complaints).lower(), "a learner can do nothing about its warnings"
    address = re.search(r"http://\S+/lab/tree/(\S+)\?token=\w+", said)
    assert (course / address[1]).is_file()
    assert not _answers(address[0])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_lab_serves_the_first_notebook_and_stops_when_told(course):
    program = (
        "import sys; from pathlib import Path\n"
        "from moe_course.command import launch; from moe_course.grading.exercises import locate\n"
        "root = Path(sys.argv[1]); locate.notebooks_dir = lambda: root / 'released'\n"
        "sys.exit(launch.lab(root))"
    )
    environ = {**os.environ, "CI": "true"}
    command = [sys.executable, "-c", program, str(course)]
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as lab:
        try:
            address = next(found[0] for line in lab.stdout if (found := re.search(r"http://\S+", line)))
            assert _answers(address)
        finally:
            lab.send_signal(signal.SIGTERM)
        assert lab.wait(timeout=60) == 128 + signal.SIGTERM
        assert not _answers(address)


def test_lab_without_its_first_notebook_says_so(course):
    (course / "released" / launch.FIRST_NOTEBOOK).unlink()
    with pytest.raises(ValueError, match=r"00_start_here\.ipynb"):
        launch.lab(course)


@pytest.fixture
def commands(monkeypatch):
    """Every command that would have been run; `.failing` is a word of those that fail."""
    ran = SimpleNamespace(lines=[], threads=set(), failing="nothing fails")

    def run(command, cwd, env):
        ran.lines.append(" ".join(command[2:]))
        ran.threads.add(env["OMP_NUM_THREADS"])
        return SimpleNamespace(returncode=3 if ran.failing in command else 0)

    monkeypatch.setattr(launch.subprocess, "run", run)
    return ran


def test_run_tests_takes_three_seeds_or_everything(commands, tmp_path):
    assert launch.run_tests(tmp_path, extra=["-k", "router"]) == 0
    assert launch.run_tests(tmp_path, everything=True) == 0
    always = " ".join(launch.pytest_command()[2:])
    assert commands.lines == [f"{always} --seeds=3 -k router", f"{always} --seeds=20 --full"]
    assert commands.threads == {"1"}


def test_run_tests_hands_on_the_exit_code(commands, tmp_path):
    commands.failing = "pytest"
    assert launch.run_tests(tmp_path) == 3


@pytest.mark.parametrize("failing", ["ruff", "mypy", "release", "pytest"])
def test_quality_runs_every_step_and_fails_if_one_does(commands, tmp_path, capsys, failing):
    assert launch.quality(tmp_path) == 0
    steps = len(commands.lines)
    commands.failing = failing
    assert launch.quality(tmp_path) == 1
    assert len(commands.lines) == 2 * steps
    assert "not good: " in capsys.readouterr().out.splitlines()[-1]


def test_checkout_is_the_folder_of_these_tests():
    assert (launch.checkout() / "tests" / "test_launch.py").samefile(__file__)


def test_lab_opens_the_notebook_of_the_next_open_exercise(tmp_path, monkeypatch, capsys):
    for name in ("00_start_here", "02_topk_routing"):
        notebook = tmp_path / name / f"{name}.ipynb"
        notebook.parent.mkdir()
        nbformat.write(nbformat.v4.new_notebook(), notebook)
    passed: set[str] = set()
    monkeypatch.setattr(
        workspace,
        "states",
        lambda notebook, work: [
            (one, "passed" if one.name in passed else "open", "") for one in exercises_of(notebook)
        ],
    )
    assert launch.next_notebook(tmp_path) == launch.FIRST_NOTEBOOK
    passed |= {exercise.name for exercise in EXERCISES.values() if exercise.number < "2.2"}
    assert launch.next_notebook(tmp_path) == "02_topk_routing/02_topk_routing.ipynb"
    assert "Next: 2.2 top_k_gate" in capsys.readouterr().out
    passed |= {*EXERCISES}
    assert launch.next_notebook(tmp_path) == launch.FIRST_NOTEBOOK
