"""The process that runs a learner's code in batch grading. It holds no test and no expected value.

    python -m moe_course.grading.worker FOLDER_OF_GRADERS

It first receives the learner's cells and runs them in order, then answers one probe after the other. Frames go
through private copies of stdin and stdout, so nothing that a submission prints can get between them.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO

from moe_course.grading.protocol import Raised, plain, raised, read_frame, write_frame
from moe_course.grading.subject import run_probe


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


def run_cells(cells: list[str]) -> tuple[dict[str, Any], list[Raised | None]]:
    """Run cells in one namespace, as a notebook would; an error in one does not stop the next."""
    import linecache

    namespace: dict[str, Any] = {"__name__": "submission", "get_ipython": _NoShell}
    errors: list[Raised | None] = []
    for number, source in enumerate(cells, start=1):
        linecache.cache[f"<cell {number}>"] = (len(source), None, source.splitlines(True), f"<cell {number}>")
        try:
            exec(compile_cell(source, number), namespace)
            errors.append(None)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            errors.append(raised(error))
    return namespace, errors


def _run_named(namespace: Mapping[str, Any], reference: str, *args: Any, **kwargs: Any) -> Any:
    """Run the probe that `reference` ("module:name") names."""
    module, _, name = reference.partition(":")
    if module != "graders.probes" and not module.startswith("graders.probes."):
        raise ValueError(f"{reference!r} is no probe")
    return getattr(importlib.import_module(module), name)(namespace, *args, **kwargs)


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer until the judge hangs up."""
    import torch

    from moe_course.grading import live

    torch.set_num_threads(1)
    live.DISABLED = True  # a submission's own check(...) calls cost no time here
    namespace: dict[str, Any] = {}
    while True:
        try:
            message = read_frame(requests)
        except EOFError:
            return
        if "cells" in message:
            namespace, errors = run_cells(message["cells"])
            reply: dict[str, Any] = {"errors": errors}
        else:
            args = (message["probe"], *message["args"])
            reply = run_probe(_run_named, namespace, args, message["kwargs"])
        write_frame(replies, plain(reply))


def main() -> None:
    sys.path.append(sys.argv[1])
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    serve(requests, replies)


if __name__ == "__main__":
    main()
