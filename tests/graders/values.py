"""Comparisons of single values alone: a number is a number, whatever its type or dtype.

A criterion about an idea compares values; one criterion an exercise asks for the form of the answer as well. So a
float in place of an int costs the points of that one criterion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from moe_course.grading.exercises.expect import CheckFailed


def number(got: Any) -> Any:
    """`got` as a Python number, if it is one or a tensor of one; else `got` itself."""
    return got.item() if isinstance(got, torch.Tensor) and got.numel() == 1 else got


def expect_value(
    got: Any, want: float, given: Mapping[str, Any] | None = None, *, what: str, atol: float = 1e-6
) -> None:
    """`got` is the number `want`, within `atol`; an int, a float and a tensor of one number are as good."""
    mine = number(got)
    if type(mine) not in (int, float):
        raise CheckFailed(f"{what} should be a number, not {type(got).__name__}", given, want, got)
    if not abs(mine - want) <= atol:
        raise CheckFailed(f"{what} is wrong", given, want, got)


def expect_answer(got: Any, want: bool, message: str, given: Mapping[str, Any] | None = None) -> None:
    """`got` is the answer `want`, as a bool or as a tensor of one bool."""
    mine = number(got)
    if type(mine) is not bool:
        raise CheckFailed(f"the answer should be True or False, not {type(got).__name__}", given, want, got)
    if mine is not want:
        raise CheckFailed(message, given, want, mine)


def expect_type(got: Any, want: type, given: Mapping[str, Any] | None = None, *, what: str) -> None:
    """`got` is a plain Python `want`."""
    if type(got) is not want:
        raise CheckFailed(f"{what} should be a Python {want.__name__}, not {type(got).__name__}", given)


def expect_dtype(
    got: Any, want: torch.dtype, given: Mapping[str, Any] | None = None, *, what: str = "the result"
) -> None:
    """`got` is a tensor of the dtype `want`."""
    kind = got.dtype if isinstance(got, torch.Tensor) else f"a {type(got).__name__}"
    if kind != want:
        raise CheckFailed(f"{what} should be {want}, not {kind}", given)
