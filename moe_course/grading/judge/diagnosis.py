"""Naming the mistake: a learner's behaviour beside the recorded behaviour of catalogued misconceptions.

Each grader class has a `behaviour(subject)`: the replies to a small fixed probe set. The replies of the library and
of every misconception are recorded in `graders/recorded/NN_topic.json`, so a mistake can be named where the
misconceptions' own source is not at hand. A match means: the same replies, to rounding, as the misconception; or,
since mistakes come in company, the same wherever the misconception differs from the right answer.
"""

from __future__ import annotations

import functools
import gzip
import json
import math
from dataclasses import dataclass
from typing import Any

import torch

from moe_course.grading.exercises.locate import graders_dir
from moe_course.grading.exercises.protocol import Outcome, Raised
from moe_course.grading.exercises.registry import find
from moe_course.grading.exercises.rubric import grader_of
from moe_course.grading.judge.subject import ProbeFailed, Subject

MAX_NUMBERS = 10_000  # of one tensor that are compared; no probe set comes near


@dataclass(frozen=True)
class Diagnosis:
    """A misconception that behaves like the learner's code, and the question that would help."""

    name: str
    question: str


def behaviour(name: str, subject: Subject) -> Any:
    """The replies of a subject to the exercise's fixed probe set, as JSON-ready data."""
    try:
        return summary(grader_of(name)().behaviour(subject))
    except ProbeFailed as failed:
        return summary(failed.error)


def diagnose(name: str, subject: Subject) -> Diagnosis | None:
    """The misconception that explains what the subject does, or None."""
    records = dict(recorded(find(name).notebook).get(name, {}))
    if not records:
        return None
    seen, right = behaviour(name, subject), records.pop("")["replies"]
    best, explained = None, (0, 0)
    for misconception, record in records.items():
        wrong = record["replies"]
        if same(seen, wrong):
            return Diagnosis(misconception, record["question"])
        if (signs := _signs(seen, wrong, right)) > explained:
            best, explained = Diagnosis(misconception, record["question"]), signs
    return best


def _signs(seen: Any, wrong: Any, right: Any) -> tuple[int, int]:
    """How many probes tell a misconception from the right answer, if the replies seen are its own on all of them.

    First those where a value is right, then those where an error is: a wrong value says more.
    """
    if not all(isinstance(replies, list) and len(replies) == len(right) for replies in (seen, wrong, right)):
        return 0, 0
    telling = [n for n in range(len(right)) if not same(wrong[n], right[n])]
    if not all(same(seen[n], wrong[n]) for n in telling):
        return 0, 0
    errors = sum("raised" in right[n] for n in telling if isinstance(right[n], dict))
    return len(telling) - errors, errors


@functools.cache
def recorded(notebook: str) -> dict[str, Any]:
    """What was recorded for a notebook: {exercise: {misconception: {question, replies}}}; "" is the right answer."""
    path = graders_dir() / "recorded" / f"{notebook}.json"
    packed = path.with_suffix(".json.gz")  # in a student bundle
    if packed.is_file():
        return json.loads(gzip.decompress(packed.read_bytes()))
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def summary(value: Any) -> Any:
    """A reply as JSON-ready data: values to six digits, exceptions by type, tensors by shape, dtype and values."""
    if isinstance(value, Outcome):
        if value.error is not None:
            return summary(value.error)
        return {"value": summary(value.value), "requires_grad": list(value.requires_grad)}
    if isinstance(value, Raised):
        return {"raised": value.type_name}
    if isinstance(value, torch.Tensor):
        flat = value.flatten()[:MAX_NUMBERS]
        numbers = [summary(number) for number in flat.double().tolist()]
        return {"dtype": str(value.dtype), "shape": list(value.shape), "values": numbers}
    if isinstance(value, tuple | list):
        return [summary(item) for item in value]
    if isinstance(value, dict):
        return {key: summary(item) for key, item in value.items()}
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, bool | int | str) else repr(value)


def same(a: Any, b: Any) -> bool:
    """Two summaries agree: numbers to one part in a thousand, everything else exactly."""
    if isinstance(a, float) or isinstance(b, float):
        numbers = isinstance(a, int | float) and isinstance(b, int | float)
        return numbers and math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-5)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b)
