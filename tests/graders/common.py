"""What several grader files use: how test data are drawn and stored, and short forms of replies for `behaviour`.

A name that stands in only one grader file stays there; a worker never loads this module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from moe_course.grading.exercises.expect import CheckFailed, expect_tensor
from moe_course.grading.exercises.protocol import Outcome
from moe_course.grading.exercises.rubric import criterion


def named(names: str | Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """The arguments of a call by name, for a report. `names` is a list, or one string with blanks in between."""
    return dict(zip(names.split() if isinstance(names, str) else names, values, strict=True))


def seed(number: int) -> torch.Generator:
    """A generator for the fixed probes of `behaviour`, which no criterion's random numbers may change."""
    return torch.Generator().manual_seed(number)


def whole(rng: torch.Generator, low: int, high: int) -> int:
    """A whole number from low to high, both included, drawn anew for every seed."""
    return int(torch.randint(low, high + 1, (), generator=rng))


def wholes(rng: torch.Generator, *ranges: tuple[int, int]) -> list[int]:
    """One whole number from each (low, high), both included."""
    return [whole(rng, low, high) for low, high in ranges]


def short(numbers: torch.Tensor) -> torch.Tensor:
    """The numbers rounded to what bfloat16 holds: in an answer of a narrow dtype they, and gradients, stay exact."""
    return numbers.bfloat16().to(numbers.dtype)


def random_idx(
    tokens: int, experts: int, k: int, rng: torch.Generator, among: Sequence[int] = ()
) -> torch.Tensor:
    """Experts (T, k), int64, different ones in a row, drawn from `among` (from all, if it is empty)."""
    among_M = torch.tensor(list(among or range(experts)))
    return torch.stack([among_M[torch.randperm(len(among_M), generator=rng)[:k]] for _ in range(tokens)])


def strided(value: Any) -> Any:
    """The same values, stored with gaps, and a matrix by columns; of a tuple, every tensor in it."""
    if isinstance(value, tuple):
        return tuple(strided(part) for part in value)
    if not isinstance(value, torch.Tensor) or value.dim() == 0:
        return value
    turned = value.mT if value.dim() > 1 else value
    gaps = turned.repeat_interleave(2, dim=-1)[..., ::2]
    return gaps.mT if value.dim() > 1 else gaps


def together(points: int, *tests: Callable[..., None]) -> Callable[..., None]:
    """The criterion that the given tests of the same class hold at once, on other random numbers.

    It sets the price of a mistake. An answer in which one core idea is wrong is wrong as a whole, so it loses these
    points besides those of the line that names the idea. Criteria of mere form (a dtype, an input edited in place, an
    unchecked argument) are left out, so a mistake of form costs its own line only. The title speaks of gradients
    where one of the tests does.
    """
    gradients = any("gradient" in test.__name__ for test in tests)

    @criterion(
        points,
        f"the whole of it: all of these lines{' about values and gradients' * gradients} at once, on other numbers",
        hint="The lines above hold on inputs of their own. What is different about this one?",
    )
    def test_together(self: Any, subject: Any, rng: torch.Generator) -> None:
        for test in tests:
            test(self, subject, rng)

    return test_together


def expect_values(
    got: Any,
    want: torch.Tensor,
    axes: str,
    given: Any = None,
    *,
    what: str = "the result",
    any_order: bool = False,
    rtol: float = 1e-4,
    atol: float = 1e-6,
) -> None:
    """Like `expect_tensor`, but the type is free: numbers, lists of numbers and tensors of any dtype are compared.

    The criteria about values use it, because a criterion of its own asks for the type and the dtype. A narrow float
    is compared to its own precision. With `any_order` each row is compared as a set.
    """
    tensor = _as_tensor(got)
    if isinstance(tensor, torch.Tensor) and tensor.dtype != torch.bool:
        narrow = tensor.dtype in (torch.bfloat16, torch.float16)
        rtol, atol = (max(rtol, 1e-2), max(atol, 1e-2)) if narrow else (rtol, atol)
        tensor = tensor.to(want.dtype) if want.is_floating_point() else tensor.double()
    right = want if want.is_floating_point() else want.double()  # 0.5 is no 0
    if any_order and isinstance(tensor, torch.Tensor) and tensor.shape == right.shape:
        tensor, right, what = tensor.sort(-1).values, right.sort(-1).values, f"{what}, each row sorted"
        got, want = got.sort(-1).values if isinstance(got, torch.Tensor) else got, want.sort(-1).values
    try:
        expect_tensor(tensor, right, axes, given, what=what, rtol=rtol, atol=atol)
    except CheckFailed as failed:
        failed.expected, failed.got = want, got  # in their own types
        raise


def _as_tensor(value: Any) -> Any:
    """A number, or numbers in nested lists of one shape, as a tensor; anything else as it is."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return torch.tensor(value, dtype=torch.float64)
    if isinstance(value, list | tuple) and value:
        parts = [_as_tensor(part) for part in value]
        if all(isinstance(part, torch.Tensor) for part in parts) and len({part.shape for part in parts}) == 1:
            return torch.stack([part.double() for part in parts])
    return value


def expect_count(got: Any, want: int, given: Any, *, what: str = "the count") -> None:
    """`got` is the number `want`, as an int or as a float: a criterion of its own asks for the type."""
    if type(got) not in (int, float):
        raise CheckFailed(f"{what} should be a number, not {type(got).__name__}", given, want, got)
    if got != want:
        raise CheckFailed(f"{what} is wrong", given, want, got)


def expect_float(got: Any, want: float, given: Any, *, what: str, atol: float = 1e-6) -> None:
    """`got` is a Python number within `atol` of `want`."""
    if type(got) not in (int, float):
        raise CheckFailed(f"{what} should be a Python float, not {type(got).__name__}", given, want, got)
    if not abs(got - want) <= atol:
        raise CheckFailed(f"{what} is wrong", given, want, got)


def refusal(out: Outcome) -> str:
    """Whether a call raised ValueError (its subclasses are as good), another exception, or none."""
    if out.error is None:
        return "accepted"
    return "ValueError" if "ValueError" in out.error.bases else out.error.type_name


def dtypes(out: Outcome) -> Any:
    """The dtypes of a result, where its digits are too few to compare; or the exception."""
    return out.error or [str(getattr(part, "dtype", type(part).__name__)) for part in _parts(out)]


def finite(out: Outcome) -> Any:
    """Whether the numbers of a result are finite; or the exception.

    For inputs beyond a narrow dtype: whether inf − inf comes before another sum, and so whether inf or nan is left,
    is the processor's choice.
    """
    return out.error or [
        bool(part.isfinite().all()) if isinstance(part, torch.Tensor) else type(part).__name__
        for part in _parts(out)
    ]


def typed(out: Outcome) -> list[Any]:
    """A result with its types: 18 and 18.0 are two answers."""
    return [[type(part).__name__ for part in _parts(out)], out]


def _parts(out: Outcome) -> Sequence[Any]:
    return out.value if isinstance(out.value, tuple | list) else (out.value,)
