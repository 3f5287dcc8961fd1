"""The learner's code as a grader sees it: something that runs probes and answers with plain data.

A probe is a trusted function `probe(namespace, *args, **kwargs)` of `graders.probes`. `LiveSubject` runs it in
this process, `WorkerSubject` in a process of its own. Both send arguments and replies through the same wire
format, so a test file cannot tell them apart.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from moe_course.grading.exercises.protocol import ForbiddenImport, Outcome, Raised, plain, raised
from moe_course.grading.worker.process import START_SECONDS, SubjectLost, Worker, ask
from moe_course.grading.worker.sandbox import Limits
from moe_course.grading.worker.sandboxed import sandboxed
from moe_course.grading.worker.serve import answer
from moe_course.grading.worker.wire import ProtocolError, conforms, decode, encode, hints

Probe = Callable[..., Any]


class ProbeFailed(Exception):
    """A probe met an exception that it does not report itself."""

    def __init__(self, error: Raised):
        super().__init__(f"{error.type_name}: {error.message}")
        self.error = error


class Subject(Protocol):
    """What a grader is handed."""

    def run(self, probe: Probe, *args: Any, **kwargs: Any) -> Any:
        """Run a probe beside the learner's code and return its plain reply."""


class LiveSubject:
    """The learner's namespace in this very process."""

    def __init__(self, namespace: Mapping[str, Any]):
        self.namespace = namespace

    def run(self, probe: Probe, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = decode(encode(plain((args, kwargs))))
        try:
            reply = decode(answer(0, probe, self.namespace, args, kwargs))
        except ProtocolError as error:
            raise ProbeFailed(raised(error)) from None
        return _open(reply, 0, probe)


class WorkerSubject:
    """A process that holds the learner's cells and the probes, started when first needed.

    After a crash or a timeout the next `run` starts a fresh process with the same cells. With `limits` the process
    is sandboxed. Importing one of the `masked` modules makes an exercise "forbidden".
    """

    def __init__(
        self,
        cells: Sequence[str],
        limits: Limits | None = None,
        masked: Sequence[str] = (),
        *,
        seconds: float = 30.0,
        cells_seconds: float = 240.0,
    ):
        self.cells = list(cells)
        self.limits = limits
        self.masked = list(masked)
        self.seconds = seconds
        self.cells_seconds = cells_seconds
        self.cell_errors: list[Raised | None] = []
        self._worker: Worker | None = None
        self._lost_in_cells: SubjectLost | None = None
        self._until = math.inf

    def allow(self, seconds: float) -> None:
        """From now on, all probes together have this long, until the next call."""
        self._until = time.monotonic() + seconds

    def run(self, probe: Probe, *args: Any, **kwargs: Any) -> Any:
        if self._worker is None:
            self.start()
        left = self._until - time.monotonic()
        if left <= 0:
            self.close()
            raise SubjectLost("timed out", "the exercise took too long in all")
        message = {"probe": f"{probe.__module__}:{probe.__qualname__}", "args": args, "kwargs": kwargs}
        return self._ask(message, min(self.seconds, left), probe)

    def start(self) -> None:
        """Start the process and run the learner's cells in it. Cells that ended one process do not get another."""
        self.close()
        if self._lost_in_cells:
            raise self._lost_in_cells
        self._worker = Worker() if self.limits is None else sandboxed(self.limits, self.masked)
        try:
            ask(self._worker, None, START_SECONDS)
        except SubjectLost as lost:
            why = f"the worker did not start ({lost.reason}) {self._worker.complaint()}"
            self.close()
            raise SubjectLost("ungradable", why.strip()) from None
        try:
            self.cell_errors = self._ask({"cells": self.cells, "masked": self.masked}, self.cells_seconds)
        except SubjectLost as lost:
            if lost.status != "ungradable":
                lost = self._lost_in_cells = SubjectLost(lost.status, f"while the cells ran: {lost.reason}")
            raise lost from None

    def close(self) -> None:
        """End the process and whatever it started."""
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def __enter__(self) -> WorkerSubject:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _ask(self, message: dict[str, Any], seconds: float, probe: Probe | None = None) -> Any:
        assert self._worker is not None
        number = secrets.randbits(64)
        try:
            reply = ask(self._worker, plain({"number": number, **message}), seconds)
            return _open(reply, number, probe)
        except SubjectLost as lost:
            if lost.status != "forbidden":
                self.close()
            raise


def _open(reply: Any, number: int, probe: Probe | None) -> Any:
    """The content of a reply. Raises SubjectLost where it cannot be the answer to this request and this probe."""
    match reply:
        case {"number": int(echo), "errors": list(errors), **rest} if probe is None:
            sound = not rest and all(conforms(error, Raised | None) for error in errors)
            value: Any = errors
        case {"number": int(echo), "raised": Raised() as error, **rest} if probe is not None:
            sound, value = not rest, error
        case {"number": int(echo), "value": value, **rest} if probe is not None:
            sound = not rest and conforms(value, hints(probe).get("return", Any))
        case _:
            echo, sound, value = -1, False, None
    if echo != number or not sound:
        raise SubjectLost("crashed", "the reply is not what the probe returns: something else wrote it")
    for found in _errors(value) if probe is not None else ():
        if ForbiddenImport.__name__ in found.bases:
            raise SubjectLost("forbidden", found.message)
    if type(value) is Raised:
        raise ProbeFailed(value)
    return value


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
