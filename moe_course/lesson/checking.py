"""The notebook's `check`, which stores its result, and `working`, so that later cells run before it passes."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from moe_course.grading.exercises import custom_course, protocol
from moe_course.grading.exercises.registry import PART_OF, find
from moe_course.lesson import parts as kept
from moe_course.lesson import workspace

passed: dict[str, Any] = {}  # the objects that passed their check in this session
code: dict[str, str] = {}  # the code of each exercise that passed in this session, with its helpers
_told: set[str] = set()


def check(*parts: Any) -> float:
    """Check an exercise: prints its rubric, remembers the result, returns the score (nbgrader's points).

    Pass the function or class you wrote; an exercise of two parts takes both: check(quantize, dequantize).
    """
    if protocol.CHECKS_DISABLED:
        return 0.0
    from moe_course.grading.judge import (
        live,
        rendering,
    )  # imported here, because a worker never loads the judge

    namespace = sys._getframe(1).f_globals
    namespace = sys._getframe(1).f_globals
    verdict = live.examine(*parts, namespace=namespace)
    if verdict.status == "refused":
        rendering.display(verdict)
        return verdict.score
    names = find(verdict.exercise).parts
    sources = live.sources(names, parts)
    why = workspace.record(rendering.as_dict(verdict), sources)
    rendering.display(replace(verdict, notes=(*verdict.notes, why) if why else verdict.notes))
    text = kept.collected(sources, namespace, set(PART_OF))
    if verdict.status == "passed":
        _remember(verdict.exercise, dict(zip(names, parts, strict=True)), text)
        if "NBGRADER_VALIDATING" in os.environ:
            # nbgrader's Validate button grades nothing, but reports fewer points than the cell has as a failure.
            return custom_course.worth(verdict.exercise, verdict.max_score)
    elif verdict.status == "failed":
        _forget(verdict.exercise, text)
    return verdict.score


def _remember(exercise: str, parts: dict[str, Any], text: str | None) -> None:
    passed.update(parts)
    code.pop(exercise, None)
    if text is not None:
        code[exercise] = text
        kept.keep(exercise, text)


def _forget(exercise: str, text: str | None) -> None:
    """What has failed is no part any more, if it is the very code that passed before."""
    if text is None:
        return
    kept.drop(exercise, text)
    if code.get(exercise) == text:
        del code[exercise]
        for name in find(exercise).parts:
            passed.pop(name, None)


def working(written: Callable[..., Any]) -> Callable[..., Any]:
    """Your function once it has passed its check in this session; until then the library's, with a printed note."""
    name = written.__name__
    library = find(name).library
    if passed.get(name) is written or not library:
        return written
    if name not in _told:
        _told.add(name)
        print(f"({name}: the library's version stands in until yours passes its check)")
    return getattr(importlib.import_module(library), name)
