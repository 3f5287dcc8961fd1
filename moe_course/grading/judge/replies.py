"""A subject's replies to an exercise's fixed probe set, as JSON-ready data, and how two replies are compared.

Three comparisons. `same` is exact but for rounding. `similar` grants what an answer may choose without being another
answer: the dtype of its numbers, the order of slots, which exception it stops with, the rounding of bfloat16, and
whether an overflow ends as infinity or as nan, which the order of additions decides. `alike` also takes a number and
a tensor that holds it for the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from moe_course.grading.exercises.protocol import Outcome, Raised
from moe_course.grading.exercises.rubric import grader_of
from moe_course.grading.judge.subject import ProbeFailed, Subject

MAX_NUMBERS = 10_000  # of one tensor that are compared; no probe set comes near


def behaviour(name: str, subject: Subject) -> Any:
    """The replies of a subject to the exercise's fixed probe set, as JSON-ready data."""
    try:
        return summary(grader_of(name)().behaviour(subject))
    except ProbeFailed as failed:
        return summary(failed.error)


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
    return _agree(a, b, 1e-3, 1e-5)


def alike(a: Any, b: Any) -> bool:
    """Two summaries agree but for what an answer is free to choose, and a number may be a tensor."""
    return _agree(_free(a), _free(b), 1e-2, 1e-4)


def similar(a: Any, b: Any) -> bool:
    """Two summaries agree but for what an answer is free to choose: see the top of this module."""
    return alike(a, b) and _scalars(a) == _scalars(b)


def numbers(reply: Any) -> list[Any]:
    """Everything in a reply's summary that can be compared, one by one, without what an answer is free to choose."""
    return list(_flat(_free(reply)))


def close(a: Any, b: Any) -> bool:
    """Two of the `numbers` agree as closely as `alike` asks."""
    return _agree(a, b, 1e-2, 1e-4)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key in value:
            yield from _flat(value[key])
    elif isinstance(value, list):
        yield len(value)
        for item in value:
            yield from _flat(item)
    else:
        yield value


def refused(reply: Any) -> bool:
    """Whether a reply is an exception, or the word for one with which graders shorten a refusal."""
    return isinstance(reply, str) or (isinstance(reply, dict) and "raised" in reply)


def _agree(a: Any, b: Any, rtol: float, atol: float) -> bool:
    if isinstance(a, float) or isinstance(b, float):
        numbers = isinstance(a, int | float) and isinstance(b, int | float)
        return numbers and math.isclose(a, b, rel_tol=rtol, abs_tol=atol)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_agree(x, y, rtol, atol) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_agree(a[key], b[key], rtol, atol) for key in a)
    return bool(a == b)


def _scalars(reply: Any) -> list[bool]:
    """For every single number in a summary, in order, whether it is a tensor."""
    if isinstance(reply, dict):
        if "dtype" in reply and "values" in reply:
            return [] if reply["shape"] else [True]
        return [kind for key, item in reply.items() if key != "requires_grad" for kind in _scalars(item)]
    if isinstance(reply, list):
        return [kind for item in reply for kind in _scalars(item)]
    return [False] if isinstance(reply, int | float) and not isinstance(reply, bool) else []


def _free(reply: Any) -> Any:
    """A summary without what an answer is free to choose."""
    if isinstance(reply, bool):
        return reply
    if isinstance(reply, int | float):
        return {"shape": [], "values": [float(reply)]}
    if isinstance(reply, list):
        return _in_order(reply) if _slots(reply) else [_free(item) for item in reply]
    if isinstance(reply, dict):
        if "raised" in reply:
            return {"raised": True}
        if "dtype" in reply and "values" in reply:
            return {"shape": reply["shape"], "values": [_finite(value) for value in reply["values"]]}
        return {key: _free(item) for key, item in reply.items() if key != "requires_grad"}
    return reply


def _finite(value: Any) -> Any:
    return "not finite" if value in ("nan", "inf", "-inf") else value


def _slots(reply: list[Any]) -> bool:
    """Whether a reply is weights_TK and idx_TK: two matrices of one shape, the second of whole numbers."""
    if len(reply) != 2 or not all(isinstance(part, dict) and "dtype" in part for part in reply):
        return False
    weights_TK, idx_TK = reply
    return len(idx_TK["shape"]) == 2 and weights_TK["shape"] == idx_TK["shape"] and "int" in idx_TK["dtype"]


def _in_order(reply: list[Any]) -> list[Any]:
    """Weights and indices with each row's slots in the order of the indices."""
    rows, slots = reply[0]["shape"]
    weights, indices = reply[0]["values"], reply[1]["values"]
    order = [
        place
        for row in range(rows)
        for place in sorted(range(row * slots, (row + 1) * slots), key=lambda place: str(indices[place]))
    ]
    return [
        {"shape": part["shape"], "values": [values[place] for place in order]}
        for part, values in zip(reply, (weights, indices), strict=True)
    ]
