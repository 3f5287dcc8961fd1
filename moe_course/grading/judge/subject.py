"""The learner's code as a grader sees it: something that runs probes and answers with plain data.

A probe is a trusted function `probe(namespace, *args, **kwargs)` of `graders.probes`. `LiveSubject` runs it in
this process, `WorkerSubject` in a process of its own. Both send arguments and replies through the same wire
format, so a test file cannot tell them apart.
"""

from __future__ import annotations

import contextlib
import math
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from moe_course.grading.exercises.protocol import ForbiddenImport, Outcome, Raised, plain, raised
from moe_course.grading.exercises.registry import PART_OF
from moe_course.grading.worker.clock import Clock
from moe_course.grading.worker.process import START_SECONDS, SubjectLost, Worker, ask
from moe_course.grading.worker.sandbox import Limits
from moe_course.grading.worker.sandboxed import sandboxed
from moe_course.grading.worker.serve import CELL_SECONDS, answer, interrupted_after
from moe_course.grading.worker.settings import Excerpt
from moe_course.grading.worker.wire import REPLY, REQUEST, ProtocolError, conforms, decode, encode, hints

Probe = Callable[..., Any]
Answers = Callable[..., Any]
MAX_CODE = (
    8_000_000  # bytes of all cells of a submission together; the largest notebook of the course has 60,000
)
ENVIRONMENT = {
    "ImportError",
    "OSError",
    "MemoryError",
}  # exceptions, and kinds of them, that hint at the sandbox
EXERCISE_SECONDS = 120.0  # for all probes of one exercise
PROBE_SECONDS = 30.0  # for one of them
MAX_LOST_CELLS = 3  # cells that may end their process before the rest is given up


class ProbeFailed(Exception):
    """A probe met an exception that it does not report itself."""

    def __init__(self, error: Raised):
        super().__init__(f"{error.type_name}: {error.message}")
        self.error = error


class Stopped(KeyboardInterrupt):
    """The time of a live check is over. Like the stop button's, no probe takes it for the learner's exception."""


class Subject(Protocol):
    """What a grader is handed.

    largest: the most bytes of text and of tensors that a reply may have; printed: what the code printed when it was
    asked last, where that is kept; stood_in: the earlier exercises for which a stand-in answered.
    """

    largest: tuple[int, int]
    stood_in: set[str]

    @property
    def printed(self) -> str: ...

    def run(self, probe: Probe, *args: Any, answers: Answers | None = None, **kwargs: Any) -> Any:
        """Run a probe beside the learner's code and return its plain reply.

        With `answers` the probe gets one argument more, `ask`: a function that calls `answers` here, where the judge
        is. The learner's process sees what it returns, and nothing of how.
        """


class LiveSubject:
    """The learner's namespace in this very process. It has the time that a worker has."""

    def __init__(self, namespace: Mapping[str, Any], seconds: float = PROBE_SECONDS):
        self.namespace = namespace
        self.largest = REPLY
        self.seconds = seconds
        self.stood_in: set[str] = set()
        self._prints = Excerpt()
        self._left = EXERCISE_SECONDS

    @property
    def printed(self) -> str:
        return str(self._prints)

    def run(self, probe: Probe, *args: Any, answers: Answers | None = None, **kwargs: Any) -> Any:
        args, kwargs = decode(encode(plain((args, kwargs)), REQUEST), REQUEST)
        if answers is not None:
            kwargs["ask"] = lambda *question: decode(encode(plain(answers(*decode(encode(plain(question)))))))
        try:
            with self._in_time():
                reply = decode(answer(0, probe, self.namespace, args, kwargs, self.largest), self.largest)
        except ProtocolError as error:
            raise ProbeFailed(raised(error)) from None
        value = _open(reply, 0, probe)
        self.stood_in |= _stand_ins(value)
        return value

    @contextlib.contextmanager
    def _in_time(self) -> Iterator[None]:
        """Stop what takes too long, and keep an excerpt of what it prints."""
        self._prints = Excerpt()
        clock = Clock(None)
        try:
            with (
                contextlib.redirect_stdout(self._prints),
                contextlib.redirect_stderr(self._prints),
                interrupted_after(max(0.1, min(self.seconds, self._left)), "your code", Stopped),
            ):
                yield
        except Stopped as stopped:
            raise SubjectLost("timed out", where_stopped(stopped)) from None
        finally:
            self._left -= clock.spent()


def where_stopped(stop: KeyboardInterrupt) -> str:
    """Why the learner's code was stopped, and where it was."""
    told = raised(stop)
    place = f", in {told.function}, at: {told.line}" if told.line else ""
    return f"{told.message or 'your code was stopped'}{place}\nDoes a loop in your code ever end?"


class WorkerSubject:
    """A process that holds the learner's cells and the probes, started when first needed.

    After a crash or a timeout the next `run` starts a fresh process with the same cells. A cell that ended its
    process is not run again: its names say why they are not there. With `limits` the process is sandboxed. Importing
    one of the `masked` modules makes an exercise "forbidden". After each number of cells in `pauses` the names are
    remembered, so that an exercise can be asked for as it was there.

    cell_errors: for each cell its first error, or None; lost_cells: the cells that ended a process, by their place.
    """

    def __init__(
        self,
        cells: Sequence[str],
        limits: Limits | None = None,
        masked: Sequence[str] = (),
        *,
        pauses: Iterable[int] = (),
        seconds: float = PROBE_SECONDS,
        cell_seconds: float = CELL_SECONDS,
    ):
        self.cells = list(cells)
        self.limits = limits
        self.masked = list(masked)
        self.pauses = frozenset(pauses)
        self.seconds = seconds
        self.cell_seconds = cell_seconds
        self.largest = REPLY
        self.printed = ""  # nobody sees it
        self.stood_in: set[str] = set()
        self.cell_errors: list[Raised | None] = []
        self.lost_cells: dict[int, SubjectLost] = {}
        self._answers = 0  # replies of this exercise in which no exception was reported
        self._first: Raised | None = None  # the first exception that one reported
        self._worker: Worker | None = None
        self._left = math.inf
        self._after: int | None = None

    def allow(self, seconds: float, after: int | None = None) -> None:
        """From now on, all probes together have this long, until the next call. Running the cells does not count.

        after: one of the `pauses`; the probes meet the names as they were there.
        """
        self._after = after
        self._left, self._answers, self._first, self.stood_in = seconds, 0, None, set()

    def doubts(self) -> str:
        """Why a person should look at the exercise judged since the last `allow`, if it lost points, or "".

        The sandbox may have failed where the learner's notebook did not: a cell came to no end here, or the code
        meets a missing name, module or file, or a lack of memory, in whatever it is asked.
        """
        cut = (TimeoutError.__name__, MemoryError.__name__)
        stopped = [loss.reason for loss in self.lost_cells.values()]
        stopped += [error.message for error in self.cell_errors if error and error.type_name in cut]
        if stopped:
            return (
                f"a cell of the notebook came to no end here ({stopped[0][:200]}): does the answer need it?"
            )
        first = self._first
        if first and not self._answers and (first.type_name == "NameError" or ENVIRONMENT & {*first.bases}):
            said = f"{first.type_name}: {first.message[:200]}"
            return f"the code raised an exception whatever it was asked ({said}): does it in a notebook?"
        return ""

    def run(self, probe: Probe, *args: Any, answers: Answers | None = None, **kwargs: Any) -> Any:
        if self._worker is None:
            self.start()
        if self._left <= 0:
            self.close()
            raise SubjectLost("timed out", "the exercise took too long in all")
        message: dict[str, Any] = {
            "probe": f"{probe.__module__}:{probe.__qualname__}",
            "args": plain(args),
            "kwargs": plain(kwargs),
            "largest": self.largest,
        }
        if answers is not None:
            message["asks"] = True
        if self._after is not None:
            message["after"] = self._after
        return self._ask(message, min(self.seconds, self._left), probe, answers)

    def start(self) -> None:
        """Start the process and run the learner's cells in it."""
        self.close()
        if (size := sum(len(cell.encode("utf-8", "replace")) for cell in self.cells)) > MAX_CODE:
            raise SubjectLost(
                "ungradable",
                f"the code of this submission has {size / 1e6:.1f} MB, more than {MAX_CODE / 1e6:g}: "
                "is there data in it? Ask for a file that holds the code alone",
            )
        while len(self.lost_cells) <= MAX_LOST_CELLS:
            if self._run_cells():
                return
        raise list(self.lost_cells.values())[-1]

    def loss_of(self, definitions: Iterable[str]) -> SubjectLost | None:
        """What became of the process in a cell that holds one of these pieces of code, if it ended there."""
        if self._worker is None:
            self.start()
        lost = [(self.cells[place], loss) for place, loss in self.lost_cells.items()]
        return next((loss for cell, loss in lost for code in definitions if code in cell), None)

    def close(self) -> None:
        """End the process and whatever it started."""
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def __enter__(self) -> WorkerSubject:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run_cells(self) -> bool:
        """Run the cells in a new process. False where one of them ended it; that one is remembered."""
        self._worker = Worker() if self.limits is None else sandboxed(self.limits, self.masked)
        try:
            ask(self._worker, None, START_SECONDS)
        except SubjectLost as lost:
            why = f"the worker did not start ({lost.reason}) {self._worker.complaint()}"
            self.close()
            raise SubjectLost("ungradable", why.strip()) from None
        self._ask({"masked": self.masked, "cell_seconds": self.cell_seconds}, START_SECONDS)
        self.cell_errors = []
        for place, cell in enumerate(self.cells):
            known = self.lost_cells.get(place)
            try:
                lost_as = f"{known.status}: {known.reason}" if known else ""
                message: dict[str, Any] = {"cell": cell, "lost": lost_as}
                message |= {"pause": place + 1} if place + 1 in self.pauses else {}
                self.cell_errors.append(self._ask(message, 3 * self.cell_seconds + 5))
            except SubjectLost as lost:
                if lost.status == "ungradable":
                    raise
                self.lost_cells[place] = SubjectLost(lost.status, f"while a cell ran: {lost.reason}")
                return False
        return True

    def _ask(
        self,
        message: dict[str, Any],
        seconds: float,
        probe: Probe | None = None,
        answers: Answers | None = None,
    ) -> Any:
        assert self._worker is not None
        number = secrets.randbits(64)
        clock = Clock(self._worker.main(), self._worker.family())
        try:
            talk = partial(_answer, answers, number) if answers else None
            reply = ask(self._worker, {"number": number, **message}, seconds, clock, talk, self.largest)
            value = _open(reply, number, probe)
            error = next(_errors(value), None) if probe is not None else None
            self._first = self._first or error
            self._answers += error is None
            self.stood_in |= _stand_ins(value)
            return value
        except ProbeFailed as failed:
            self._first = self._first or failed.error
            raise
        except SubjectLost as lost:
            if lost.status != "forbidden":
                self.close()
            raise
        finally:
            if probe is not None:
                self._left -= clock.spent()


def _answer(answers: Answers, number: int, reply: Any) -> dict[str, Any] | None:
    """The answer to a question of the probe's, or why there is none; None where the reply is no question."""
    match reply:
        case {"number": int(echo), "question": tuple(question)} if echo == number:
            try:
                return {"answer": plain(answers(*question))}
            except Exception as error:  # a submission can ask what it likes
                return {"refused": f"this cannot be computed ({type(error).__name__})"}
    return None


def _open(reply: Any, number: int, probe: Probe | None) -> Any:
    """The content of a reply. Raises SubjectLost where it cannot be the answer to this request and this probe."""
    match reply:
        case {"number": int(echo), "error": value, **rest} if probe is None:
            sound = not rest and conforms(value, Raised | None)
        case {"number": int(echo), "raised": Raised() as error, **rest} if probe is not None:
            sound, value = not rest, error
        case {"number": int(echo), "value": value, **rest} if probe is not None:
            sound = not rest and conforms(value, hints(probe).get("return", Any))
        case _:
            echo, sound, value = -1, False, None
    if echo != number or not sound:
        raise SubjectLost("crashed", "the reply is not what the probe returns: something else wrote it")
    if probe is None:
        return value
    for found in _errors(value):
        if ForbiddenImport.__name__ in found.bases:
            raise SubjectLost("forbidden", found.message)
    if type(value) is Raised:
        raise ProbeFailed(value)
    return value


def _stand_ins(value: Any) -> set[str]:
    """The earlier exercises for which a stand-in answered, as far as they are any."""
    return {*value.stood_in} & PART_OF.keys() if isinstance(value, Outcome) else set()


def _errors(value: Any) -> Iterator[Raised]:
    """Every exception that a reply reports."""
    if isinstance(value, Raised):
        yield value
    elif isinstance(value, Outcome):
        yield from _errors((value.error, value.value))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _errors(item)
    elif isinstance(value, dict):
        yield from _errors(list(value.values()))
