"""The process that runs a learner's code in batch grading. It holds no test and no expected value.

    python -c "from moe_course.grading.worker.serve import main; main()" FOLDER_OF_GRADERS [BYTES_OF_MEMORY]

It is imported, and not run as the main module: that one is the learner's notebook.

It first receives the learner's cells, one at a time, and runs each in `notebook.Notebook`; then it answers one probe
after the other. Frames go through private copies of stdin and stdout, so nothing that a submission prints can get
between them.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.abc import MetaPathFinder
from typing import Any, BinaryIO

from moe_course.grading.exercises import protocol
from moe_course.grading.exercises.protocol import ForbiddenImport, Raised, plain, raised
from moe_course.grading.worker import syscalls
from moe_course.grading.worker.clock import Clock
from moe_course.grading.worker.orphans import end_with
from moe_course.grading.worker.overtime import watched
from moe_course.grading.worker.pristine import Disturbed, intact, release, remembered_probes, restore
from moe_course.grading.worker.settings import neutral_settings
from moe_course.grading.worker.wire import REQUEST, encode, read_frame, send, write_frame

CELL_SECONDS = 20.0  # for one cell; after that, what is left of it goes on for a moment
AGAIN = 2.0  # that moment
LOOK = 0.25  # seconds between two looks at the clock
NICE = 5  # how far workers stand back behind the judge and what else runs on the machine
OUT_OF_MEMORY = 12  # the exit code where a MemoryError ends the process


class Mask(MetaPathFinder):
    """Makes the import of a masked module raise ForbiddenImport."""

    def __init__(self, modules: Sequence[str]):
        self.modules = frozenset(modules)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name in self.modules:
            raise ForbiddenImport(
                f"{name} holds the answers of this notebook, so it cannot be imported while it is graded"
            )


@contextlib.contextmanager
def interrupted_after(
    seconds: float, what: str = "the cell", error: type[BaseException] = TimeoutError
) -> Iterator[None]:
    """Raise `error` in code that runs longer, and again every `AGAIN` seconds until it ends.

    Time in which other processes had the processor does not count. Where there are no alarms (on Windows, and in
    another thread than the main one), a thread does it. A submission can evade this; it cannot evade the judge's own
    deadline.
    """
    clock, limit = Clock(None), seconds
    every, said = min(LOOK, seconds), f"{what} was stopped after {seconds:g} seconds"

    def is_late() -> bool:
        nonlocal limit
        if clock.spent() < limit:
            return False
        limit = clock.spent() + AGAIN
        return True

    def look(*_: Any) -> None:
        if is_late():
            raise error(said)

    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        with watched(is_late, every, error, said):
            yield
        return
    before = signal.signal(signal.SIGALRM, look)
    timer = signal.setitimer(signal.ITIMER_REAL, every, every)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def answer(
    number: int,
    probe: Callable[..., Any],
    namespace: Mapping[str, Any],
    args: Any,
    kwargs: Any,
    largest: tuple[int, int],
) -> bytes:
    """Run a probe; the frame of the reply says whether a value came back or an exception."""
    try:
        return encode({"number": number, "value": plain(probe(namespace, *args, **kwargs))}, largest)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit and the like: a learner's quit() must not end the grading
        return encode({"number": number, "raised": raised(error)})


def ask(requests: BinaryIO, replies: BinaryIO, number: int, *question: Any) -> Any:
    """Ask the judge in the middle of a probe. Raises ValueError where it cannot compute an answer."""
    send(replies, encode({"number": number, "question": plain(question)}))
    told = read_frame(requests)
    if "refused" in told:
        raise ValueError(told["refused"])
    return told["answer"]


def unknown(namespace: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
    """Stands for a probe that there is none of."""
    raise ValueError("this is no probe")


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer until the judge hangs up. Each reply carries the number of its request.

    The first request names the masked modules and the seconds of a cell, then come the cells, then the probes. Except
    in a cell, and where a probe calls `theirs`, everything runs on what was remembered before the first cell; what
    this needs is held in local variables, which no submission can set.
    """
    from moe_course.grading.worker.notebook import Notebook

    notebook = Notebook.instance()
    budget = Budget(CELL_SECONDS)
    probes, memory = remembered_probes()
    again, code, sound = restore, restore.__code__, intact
    frame = b""
    paused: dict[int, dict[str, Any]] = {}  # the names after so many cells
    while True:
        with neutral_settings():
            again.__code__ = code
            again(memory)
            try:
                if frame:
                    send(replies, frame)
                message = read_frame(requests, REQUEST)
                frame = encode({"number": message["number"], "error": None})
                if "probe" in message:
                    probe = dict(probes).get(message["probe"], unknown)
                    kwargs = message["kwargs"]
                    if message.get("asks"):
                        kwargs = {**kwargs, "ask": partial(ask, requests, replies, message["number"])}
                    given = (message["args"], kwargs, message["largest"])
                    with as_it_was(notebook.user_ns, paused.get(message.get("after"), {})):
                        frame = answer(message["number"], probe, notebook.user_ns, *given)
                    if not sound(memory):
                        again.__code__ = code
                        again(memory)
                        frame = encode({"number": message["number"], "raised": raised(Disturbed())})
            except EOFError:
                return
            finally:
                release()
        if "masked" in message:
            sys.meta_path.insert(0, Mask(message["masked"]))
            budget = Budget(message["cell_seconds"])
        elif "cell" in message:
            error = run_cell(notebook, message["cell"], message["lost"], budget)
            frame = encode({"number": message["number"], "error": error})
            if "pause" in message:
                paused[message["pause"]] = dict(notebook.user_ns)


@contextlib.contextmanager
def as_it_was(names: dict[str, Any], then: Mapping[str, Any]) -> Iterator[None]:
    """Give names the values that they had; afterwards they are as before. Names that came later stay."""
    changed = {name: value for name, value in then.items() if names.get(name) is not value}
    now = {name: names[name] for name in changed if name in names}
    names.update(changed)
    try:
        yield
    finally:
        for name in changed:
            names.pop(name, None)
        names.update(now)


class Budget:
    """The seconds that the cells of a notebook have left: ten times what one of them may use."""

    def __init__(self, cell_seconds: float) -> None:
        self.each, self.left = cell_seconds, 10 * cell_seconds

    def for_a_cell(self) -> float:
        """When all is used up, each of the cells that follow still has a moment."""
        return max(min(AGAIN, self.each), min(self.each, self.left))


def run_cell(notebook: Any, source: str, lost: str, budget: Budget) -> Raised | None:
    """Run a cell, or with `lost` say of each of its names why the cell was not run. Returns its first error."""
    if lost:
        notebook.lose(source, lost)
        return None
    clock = Clock(None)
    try:
        with interrupted_after(budget.for_a_cell()):
            return notebook.run(source)
    except BaseException as error:  # what strikes between two statements: an alarm, a lack of memory
        notebook.lose(source, described := raised(error))
        return described
    finally:
        budget.left -= clock.spent()


def prepare(memory: int | None) -> None:
    """One thread, seeds that repeat, no self-checks, and no more address space than memory allows."""
    import numpy
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    numpy.random.seed(0)
    random.seed(0)
    protocol.CHECKS_DISABLED = True  # a submission's own check(...) calls cost no time here
    torch.compile = _uncompiled
    if hasattr(os, "nice"):
        os.nice(NICE)
    if memory is not None:  # a fence of its own: one huge allocation fails at once, as a MemoryError
        import resource

        syscalls.fresh_keyring()
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="utf-8") as file:
            file.write("1000")  # where the machine itself runs out, this process goes first
        with open("/proc/self/statm", encoding="utf-8") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + 2 * memory,) * 2)


def _uncompiled(model: Any = None, **options: Any) -> Any:
    """`torch.compile` where there is no compiler: the function itself, which gives the same results."""
    return (lambda function: function) if model is None else model


def main() -> None:
    if len(sys.argv) == 2:  # there are no walls, which else see to this
        end_with(os.getppid())
    sys.path.append(sys.argv[1])
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nothing, descriptor)
    prepare(int(sys.argv[2]) if len(sys.argv) > 2 else None)
    os.dup2(nothing, 2)  # until here, what went wrong is told; from here on a submission may flood it
    try:
        write_frame(replies, "ready")
        serve(requests, replies)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    os._exit(0)  # no clean-up that a submission could have planted
