"""`check(function)` in a notebook: the learner's code, judged where it lives."""

from __future__ import annotations

import ast
import contextlib
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from moe_course.grading.exercises.registry import EXERCISES, PART_OF, Exercise, label
from moe_course.grading.judge import earlier, memory, patience
from moe_course.grading.judge.subject import EXERCISE_SECONDS, PROBE_SECONDS, LiveSubject
from moe_course.grading.judge.verdict import Verdict, draw_seed, grade, without_running
from moe_course.grading.submission.attempts import is_stub
from moe_course.grading.submission.syntax import parsed
from moe_course.grading.worker.settings import neutral_settings


def examine(*parts: Any, namespace: Mapping[str, Any], seed: int | None = None) -> Verdict:
    """The verdict on what a learner passed to `check`, without printing it.

    The exercise is found by the name under which `namespace` holds the object, then by the object's own name.
    Raises ValueError when that names no exercise.
    """
    exercise = identify(parts, namespace)
    named = dict(zip(exercise.parts, parts, strict=True))
    for part, written in named.items():
        if _of_the_library(written):
            return without_running(
                exercise.name, "refused", f"this {part} is the library's; check the one that you wrote"
            )
    executed = [cell for cell in namespace.get("In", ()) if isinstance(cell, str)]
    if old := next(filter(None, (memory.outdated(part, it, executed) for part, it in named.items())), ""):
        return without_running(exercise.name, "refused", old)
    known = sources(exercise.parts, parts)
    if all(part in known and is_stub(part, known[part]) for part in exercise.parts):
        verdict = without_running(exercise.name, "not attempted")
    else:
        seed = draw_seed() if seed is None else seed
        long = (
            f"{label(exercise.name)} is still running. One call may take {PROBE_SECONDS:g} seconds, the check "
            f"{EXERCISE_SECONDS:g}; then it is stopped. To stop it now: the stop button (■), or Ctrl-C in a terminal."
        )
        with patience.told(long), neutral_settings():
            everything = {**namespace, **named}
            verdict = grade(exercise.name, LiveSubject(everything), seed, hidden=False)
            if verdict.status == "failed":
                called = earlier.called(exercise.name, known)
                verdict = earlier.blamed(verdict, [name for name in called if _wrong(name, everything, seed)])
    said = [memory.renamed(part, known[part], named[part], executed) for part in known]
    return replace(verdict, notes=(*verdict.notes, *filter(None, said)))


def _wrong(name: str, namespace: Mapping[str, Any], seed: int) -> bool:
    """Whether the learner has written an exercise, and it does not pass."""
    names = EXERCISES[name].parts
    parts = [namespace.get(part) for part in names]
    if any(part is None or _of_the_library(part) for part in parts):
        return False
    known = sources(names, parts)
    if all(part in known and is_stub(part, known[part]) for part in names):
        return False
    return earlier.wrong(grade(name, LiveSubject(namespace), seed, hidden=False))


def _of_the_library(written: Any) -> bool:
    return str(getattr(written, "__module__", "")).split(".")[0] == "moe_course"


def identify(parts: tuple[Any, ...], namespace: Mapping[str, Any]) -> Exercise:
    """The exercise that the arguments of `check` belong to."""
    if not parts:
        raise ValueError("check() needs the function you wrote, for example check(router_probs)")
    first = parts[0]
    if isinstance(first, str):
        raise ValueError(f"check({first!r}): pass the function itself, without quotes: check({first})")
    names = [name for name, value in namespace.items() if value is first and name in PART_OF]
    own = getattr(first, "__name__", type(first).__name__)
    if not names and own not in PART_OF:
        raise ValueError(f"check: {own!r} is no exercise of this course; they are {', '.join(EXERCISES)}")
    exercise = PART_OF[own if own in names or not names else names[0]]
    if len(parts) != len(exercise.parts):
        raise ValueError(
            f"check: {exercise.name} has {len(exercise.parts)} part(s), {', '.join(exercise.parts)}; "
            f"{len(parts)} given"
        )
    return exercise


def sources(names: Sequence[str], parts: Sequence[Any]) -> dict[str, str]:
    """The source text of each part, by name, as far as Python knows it."""
    found = {}
    for name, written in zip(names, parts, strict=True):
        with contextlib.suppress(OSError, TypeError):
            found[name] = textwrap.dedent(_source(written))
    return found


def _source(written: Any) -> str:
    """The source text of a function or class. A class of a notebook has no file; the cell of its methods has it."""
    try:
        return inspect.getsource(written)
    except (OSError, TypeError):
        methods = [member for member in vars(written).values() if inspect.isfunction(member)]
        cell = "".join(inspect.findsource(methods[0])[0]) if methods else ""
        tree = parsed(cell)
        for node in tree.body if tree else ():
            if isinstance(node, ast.ClassDef) and node.name == written.__name__:
                return ast.get_source_segment(cell, node) or ""
        raise
