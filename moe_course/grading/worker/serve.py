"""The process that runs a learner's code in batch grading. It holds no test and no expected value.

    python -m moe_course.grading.worker.serve FOLDER_OF_GRADERS [BYTES_OF_MEMORY]

It first receives the learner's cells and runs them in order, then answers one probe after the other. Frames go
through private copies of stdin and stdout, so nothing that a submission prints can get between them.
"""

from __future__ import annotations

import contextlib
import dis
import importlib
import os
import random
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.abc import MetaPathFinder
from types import CodeType
from typing import Any, BinaryIO

from moe_course.grading.exercises import protocol
from moe_course.grading.exercises.protocol import ForbiddenImport, Raised, plain, raised
from moe_course.grading.worker.wire import encode, read_frame, send, write_frame

CELL_SECONDS = 20.0
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


class Forbidden:
    """Stands for a name that a forbidden import would have defined: any use of it raises the same error."""

    def __init__(self, message: str):
        self._message = message

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise ForbiddenImport(self._message)

    def __getattr__(self, name: str) -> Any:
        raise ForbiddenImport(self._message)


class Missing:
    """Stands for a name whose cell failed: calling it says what went wrong there."""

    def __init__(self, name: str, error: Raised):
        self._why = f"{name} is not defined: its cell stopped with {error.type_name}: {error.message}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NameError(self._why)


class _NoShell:
    """What `get_ipython()` gives a submission outside Jupyter: magics do nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def compile_cell(source: str, number: int) -> Any:
    """Compile a cell; lines that only IPython understands are translated first."""
    name = f"<cell {number}>"
    try:
        return compile(source, name, "exec")
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager

        return compile(TransformerManager().transform_cell(source), name, "exec")


def run_cells(
    cells: Sequence[str], seconds: float | None = None
) -> tuple[dict[str, Any], list[Raised | None]]:
    """Run cells in one namespace, as a notebook would; an error in one does not stop the next.

    Nor does a cell that takes longer than `seconds`: an experiment that trains for an hour costs no grade.
    """
    import linecache

    namespace: dict[str, Any] = {"__name__": "submission", "get_ipython": _NoShell}
    errors: list[Raised | None] = []
    for number, source in enumerate(cells, start=1):
        linecache.cache[f"<cell {number}>"] = (len(source), None, source.splitlines(True), f"<cell {number}>")
        code = None
        try:
            code = compile_cell(source, number)
            with _interrupted_after(seconds):
                exec(code, namespace)
            errors.append(None)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            errors.append(described := raised(error))
            forbidden = described.type_name == ForbiddenImport.__name__
            for name in _defined(source) if code is None else _assigned(code):
                stands_in = Forbidden(described.message) if forbidden else Missing(name, described)
                namespace.setdefault(name, stands_in)
    return namespace, errors


@contextlib.contextmanager
def _interrupted_after(seconds: float | None) -> Iterator[None]:
    """Raise TimeoutError in what runs longer, where the system has alarms. A submission can evade it; the judge's
    own deadline it cannot."""
    if seconds is None or not hasattr(signal, "setitimer"):
        yield
        return

    def interrupt(*_: Any) -> None:
        raise TimeoutError(f"the cell was stopped after {seconds:g} seconds")

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _defined(source: str) -> list[str]:
    """The names that code which does not compile would have defined."""
    return re.findall(r"^(?:def|class)\s+(\w+)", source, re.MULTILINE)


def _assigned(code: CodeType) -> set[str]:
    """The names that a cell binds at its top level."""
    return {
        step.argval for step in dis.get_instructions(code) if step.opname in ("STORE_NAME", "STORE_GLOBAL")
    }


def answer(
    number: int, probe: Callable[..., Any], namespace: Mapping[str, Any], args: Any, kwargs: Any
) -> bytes:
    """Run a probe; the frame of the reply says whether a value came back or an exception."""
    try:
        return encode({"number": number, "value": plain(probe(namespace, *args, **kwargs))})
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit and the like: a learner's quit() must not end the grading
        return encode({"number": number, "raised": raised(error)})


def _run_named(namespace: Mapping[str, Any], reference: str, *args: Any, **kwargs: Any) -> Any:
    """Run the probe that `reference` ("module:name") names."""
    module, _, name = reference.partition(":")
    if module != "graders.probes" and not module.startswith("graders.probes."):
        raise ValueError(f"{reference!r} is no probe")
    return getattr(importlib.import_module(module), name)(namespace, *args, **kwargs)


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer until the judge hangs up. Each reply carries the number of its request."""
    namespace: dict[str, Any] = {}
    while True:
        try:
            message = read_frame(requests)
        except EOFError:
            return
        if "cells" in message:
            sys.meta_path.insert(0, Mask(message["masked"]))
            namespace, errors = run_cells(message["cells"], CELL_SECONDS)
            frame = encode({"number": message["number"], "errors": errors})
        else:
            args = (message["probe"], *message["args"])
            frame = answer(message["number"], _run_named, namespace, args, message["kwargs"])
        send(replies, frame)


def prepare(memory: int | None) -> None:
    """One thread, seeds that repeat, no self-checks, and no more address space than memory allows."""
    import numpy
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    numpy.random.seed(0)
    random.seed(0)
    protocol.CHECKS_DISABLED = True  # a submission's own check(...) calls cost no time here
    if memory is not None:  # a fence of its own: one huge allocation fails at once, as a MemoryError
        import resource

        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # where the machine itself runs out, this process goes first
        with open("/proc/self/statm") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + 2 * memory,) * 2)


def main() -> None:
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


if __name__ == "__main__":
    main()
