"""`moe-course doctor`: what this machine has for the course, and what to do about each problem.

Each `*_finding` judges values it is given; `report` collects them from this machine.
"""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moe_course.command import machine
from moe_course.grading.worker.advice import complaint

PYTHONS = ((3, 11), (3, 13))  # the first and the last version that requirements.lock covers
PROVEN = ("Linux", (3, 11))  # the whole test suite was run there, with the versions of the lock
SETUP = "run `make setup` (Windows: see the README)"
SCRIPTS = ("nbgrader", "alembic")  # `nbgrader generate_assignment` starts `alembic`
_GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One line of the report. `advice` is empty if there is nothing to do."""

    name: str
    state: Literal["ok", "warn", "bad"]
    found: str
    advice: str = ""


def python_finding(version: tuple[int, int]) -> Finding:
    """Whether requirements.lock covers this Python."""
    found, (first, last) = _dotted(version), PYTHONS
    if version < first:
        return Finding(
            "Python", "bad", found, f"install Python {_dotted(first)}–{_dotted(last)} and set up again"
        )
    if version > last:
        return Finding(
            "Python", "warn", found, f"not covered by the lock; if something fails, use {_dotted(last)}"
        )
    return Finding("Python", "ok", found)


def platform_finding(system: str, cpu: str, version: tuple[int, int]) -> Finding:
    """Whether the tests have been run on such a machine."""
    found = f"{system} {cpu}, Python {_dotted(version)}"
    if (system, version) == PROVEN:
        return Finding("Platform", "ok", f"{found}: proven")
    if (system, cpu) == ("Darwin", "x86_64"):
        return Finding(
            "Platform", "bad", found, "PyTorch has no build for Intel Macs any more: use another machine"
        )
    proven = f"{PROVEN[0]} with Python {_dotted(PROVEN[1])}"
    return Finding(
        "Platform",
        "warn",
        found,
        f"should work, but the tests were run on {proven} only: `moe-course test` tries them here",
    )


def package_finding(name: str, wanted: str | None, found: str | None) -> Finding:
    """Whether a package has the version of requirements.lock; a build tag such as +cpu does not matter."""
    if found is None:
        return Finding(name, "bad", "not installed", SETUP)
    if wanted is not None and found.partition("+")[0] != wanted:
        return Finding(name, "warn", f"{found}, the lock has {wanted}", SETUP)
    return Finding(name, "ok", found)


def threads_finding(threads: int, cores: int) -> Finding:
    """Whether PyTorch has as many threads as this process has cores."""
    found = f"{threads} PyTorch threads on {cores} cores"
    if threads > cores:
        return Finding(
            "Threads", "warn", found, f"set OMP_NUM_THREADS={cores}: more threads than cores wait in turns"
        )
    if threads < cores // 2:
        return Finding(
            "Threads", "warn", found, "slower than it could be: unset OMP_NUM_THREADS, or raise it"
        )
    return Finding("Threads", "ok", found)


def gpu_finding(gpus: Sequence[tuple[str, int]], driver: bool) -> Finding:
    """CUDA devices as (name, bytes), and whether an NVIDIA driver is installed."""
    if gpus:
        return Finding("GPU", "ok", ", ".join(f"{name}, {size / _GIB:.0f} GiB" for name, size in gpus))
    if driver:
        advice = "install PyTorch's CUDA build of the same version (pytorch.org), if you want to use it"
        return Finding("GPU", "warn", "an NVIDIA driver, but this PyTorch cannot use it", advice)
    return Finding("GPU", "ok", "none: every notebook runs on the CPU")


def sandbox_finding(system: str, tried: Sequence[tuple[str, str]]) -> Finding:
    """Whether bubblewrap starts; `tried` holds the path of each bwrap and its error, "" if it started."""
    if system != "Linux":
        return Finding("Sandbox", "ok", "only on Linux; checking your own answers needs none")
    if wrong := complaint(tried):
        return Finding("Sandbox", "warn", wrong[0], f"only needed to grade others' notebooks: {wrong[1]}")
    return Finding("Sandbox", "ok", f"{next(path for path, error in tried if not error)} starts")


def folder_finding(folder: Path, free: int, error: str) -> Finding:
    """The free bytes in the learner's folder; `error` says why nothing can be written there, or is empty."""
    found = f"{folder}, {free / _GIB:.1f} GiB free"
    if error:
        return Finding(
            "Folder", "bad", f"{found}, cannot be written: {error}", "work in a folder that is yours"
        )
    if free < 0.2 * _GIB:
        return Finding("Folder", "bad", found, "make room: notebooks could not be saved")
    if free < 2 * _GIB:
        return Finding("Folder", "warn", found, "make room soon")
    return Finding("Folder", "ok", found)


def home_finding(closed: tuple[Path, str] | None) -> Finding:
    """Whether Jupyter can keep its files; `closed` is the folder it cannot write to, and the error."""
    if closed is None:
        return Finding("Home", "ok", "Jupyter can write its own files")
    folder, error = closed
    advice = "make it writable, or set JUPYTER_RUNTIME_DIR and JUPYTER_DATA_DIR to folders that are"
    return Finding("Home", "bad", f"Jupyter cannot write to {folder}: {error}", advice)


def kernel_finding(interpreter: str | None, expected: str) -> Finding:
    """The program that Jupyter's kernel python3 starts, None if there is no such kernel."""
    if interpreter is None:
        return Finding("Kernel", "bad", "Jupyter knows no kernel python3", SETUP)
    if interpreter != expected:
        advice = "another kernel named python3 hides the course's: jupyter kernelspec list, then remove it"
        return Finding("Kernel", "bad", f"python3 starts {interpreter}", advice)
    return Finding("Kernel", "ok", f"python3 starts {interpreter}")


def scripts_finding(missing: Sequence[str]) -> Finding:
    """Which of the commands that nbgrader calls by name are not on PATH."""
    if missing:
        advice = f"to build or grade notebooks, activate the environment or put {machine.scripts()} on PATH"
        return Finding("Commands", "warn", f"not on PATH: {', '.join(missing)}", advice)
    return Finding("Commands", "ok", f"{' and '.join(SCRIPTS)} are on PATH")


def browser_finding(path: str | None) -> Finding:
    """Chromium, for the tests that click through JupyterLab."""
    if path is None:
        return Finding("Chromium", "ok", "none: only contributors' browser tests need it")
    return Finding("Chromium", "ok", path)


def report(folder: Path) -> list[Finding]:
    """Judge this machine for work in `folder`. Takes a few seconds: imports torch, starts a sandbox."""
    version, system, pins = sys.version_info[:2], platform.system(), machine.locked()
    packages = [package_finding(name, pins.get(name), machine.installed(name)) for name in machine.direct()]
    return [
        python_finding(version),
        platform_finding(system, platform.machine(), version),
        *packages,
        *_torch_findings(),
        sandbox_finding(system, machine.sandboxes()),
        folder_finding(folder, shutil.disk_usage(folder).free, machine.try_writing(folder)),
        home_finding(machine.closed_home()),
        kernel_finding(machine.kernel_interpreter(), sys.executable),
        scripts_finding([name for name in SCRIPTS if shutil.which(name) is None]),
        browser_finding(shutil.which("chromium") or shutil.which("chromium-browser")),
    ]


def _torch_findings() -> list[Finding]:
    try:
        threads, gpus = machine.threads_and_cores(), machine.gpus()
    except (ImportError, OSError) as error:  # OSError: a library it loads is missing or broken
        return [Finding("torch", "bad", f"cannot be imported: {error}", SETUP)]
    return [threads_finding(*threads), gpu_finding(gpus, shutil.which("nvidia-smi") is not None)]


def exit_code(findings: Iterable[Finding]) -> int:
    """1 if something must be repaired before the course works, else 0."""
    return int(any(finding.state == "bad" for finding in findings))


def as_text(findings: Iterable[Finding]) -> str:
    """One line for each finding, and its advice on the next line."""
    signs = {"ok": "✓", "warn": "!", "bad": "✗"}
    lines = []
    for finding in findings:
        lines.append(f"{signs[finding.state]} {finding.name:<12} {finding.found}")
        if finding.advice:
            lines.append(f"{'':<15}→ {finding.advice}")
    return "\n".join(lines)


def in_short(findings: Sequence[Finding]) -> str:
    """For a notebook: what must be repaired, or one line that says that nothing must."""
    if bad := [finding for finding in findings if finding.state == "bad"]:
        return as_text(bad)
    warned = sum(finding.state == "warn" for finding in findings)
    advice = f", {warned} of its lines with advice" if warned else ""
    return (
        f"✓ Everything that the notebooks need is here. (`moe-course doctor` prints the whole list{advice}.)"
    )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
