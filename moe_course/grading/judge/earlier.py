"""Earlier exercises that an answer calls: where one of them is wrong, the fault may be there."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import replace

from moe_course.grading.exercises.registry import EXERCISES, PART_OF, label
from moe_course.grading.judge.verdict import Verdict
from moe_course.grading.submission.syntax import parsed

_AT_FAULT = ("failed", "timed out", "crashed", "out of memory")


def called(name: str, sources: Mapping[str, str]) -> list[str]:
    """The other exercises whose names the code of `name` uses. sources: its text, by part.

    What it gives to `working` does not count: that is the library's until it has passed.
    """
    used: set[str] = set()
    bound: set[str] = set()  # an argument or a variable of that name is no exercise
    waiting: list[ast.AST] = [
        tree for part in EXERCISES[name].parts if (tree := parsed(sources.get(part, "")))
    ]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "working":
            continue
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        waiting += ast.iter_child_nodes(node)
    others = {PART_OF[part].name for part in (used - bound) & PART_OF.keys()} - {name}
    return [other for other in EXERCISES if other in others]


def wrong(verdict: Verdict) -> bool:
    """Whether an exercise is written and does not pass; for one that is not written, others have a stand-in."""
    first = verdict.first_failure
    error = first.failure.error if first and first.failure else None
    return verdict.status in _AT_FAULT and not (error and error.unwritten)


def blamed(verdict: Verdict, names: Sequence[str]) -> Verdict:
    """The verdict on an answer that calls exercises which are wrong: it says so beside the first failure.

    Neither hint nor mistake is shown then: both look for the fault in the answer itself.
    """
    first = verdict.first_failure
    if not names or first is None or first.failure is None:
        return verdict
    one = len(names) == 1
    first.failure.message += (
        f"\nYour code calls {' and '.join(map(label, names))}, which {'does' if one else 'do'} not pass when checked "
        f"alone. The fault may be there: mend {'that one' if one else 'those'} first."
    )
    first.failure.complete = True
    return replace(verdict, diagnosis=None)
