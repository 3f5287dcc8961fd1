"""Comparisons of values alone: a number is a number, whatever its type or dtype.

A criterion about an idea compares values; one criterion an exercise asks for the form of the answer as well. So a
float in place of an int costs the points of that one criterion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from moe_course.grading.exercises.expect import CheckFailed, expect_tensor


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


def expect_values(
    got: Any,
    want: torch.Tensor,
    axes: str,
    given: Mapping[str, Any] | None = None,
    *,
    what: str = "the result",
    any_order: bool = False,
    rtol: float = 1e-4,
    atol: float = 1e-6,
) -> None:
    """`got` has the shape and the values of `want`, in any dtype; with `any_order`, as a set in each row."""
    mine, right = got, want.double()
    if isinstance(got, torch.Tensor):
        mine = got.double()
    if any_order and isinstance(got, torch.Tensor) and got.shape == want.shape:
        mine, right, what = mine.sort(-1).values, right.sort(-1).values, f"{what}, each row sorted"
        got, want = got.sort(-1).values, want.sort(-1).values
    try:
        expect_tensor(mine, right, axes, given, what=what, rtol=rtol, atol=atol)
    except CheckFailed as failure:
        raise CheckFailed(failure.message, given, want, got) from None  # shown in their own dtypes
