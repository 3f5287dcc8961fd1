"""A worker as a process: started, asked with a deadline, watched and killed. `sandboxed` puts walls around it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from threading import Thread
from typing import Any, BinaryIO

from moe_course.grading.exercises.locate import graders_dir
from moe_course.grading.worker import memory
from moe_course.grading.worker.clock import Clock
from moe_course.grading.worker.sandbox import Limits
from moe_course.grading.worker.serve import OUT_OF_MEMORY
from moe_course.grading.worker.wire import REPLY, REQUEST, ProtocolError, read_frame, write_frame

PROGRAM = (
    "-s",
    "-P",
    "-c",
    "from moe_course.grading.worker.serve import main; main()",
)  # no user packages, no "."
START_SECONDS = (
    300.0  # for Python and PyTorch, before any code of the learner's runs, on a machine that may be busy
)
SPARE = 256 << 20  # bytes of the machine's memory that are never given to submissions
WATCH = 0.05  # seconds between two looks at the memory


Talk = Callable[[Any], dict[str, Any] | None]


class SubjectLost(Exception):
    """The learner's code gave no answer. `status` is the exercise's status from here on."""

    def __init__(self, status: str, reason: str):
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Worker:
    """A worker process with no walls around it: for a learner's own file, and where there is no sandbox."""

    limits: Limits | None = None

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="moe-course-", ignore_cleanup_errors=True)
        outside = {key: value for key, value in os.environ.items() if not key.startswith("NBGRADER")}
        self.process = subprocess.Popen(
            [sys.executable, *PROGRAM, str(graders_dir().parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd=self._folder.name,
            env=outside | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
            start_new_session=True,
        )
        self.requests, self.replies = pipes(self.process)

    def main(self) -> int | None:
        """The process that answers; None where it is not known."""
        return self.process.pid

    def family(self) -> list[int]:
        """The processes that belong to the worker, as far as somebody watches them."""
        return []

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        try:
            return self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return None

    def complaint(self) -> str:
        """What a worker that did not start had to say."""
        return ""

    def resident(self) -> int:
        """Bytes of memory held by the worker and all that it started; 0 where nobody watches."""
        return 0

    def kill(self) -> None:
        """End the worker and whatever it started in its session."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (AttributeError, ProcessLookupError, PermissionError):  # Windows has no killpg
            self.process.kill()
        self.process.wait()
        self.requests.close()
        self.replies.close()
        self._folder.cleanup()


def ask(
    worker: Worker,
    message: Any,
    seconds: float,
    clock: Clock | None = None,
    talk: Talk | None = None,
    largest: tuple[int, int] = REPLY,
) -> Any:
    """The worker's reply to a message, or its first words where there is none.

    seconds: the deadline, by a `clock` that counts neither the time in which other processes had the processor nor
    that which the judge takes in `talk`.
    talk: what to send back on a question that comes before the reply; None on the reply itself.
    largest: the most bytes of text and of tensors that the reply may have.
    Raises SubjectLost where nothing comes in time, or the worker ends or uses too much memory.
    """
    clock = clock or Clock(worker.main(), worker.family())
    answer: Future[Any] = Future()
    exchange = partial(_exchange, worker.requests, worker.replies, message, answer, clock, talk, largest)
    Thread(target=exchange, daemon=True).start()
    while True:
        try:
            reply = answer.result(timeout=WATCH)
            break
        except TimeoutError:
            _check_memory(worker)
            if late := clock.over(seconds, worker.family()):
                raise SubjectLost("timed out", late) from None
        except (EOFError, OSError, ValueError) as error:
            raise _ended(worker, error) from None
    _check_memory(worker)
    return reply


def _exchange(
    requests: BinaryIO,
    replies: BinaryIO,
    message: Any,
    answer: Future[Any],
    clock: Clock,
    talk: Talk | None,
    largest: tuple[int, int],
) -> None:
    """Send and receive in a thread of its own, the one way to wait with a deadline on every system."""
    try:
        if message is not None:
            write_frame(requests, message, REQUEST)
        reply = read_frame(replies, largest)
        while talk is not None:
            with clock.stopped():
                more = talk(reply)
            if more is None:
                break
            write_frame(requests, more, REQUEST)
            reply = read_frame(replies, largest)
        answer.set_result(reply)
    except (EOFError, OSError, ValueError) as error:  # ProtocolError is a ValueError, so is a closed pipe
        answer.set_exception(error)


def _check_memory(worker: Worker) -> None:
    if worker.limits is None:
        return
    used, limit = worker.resident(), worker.limits.memory
    if used > limit:
        raise SubjectLost("out of memory", f"used {used >> 20} MiB; the limit is {limit >> 20} MiB")
    if memory.available() < SPARE:  # whoever used it, and in whatever way: nobody gets a zero for this
        why = "the machine ran out of memory: grade again, with fewer jobs at a time"
        raise SubjectLost("ungradable", why)


def _ended(worker: Worker, error: Exception) -> SubjectLost:
    """What became of a worker that sends nothing more."""
    code = None if isinstance(error, ProtocolError) else worker.exit_code()
    if code is None:
        return SubjectLost("crashed", str(error))
    if code == OUT_OF_MEMORY:
        return SubjectLost("out of memory", "a MemoryError ended the process")
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        if name == "SIGXCPU":
            return SubjectLost("timed out", "used more processor time than it may")
        return SubjectLost("crashed", f"the process was ended by {name}")
    return SubjectLost("crashed", f"the process ended with exit code {code}")


def pipes(process: subprocess.Popen[bytes]) -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output, unbuffered: a buffer's lock would keep `kill` waiting for a reader."""
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout  # type: ignore[return-value]
