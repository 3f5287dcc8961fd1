"""Whether the code in a kernel is what its cell says.

A cell that ends in an error leaves the earlier version of its function in memory, and so does a function that was
renamed. `check` would then judge code that stands nowhere any more.
"""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Sequence
from typing import Any

from moe_course.grading.submission.syntax import definitions_in, parsed

SIMILAR = 0.6  # the share of a function's lines that a renamed one still has


def outdated(name: str, written: Any, executed: Sequence[str]) -> str:
    """Why the object `written` is not what its cell defined when it was run last, "" if it is.

    executed: the text of all cells that were run, in order, as IPython keeps it in `In`.
    """
    since = _since(written, executed)
    for cell in reversed(since or ()):
        if name in definitions_in(cell):
            return (
                f"The {name} in memory is an older one: the cell that defines it {_error(cell)}. "
                "Mend the cell, run it, and then run this check again."
            )
    return ""


def renamed(name: str, source: str, written: Any, executed: Sequence[str]) -> str:
    """A sentence about a function much like `written`, with another name, that was defined after it; or ""."""
    since = _since(written, executed)
    if not since:
        return ""
    lines = _lines(source)
    before = {other for cell in executed[: -len(since)] for other in definitions_in(cell)}
    for cell in reversed(since):
        tree = parsed(cell)
        for node in tree.body if tree else ():
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name in before:
                continue
            if _share(_lines(ast.get_source_segment(cell, node) or ""), lines) >= SIMILAR:
                return (
                    f"This was about the {name} that is still in memory. Since then you have run a cell that defines "
                    f"{node.name}, which is much like it: was it renamed?"
                )
    return ""


def _since(written: Any, executed: Sequence[str]) -> Sequence[str] | None:
    """The cells that were run after the one that defined an object, or None where that is not known."""
    try:
        cell = "".join(inspect.findsource(_function(written))[0]).strip()
    except (OSError, TypeError, IndexError):
        return None
    places = [place for place, text in enumerate(executed) if text.strip() == cell]
    return executed[places[-1] + 1 :] if places else None


def _function(written: Any) -> Any:
    """A function itself; of a class, whose own file is that of the whole notebook, its first method."""
    if not inspect.isclass(written):
        return inspect.unwrap(written)
    return next(filter(inspect.isfunction, vars(written).values()), written)


def _error(cell: str) -> str:
    """How a cell ended: with a SyntaxError, or with another error above the definition."""
    if parsed(cell) is None:
        try:
            ast.parse(cell)
        except (SyntaxError, ValueError) as error:
            line = f" in line {error.lineno}" if isinstance(error, SyntaxError) else ""
            return f"ended in a {type(error).__name__}{line} ({getattr(error, 'msg', error)})"
    return "stopped with an error before its end"


def _lines(source: str) -> list[str]:
    """The lines that say something, without the one that gives the name."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    return [line for line in lines if not line.startswith(("def ", "class "))]


def _share(mine: list[str], theirs: list[str]) -> float:
    """The share of `theirs` that is in `mine`, in order."""
    blocks = difflib.SequenceMatcher(None, mine, theirs, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / len(theirs) if theirs else 0.0
