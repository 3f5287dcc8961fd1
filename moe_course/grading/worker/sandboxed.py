"""Workers in a sandbox: started from nothing, or forked by a process that has imported PyTorch already.

A sandbox must be started from a thread that outlives it: the kernel ends it together with that thread.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from moe_course.grading.worker import sandbox, syscalls
from moe_course.grading.worker.memory import family, resident
from moe_course.grading.worker.mounts import COURSE
from moe_course.grading.worker.process import PROGRAM, START_SECONDS, Worker, pipes
from moe_course.grading.worker.sandbox import Limits

FORK_SERVER = Path(__file__).with_name("fork_server.py")
PRELOADED = (
    "torch",
    "matplotlib.pyplot",
    "IPython.core.interactiveshell",
)  # what a worker and set-up cells import
GRACE = 5.0  # seconds that the kernel has to end what was killed


class SandboxedWorker(Worker):
    """A worker process in a sandbox. Whatever it started dies with it."""

    def __init__(self, limits: Limits, masked: Sequence[str] = ()) -> None:
        self._build(limits, masked, [sys.executable, *PROGRAM, COURSE, str(limits.memory)])
        self.requests, self.replies = pipes(self.process)

    def _build(self, limits: Limits, masked: Sequence[str], program: Sequence[str]) -> None:
        """Start `program` in a new sandbox."""
        self.limits = limits
        self._claim = sandbox.own_uid()
        self.uid = self._claim[0] if self._claim else None
        told, tell = os.pipe()
        calls = syscalls.as_file()
        self.process = subprocess.Popen(
            sandbox.command(program, masked, limits, self.uid, info=tell, syscalls=calls),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={},  # bwrap's own environment can be read in /proc of the sandbox
            pass_fds=[tell, calls],
            start_new_session=True,
        )
        os.close(tell)
        os.close(calls)
        with open(told, encoding="utf-8") as info:
            first = json.loads(info.read() or "{}").get("child-pid")
        self.roots: list[int] = []
        self._handle: int | None = None  # stays so where no sandbox came up: the first `ask` will notice
        if first is not None:
            with contextlib.suppress(ProcessLookupError):
                self._handle = os.pidfd_open(first)
                self.roots = [first]

    def main(self) -> int | None:
        inside = self.family()
        return inside[1] if len(inside) > 1 else None  # the first one waits for the others

    def family(self) -> list[int]:
        return [process for root in self.roots for process in family(root)]

    def exit_code(self) -> int | None:
        code = super().exit_code()
        return code if code is None or code <= 128 else 128 - code  # bwrap reports signal 9 as 137

    def resident(self) -> int:
        assert self.limits is not None
        return resident(self.roots, self.limits.memory)

    def kill(self) -> None:
        """End the sandbox's first process, and with it, by the kernel's rule, every process inside."""
        if self._handle is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            _readable(self._handle, GRACE)
            os.close(self._handle)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE)
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        if self._claim:
            self._claim[1].close()

    def complaint(self) -> str:
        """What bubblewrap, or Python before any code of the learner's, had to say."""
        pipe = self.process.stderr
        text = pipe.read(1 << 12) if pipe is not None and _readable(pipe.fileno(), GRACE) else b""
        return (text or b"").decode("utf-8", "replace").strip()


class ForkedWorker(SandboxedWorker):
    """A sandboxed worker that a fork server forks, so that PyTorch is imported already."""

    def __init__(self, fork_server: ForkServer, limits: Limits, masked: Sequence[str] = ()) -> None:
        self._build(limits, masked, ["sh", "-c", "echo; exec cat"])  # holds the sandbox open
        assert self.process.stdout is not None
        self.requests, self.replies = pipes(self.process)
        self._status: TextIO | None = None
        up = _readable(self.process.stdout.fileno(), START_SECONDS) and self.process.stdout.read(1)
        if not up or self._handle is None:
            return
        order = {
            "uid": self.uid,
            "limits": sandbox.rlimits(limits),
            "syscalls": syscalls.program().hex(),
            "arguments": [COURSE, str(limits.memory)],
        }
        try:
            self.requests, self.replies, self._status = fork_server.fork(order, self._handle)
            self.roots.append(int(_line(self._status, START_SECONDS)))
        except (OSError, ValueError):
            self.kill()
            raise OSError("the fork server cannot enter the sandbox") from None

    def main(self) -> int | None:
        return self.roots[-1] if self._status is not None else None

    def exit_code(self) -> int | None:
        if self._status is None:
            return super().exit_code()
        try:
            return int(_line(self._status, GRACE))
        except ValueError:
            return None

    def kill(self) -> None:
        super().kill()
        for pipe in (self.requests, self.replies, self._status):
            if pipe is not None:
                pipe.close()


class ForkServer:
    """The judge's end of a process that forks workers: see fork_server.py. Raises OSError where there is none."""

    def __init__(self) -> None:
        self._orders, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self.process = subprocess.Popen(
                [sys.executable, "-s", "-P", str(FORK_SERVER), *PRELOADED],
                stdin=its.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=sandbox.ENVIRONMENT,
                start_new_session=True,  # an interrupt at the keyboard is the judge's to handle
            )
        self._orders.settimeout(START_SECONDS)
        self.works = self._orders.recv(16) == b"ready"
        if not self.works:
            self.close()
            raise OSError("the fork server did not start")

    def fork(self, order: dict[str, Any], handle: int) -> tuple[BinaryIO, BinaryIO, TextIO]:
        """Fork a worker into the sandbox of the process `handle`: its requests, its replies, its status."""
        (its_requests, requests), (replies, its_replies), (status, its_status) = (os.pipe() for _ in range(3))
        ours = os.fdopen(requests, "wb", 0), os.fdopen(replies, "rb", 0), os.fdopen(status, encoding="ascii")
        given = (its_requests, its_replies, its_status)
        try:
            socket.send_fds(self._orders, [json.dumps(order).encode()], [handle, *given])
        finally:
            for descriptor in given:
                os.close(descriptor)
        return ours

    def close(self) -> None:
        """End the fork server; workers already forked live on."""
        self.works = False
        self._orders.close()
        self.process.kill()
        self.process.wait()


_starting = threading.Lock()


@functools.cache
def _fork_server(judge: int) -> ForkServer | None:
    """The fork server of the judge with this process id, started when first needed."""
    with contextlib.suppress(OSError):
        fork_server = ForkServer()
        atexit.register(fork_server.close)
        return fork_server
    return None


def sandboxed(limits: Limits, masked: Sequence[str] = ()) -> SandboxedWorker:
    """A worker in a sandbox, forked where that works, started from nothing where not."""
    with _starting:  # two threads of a judge must not start two
        fork_server = _fork_server(os.getpid())
    if fork_server and fork_server.works:
        try:
            return ForkedWorker(fork_server, limits, masked)
        except OSError:
            fork_server.close()
    return SandboxedWorker(limits, masked)


def _line(stream: TextIO, seconds: float) -> str:
    """The next line, empty where none comes in time."""
    return stream.readline() if _readable(stream.fileno(), seconds) else ""


def _readable(descriptor: int, seconds: float) -> bool:
    """Wait until there is something to read, or, for a process, until it has ended."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
