"""The learner's code as a grader sees it: something that runs probes and answers with plain data.

A probe is a trusted function `probe(namespace, *args, **kwargs)` of `graders.probes`. `LiveSubject` runs it in
this process, `WorkerSubject` in a process of its own. Both send arguments and replies through the same wire
format, so a test file cannot tell them apart.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from threading import Thread
from typing import Any, BinaryIO, Protocol

from moe_course.grading.locate import graders_dir
from moe_course.grading.protocol import Raised, decode, encode, plain, raised, read_frame, write_frame

Probe = Callable[..., Any]


class SubjectLost(Exception):
    """The learner's code gave no answer. `status` is the exercise's status from here on."""

    def __init__(self, status: str, reason: str):
        super().__init__(reason)
        self.status = status
        self.reason = reason


class ProbeFailed(Exception):
    """A probe met an exception that it does not report itself."""

    def __init__(self, error: Raised):
        super().__init__(f"{error.type_name}: {error.message}")
        self.error = error


class Subject(Protocol):
    """What a grader is handed."""

    def run(self, probe: Probe, *args: Any, **kwargs: Any) -> Any:
        """Run a probe beside the learner's code and return its plain reply."""


def run_probe(probe: Probe, namespace: Mapping[str, Any], args: Any, kwargs: Any) -> dict[str, Any]:
    """Run a probe; the reply says whether a value came back or an exception."""
    try:
        return {"value": plain(probe(namespace, *args, **kwargs))}
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit and the like: a learner's quit() must not end the grading
        return {"raised": raised(error)}


def _open(reply: Any) -> Any:
    if not isinstance(reply, dict) or not ({"value", "raised"} & reply.keys()):
        raise SubjectLost("crashed", "the reply of the worker makes no sense")
    if isinstance(error := reply.get("raised"), Raised):
        raise ProbeFailed(error)
    return reply.get("value")


class LiveSubject:
    """The learner's namespace in this very process."""

    def __init__(self, namespace: Mapping[str, Any]):
        self.namespace = namespace

    def run(self, probe: Probe, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = decode(encode(plain((args, kwargs))))
        return _open(decode(encode(run_probe(probe, self.namespace, args, kwargs))))


class WorkerSubject:
    """A process that holds the learner's cells and the probes, started when first needed.

    After a crash or a timeout the next `run` starts a fresh process with the same cells.
    """

    def __init__(self, cells: Sequence[str], seconds: float = 30.0, start_seconds: float = 120.0):
        self.cells = list(cells)
        self.seconds = seconds
        self.start_seconds = start_seconds
        self.cell_errors: list[Raised | None] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def run(self, probe: Probe, *args: Any, **kwargs: Any) -> Any:
        if self._process is None:
            self.start()
        message = {"probe": f"{probe.__module__}:{probe.__qualname__}", "args": args, "kwargs": kwargs}
        return _open(self._ask(message, self.seconds))

    def start(self) -> None:
        """Start the process and run the learner's cells in it."""
        self._folder = tempfile.TemporaryDirectory(prefix="moe-course-", ignore_cleanup_errors=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("NBGRADER")}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "moe_course.grading.worker", str(graders_dir().parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._folder.name,
            env=environment | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        reply = self._ask({"cells": self.cells}, self.start_seconds)
        self.cell_errors = list(reply.get("errors", [])) if isinstance(reply, dict) else []

    def close(self) -> None:
        """End the process and whatever it started in its session."""
        if self._process is not None:
            _kill_session(self._process)
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> WorkerSubject:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _ask(self, message: Any, seconds: float) -> Any:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        answer: Future[Any] = Future()
        Thread(
            target=_exchange, args=(process.stdin, process.stdout, plain(message), answer), daemon=True
        ).start()
        try:
            return answer.result(timeout=seconds)
        except TimeoutError:
            self.close()
            raise SubjectLost("timed out", f"no answer within {seconds:g} seconds") from None
        except (EOFError, OSError, ValueError) as error:
            code = _exit_code(process)
            self.close()
            ended = f"the process ended with {code}" if code is not None else str(error)
            raise SubjectLost("crashed", ended) from None


def _exchange(requests: BinaryIO, replies: BinaryIO, message: Any, answer: Future[Any]) -> None:
    """Send and receive in a thread of its own, the one way to wait with a deadline on every system."""
    try:
        write_frame(requests, message)
        answer.set_result(read_frame(replies))
    except (EOFError, OSError, ValueError) as error:  # ProtocolError is a ValueError, so is a closed pipe
        answer.set_exception(error)


def _exit_code(process: subprocess.Popen[bytes]) -> str | None:
    try:
        code = process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return None
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            process.kill()
    else:
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
