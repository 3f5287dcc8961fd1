"""The settings under which a learner's code is judged, whatever their earlier cells have set.

A cell may leave gradients switched off, float64 as the default dtype, warnings turned into errors. The live check and
the worker both judge inside `neutral_settings()`, so that such a cell costs no point in either of them.
"""

from __future__ import annotations

import contextlib
import io
import random
import sys
import warnings
from collections.abc import Iterator

import numpy
import torch

RECURSION = 1000  # Python's own limit; a lower one would break the graders' code before the learner's


class Nowhere(io.TextIOBase):
    """A stream for text that nobody reads: whatever is printed to it costs no memory."""

    encoding = "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


class Excerpt(Nowhere):
    """A stream that keeps the first and the last characters printed to it, however many there are."""

    def __init__(self, each: int = 600) -> None:
        self.each, self.size, self.head, self.tail = each, 0, "", ""

    def write(self, text: str) -> int:
        room = self.each - len(self.head)
        self.size += len(text)
        self.head += text[:room]
        self.tail = (self.tail + text[room:])[-self.each :]
        return len(text)

    def __str__(self) -> str:
        left_out = self.size - len(self.head) - len(self.tail)
        gap = f"\n… {left_out:,} characters left out …\n" if left_out else ""
        return f"{self.head}{gap}{self.tail}".strip("\n")


@contextlib.contextmanager
def neutral_settings() -> Iterator[None]:
    """Judge on the CPU, in float32, with gradients and without output; afterwards every setting is as it was.

    Random generators are put back as well, and the number of threads; both are free to change meanwhile.
    """
    generators = (torch.get_rng_state(), numpy.random.get_state(), random.getstate())
    gradients, dtype, threads = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    precision, recursion = torch.get_float32_matmul_precision(), sys.getrecursionlimit()
    anomalies = torch.is_anomaly_enabled()
    quiet = Nowhere()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(quiet))
        stack.enter_context(contextlib.redirect_stderr(quiet))
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(numpy.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.autocast("cpu", enabled=False))
        warnings.simplefilter("ignore")
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision("highest")
        torch.autograd.set_detect_anomaly(False)
        sys.setrecursionlimit(max(RECURSION, recursion))
        try:
            yield
        finally:
            torch.set_rng_state(generators[0])
            numpy.random.set_state(generators[1])
            random.setstate(generators[2])
            torch.set_grad_enabled(gradients)
            torch.set_default_dtype(dtype)
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.set_float32_matmul_precision(precision)
            torch.autograd.set_detect_anomaly(anomalies)
            with contextlib.suppress(RecursionError):  # a limit below the depth at which this runs
                sys.setrecursionlimit(recursion)
