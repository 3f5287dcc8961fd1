"""`moe-course lab`, `test` and `quality`: what `make lab`, `make test` and `make check` start."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

import moe_course

FIRST_NOTEBOOK = "00_start_here/00_start_here.ipynb"
QUICK_SEEDS, ALL_SEEDS = 3, 20
TEST_TIMEOUT = (
    600  # seconds for one test, above the slowest on two cores: a hang must not outlast the whole run
)
_START_TIMEOUT = 120  # seconds until JupyterLab answers; a cold disk takes some twenty


def checkout() -> Path:
    """The repository from which this package runs. Raises ValueError if it was installed from a wheel."""
    root = Path(moe_course.__file__).resolve().parents[1]
    if not (root / "tests").is_dir():
        raise ValueError(
            f"{root} is not a checkout of the course: its tests are not part of the installed package"
        )
    return root


def lab(root: Path, *, until_ready: bool = False, extra: Sequence[str] = ()) -> int:
    """Make or update the learner's copy `root`/work and open it at the next exercise; returns JupyterLab's exit code.

    `extra` goes to JupyterLab. With `until_ready` it stops as soon as it answers, which tests the whole set-up.
    """
    from moe_course.command import desk, machine
    from moe_course.grading.exercises.locate import notebooks_dir
    from moe_course.lesson import forms, handing_out

    if closed := machine.closed_home():
        folder, error = closed
        raise ValueError(
            f"JupyterLab cannot start, because it cannot write to {folder} ({error}): make that folder writable, or "
            "set JUPYTER_RUNTIME_DIR and JUPYTER_DATA_DIR to folders that are"
        )
    for message in handing_out.start(notebooks_dir(), root / "work"):
        print(message)
    if not (first := forms.file_of(Path(FIRST_NOTEBOOK).stem, root / "work")).is_file():
        raise ValueError(f"the first notebook is missing: {first}")
    page = f"work/{next_notebook(root / 'work')}"

    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # `finally` stops the server in this case as well
    screen = has_screen(os.environ, sys.platform) and not until_ready
    token = secrets.token_hex(16)
    extra = [*desk.options(root / "work"), *extra]
    command = lab_command(root, page, screen=screen, as_root=_is_root(), extra=extra)
    server = subprocess.Popen(command, cwd=root, env={**_environment(), "JUPYTER_TOKEN": token})
    try:
        address = _wait_for_address(server, token)
        if address is None:
            return server.poll() or 1
        address += f"lab/tree/{page}?token={token}"
        if until_ready:
            print(f"JupyterLab answered at {address}; it is stopped again.", flush=True)
            return 0
        print(banner(address, screen=screen), flush=True)
        return _wait(server)
    finally:
        if server.poll() is None:
            server.terminate()
            server.wait()


def next_notebook(work: Path) -> str:
    """The file of the first exercise that is not passed yet, relative to the work folder; prints which it is."""
    from moe_course.grading.exercises.registry import label
    from moe_course.lesson import forms, workspace

    following = workspace.next_open(work)
    page = forms.file_of(following.notebook, work) if following else None
    if following is None or page is None or not page.is_file():
        page = forms.file_of(Path(FIRST_NOTEBOOK).stem, work)
    else:
        print(f"Next: {label(following.name)}")
    return page.relative_to(work).as_posix()


def has_screen(environ: Mapping[str, str], platform: str) -> bool:
    """Whether the person who typed the command would see a browser that is opened here."""
    if "SSH_CONNECTION" in environ or "CI" in environ:
        return False
    return not platform.startswith("linux") or any(
        environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )


def lab_command(root: Path, page: str, *, screen: bool, as_root: bool, extra: Sequence[str]) -> list[str]:
    """The command line of JupyterLab. If its port is taken, Jupyter uses the next one."""
    return [
        *(sys.executable, "-m", "jupyterlab", "--log-level=WARN"),
        *(f"--ServerApp.root_dir={root}", f"--LabApp.default_url=/lab/tree/{page}"),
        *([] if screen else ["--no-browser"]),
        *(["--allow-root"] if as_root else []),
        *extra,
    ]


def banner(address: str, *, screen: bool) -> str:
    """The address, formatted so that it is easy to see among Jupyter's messages."""
    opened = "JupyterLab opens in your browser. If it does not, use this address:"
    by_hand = "Open this address in a browser (from another machine, forward the port first: ssh -L):"
    stop = "Stop with Ctrl-C. Your work stays in the folder work/, and this command opens it again."
    rule = "─" * 100
    return "\n".join(
        ("", rule, f"  {opened if screen else by_hand}", "", f"    {address}", "", f"  {stop}", rule, "")
    )


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _wait_for_address(server: subprocess.Popen[bytes], token: str) -> str | None:
    """The address at which the server with this token answers; None if it ended or took too long."""
    from jupyter_server.serverapp import list_running_servers

    deadline = time.monotonic() + _START_TIMEOUT
    while server.poll() is None and time.monotonic() < deadline:
        for running in list_running_servers():
            if running["token"] == token and _answers(f"{running['url']}api/status?token={token}"):
                return running["url"]
        time.sleep(0.2)
    return None


def _answers(url: str) -> bool:
    direct = urllib.request.build_opener(
        urllib.request.ProxyHandler({})
    )  # never through a proxy to this machine
    try:
        with direct.open(url, timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False


def _wait(server: subprocess.Popen[bytes]) -> int:
    """Wait until the server ends. Ctrl-C reaches the server too, and the server asks before it stops."""
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            return server.wait()


def run_tests(root: Path, *, everything: bool = False, extra: Sequence[str] = ()) -> int:
    """Run the tests of the checkout `root`; returns pytest's exit code. `extra` goes to pytest.

    Three seeds and notebooks at their small settings; with `everything` twenty, and notebooks in full.
    """
    seeds = ALL_SEEDS if everything else QUICK_SEEDS
    return _pytest(root, f"--seeds={seeds}", *(["--full"] if everything else []), *extra)


def quality(root: Path) -> int:
    """Formatting, lint, types, freshness of notebooks/ and the quick tests of `root`; 0 only if all are good.

    No step is left out when one fails, so that one run shows everything that needs repair.
    """
    python = sys.executable
    steps = {
        "formatting": [python, "-m", "ruff", "format", "--check", "."],
        "lint": [python, "-m", "ruff", "check", "."],
        "types": [python, "-m", "mypy"],
        "notebooks/ fresh": [python, "-m", "moe_course.command.cli", "release", "--check"],
        "quick tests": pytest_command("--seeds=1", "-m", "not slow and not browser", "-q"),
    }
    failed = []
    for name, command in steps.items():
        print(f"── {name}", flush=True)
        if subprocess.run(command, cwd=root, env=_environment(threads=1)).returncode:
            failed.append(name)
    print("── " + (f"not good: {', '.join(failed)}" if failed else "all good"))
    return 1 if failed else 0


def pytest_command(*options: str) -> list[str]:
    """How every target runs pytest: in up to four processes, all tests of a file in the same one."""
    spread = ("--numprocesses=auto", "--maxprocesses=4", "--dist=loadfile")
    return [sys.executable, "-m", "pytest", f"--timeout={TEST_TIMEOUT}", *spread, *options]


def _pytest(root: Path, *options: str) -> int:
    return subprocess.run(pytest_command(*options), cwd=root, env=_environment(threads=1)).returncode


def _environment(threads: int | None = None) -> dict[str, str]:
    """This environment with the scripts of this Python first on PATH: nbgrader looks for `alembic` there.

    PyTorch and similar libraries use at most `threads` threads.
    """
    path = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", "")))
    pinned = (
        {} if threads is None else {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    )
    return {**os.environ, "PATH": path, **pinned}
