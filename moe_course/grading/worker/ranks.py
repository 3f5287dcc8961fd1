"""A function on several processes of this machine, connected by gloo: what exercises about ranks run on.

    totals = on_ranks(3, work)        # [work(0), work(1), work(2)], each in a process of its own

The processes are forks of this one, so they know every function that it knows, also one from a notebook's cell, and
they start in a tenth of a second. They end together: with the first exception, with the first process that dies, and
where all that are left wait for each other. A deadlock is told by what the processes do, not by a clock: each of
their threads sleeps, and none of them will wake another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import io
import linecache
import os
import re
import select
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from moe_course.grading.exercises.protocol import Raised, plain, raised
from moe_course.grading.worker.orphans import end_with
from moe_course.grading.worker.wire import REQUEST, decode, encode

LOOK = 0.05  # seconds between two looks at the processes
STALLED = 0.5  # seconds for which all must have slept
LOOKS = 8  # and so often all must have been seen asleep: between two late looks they may have worked
SECONDS = 20.0  # for all of it, where no deadlock is seen: a loop without end, or a system without /proc
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
NEWEST_FIRST = "(most recent call first):"  # so begins a stack that faulthandler writes
CALLED = re.compile(r'  File "(.*)", line (\d+) in (.*)')  # one of its lines


class RanksFailed(RuntimeError):
    """A process raised an exception or died, or all that were left waited for each other. `error` describes it."""

    def __init__(self, error: Raised):
        super().__init__(f"{error.type_name}: {error.message}")
        self.error = error


def on_ranks(size: int, work: Callable[[int], Any], seconds: float = SECONDS) -> list[Any]:
    """work(rank) on each of `size` processes that form torch.distributed's default group; the results by rank.

    A result is plain data (see `protocol`); what a process prints is printed here, with its rank. Raises RanksFailed,
    ValueError for a size below 1, and OSError on a system that cannot fork (Windows).
    """
    if size < 1:
        raise ValueError(f"at least one process is needed, not {size}")
    if not hasattr(os, "fork"):
        raise OSError("this system cannot fork processes; on Windows, use WSL")
    ranks: list[_Rank] = []
    with contextlib.ExitStack() as stack:
        meeting_point = stack.enter_context(socket.socket())
        meeting_point.bind(("127.0.0.1", 0))
        meeting_point.listen(size)
        try:
            for rank in range(size):
                ranks.append(_Rank(rank, size, meeting_point, work))
            return _results(ranks, time.monotonic() + seconds)
        finally:
            for one in ranks:
                one.end()


class _Rank:
    """One process, as the process that forked it sees it."""

    def __init__(self, rank: int, size: int, meeting_point: socket.socket, work: Callable[[int], Any]):
        self.rank = rank
        self.received = b""
        self.reply: dict[str, Any] | None = (
            None  # after it, the process stays: the others may still hear from it
        )
        self._replies, replies = os.pipe()
        self._words, words = os.pipe()  # where it is, and what libraries of C++ complain of
        os.set_blocking(words, False)
        parent = os.getpid()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads: the child uses none of its parent's
            self.process = os.fork()
        if self.process == 0:
            try:
                end_with(parent)
                os.close(self._replies)
                _run(rank, size, meeting_point, work, replies, words)
            finally:
                os._exit(1)
        os.close(replies)
        os.close(words)

    def fileno(self) -> int:
        return self._replies

    def hear(self) -> bool:
        """Take what it has sent. False where it has ended."""
        piece = os.read(self._replies, 1 << 16)
        self.received += piece
        if len(self.received) >= 8 and len(self.received) - 8 == int.from_bytes(self.received[:8], "big"):
            self.reply = decode(self.received[8:], REQUEST)
        return bool(piece)

    def asleep(self) -> bool:
        """Whether none of its threads has anything to do. False where the system does not tell."""
        states = [_state(thread) for thread in Path(f"/proc/{self.process}/task").glob("*/stat")]
        return bool(states) and all(state == "S" for state in states)

    def ended(self) -> bool:
        return os.waitid(os.P_PID, self.process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def place(self) -> tuple[str, str, str]:
        """Where it is: the innermost function of all, and the learner's innermost function and line."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGUSR1)
        _, _, stack = self.words().rpartition(NEWEST_FIRST)
        calls = [match.groups() for match in map(CALLED.match, stack.splitlines()) if match]
        own = [call for call in calls if not _installed(call[0])]
        inner = next((function for _, _, function in calls if function != "wrapper"), "")
        if not own:
            return inner, "", ""
        file, line, function = own[0]
        return inner, function, linecache.getline(file, int(line)).strip()

    def words(self) -> str:
        """What it has written besides its reply; 0.2 s of silence end it."""
        text = b""
        while select.select([self._words], [], [], 0.2)[0] and (piece := os.read(self._words, 1 << 16)):
            text += piece
        return text.decode("utf-8", "replace")

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.process, 0)
        os.close(self._replies)
        os.close(self._words)


def _results(ranks: Sequence[_Rank], deadline: float) -> list[Any]:
    """What the processes send, or RanksFailed as soon as one of them will send nothing more."""
    last_active, looks = time.monotonic(), 0
    while waiting := [one for one in ranks if one.reply is None]:
        for one in select.select(waiting, [], [], LOOK)[0]:
            last_active, looks = time.monotonic(), 0
            if not one.hear():
                raise RanksFailed(_died(one))
            if one.reply is not None and "raised" in one.reply:
                time.sleep(
                    LOOK
                )  # where another one has died, this exception only says that it is not there any more
                dead = [other for other in waiting if other.reply is None and other.ended()]
                raise RanksFailed(_died(dead[0]) if dead else _told(one.reply["raised"], one.rank))
        now, looks = time.monotonic(), looks + 1
        if not all(one.asleep() for one in waiting):
            last_active, looks = now, 0
        if now - last_active > STALLED and looks >= LOOKS:
            raise RanksFailed(_stalled(ranks, "Deadlock"))
        if now > deadline:
            raise RanksFailed(_stalled(ranks, "TooLong"))
    replies = [one.reply or {} for one in ranks]
    for rank, reply in enumerate(replies):
        for line in reply["printed"].splitlines():
            print(f"[rank {rank}] {line}")
    return [reply["value"] for reply in replies]


def _told(error: Raised, rank: int) -> Raised:
    """The exception of a rank. One without a message stays so: it may be a stub's."""
    message = f"on rank {rank}: {error.message}" if error.message else ""
    return dataclasses.replace(error, message=message)


def _died(one: _Rank) -> Raised:
    _, status = os.waitpid(one.process, 0)
    code = os.waitstatus_to_exitcode(status)
    how = f"exit code {code}" if code >= 0 else f"signal {-code}"
    return Raised(
        "RankDied", ("RankDied", "RuntimeError"), f"the process of rank {one.rank} ended with {how}"
    )


def _stalled(ranks: Sequence[_Rank], kind: str) -> Raised:
    """What each rank was doing. The place is that of the first one in the learner's code."""
    words, place = [], ("", "")
    for one in ranks:
        if one.reply is not None:
            words.append(f"rank {one.rank} has returned")
            continue
        inner, function, line = one.place()
        place = place if place[0] else (function, line)
        at = f", called by {function} at `{line}`" if function else ""
        words.append(
            f"rank {one.rank} {'waits' if kind == 'Deadlock' else 'still runs'} in {inner or 'PyTorch'}{at}"
        )
    why = "nothing can go on" if kind == "Deadlock" else "no end was seen"
    return Raised(kind, (kind, "RuntimeError"), f"{why}: {'; '.join(words)}", *place)


def _run(
    rank: int,
    size: int,
    meeting_point: socket.socket,
    work: Callable[[int], Any],
    replies: int,
    words: int,
) -> None:
    """All that a forked process does. One thread first: those of OpenMP do not survive a fork."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the stop button is for the parent, which ends all
    signal.setitimer(signal.ITIMER_REAL, 0)
    faulthandler.disable()  # a process that ends is the parent's to tell about
    faulthandler.register(signal.SIGUSR1, file=words, all_threads=False)
    os.dup2(words, 2)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            os.environ["GLOO_SOCKET_IFNAME"] = LOOPBACK
            wait = timedelta(seconds=600)  # the parent sees sooner that nothing can go on
            listening = meeting_point.fileno() if rank == 0 else None
            store = dist.TCPStore(
                "127.0.0.1",
                meeting_point.getsockname()[1],
                world_size=size,
                is_master=rank == 0,
                timeout=wait,
                wait_for_workers=False,
                master_listen_fd=listening,
            )
            dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=wait)
            value = plain(work(rank))
        reply = encode({"value": value, "printed": printed.getvalue()[:20_000]}, REQUEST)
    except BaseException as error:
        reply = encode({"raised": raised(error)})
    rest = memoryview(len(reply).to_bytes(8, "big") + reply)
    while rest:
        rest = rest[os.write(replies, rest) :]
    signal.pause()


def _state(stat: Path) -> str:
    """The state of a thread, as Linux tells it: R runs, S sleeps."""
    try:
        return stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "S"  # it has ended meanwhile


def _installed(file: str) -> bool:
    """Whether a file belongs to Python, to an installed package, or to the course."""
    inside = ("site-packages", "/lib/python", "/moe_course/grading/", "/graders/probes/")
    return file.startswith("<frozen") or any(part in file for part in inside)
