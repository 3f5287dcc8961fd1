"""Comparisons that explain themselves: what was given, what was expected, what came, and where they first part.

Every function here returns nothing when all is well and raises `CheckFailed` otherwise. They look only at plain
data (see `protocol`), never at a learner's object.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from moe_course.grading.exercises.protocol import Opaque, Outcome, Raised

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
MAX_SHOWN = 4_000  # characters of one value in a report
MAX_LISTED = 20  # values of a list or tuple
TYPES = "Of which type is what your code returns, and which type does the docstring promise?"
DTYPES = "Which step gives this dtype, and which dtype does the docstring promise?"
NOTHING = "your code returned nothing (None): does every way through it end in a `return`?"

IMPORTS = {
    "F": "import torch.nn.functional as F",
    "math": "import math",
    "nn": "from torch import nn",
    "np": "import numpy as np",
    "torch": "import torch",
}  # names that people use without thinking of the import

AXIS_WORDS = {
    "B": "sequence",
    "C": "slot of the buffer",
    "D": "channel",
    "E": "expert",
    "F": "hidden unit",
    "G": "label",
    "K": "slot",
    "L": "layer",
    "M": "micro-batch",
    "N": "assignment",
    "R": "rank",
    "S": "position",
    "T": "token",
    "V": "vocabulary entry",
}


class Shown(str):
    """The text of a value that is shown already."""


class CheckFailed(AssertionError):
    """A criterion is not met. Carries the smallest failing example for the report.

    complete: the message says all there is to say (an exception, nothing returned), so that the criterion's hint or
    the name of a mistake beside it would only mislead; error: the exception, where one is the reason; cause: what
    kept the comparison from being made ("type": the reply is of no kind that can be compared, so that no gradient
    comes through it either), "" where it was made: two failures of the same cause are one fault; hint: a
    question that fits better than the criterion's; printed: an excerpt of what the code printed on this example.
    """

    printed = ""

    def __init__(
        self,
        message: str,
        given: Mapping[str, Any] | None = None,
        expected: Any = None,
        got: Any = None,
        *,
        complete: bool = False,
        error: Raised | None = None,
        cause: str = "",
        hint: str = "",
    ):
        super().__init__(message)
        self.message = message
        self.given = dict(given or {})
        self.expected = expected
        self.got = got
        self.complete = complete or error is not None
        self.error = error
        self.cause = _place(error) if error else cause
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.message, *(f"  given    {name} = {show(value)}" for name, value in self.given.items())]
        if self.expected is not None:
            lines += [f"  expected {show(self.expected)}", f"  got      {show(self.got)}"]
        return "\n".join(lines)

    def keep_text(self) -> None:
        """From now on hold the text of the values, and not the values, which are as large as a learner makes them."""
        self.given = {name: Shown(show(value)) for name, value in self.given.items()}
        wanted = self.expected is not None
        self.expected, self.got = (Shown(show(v)) if wanted else None for v in (self.expected, self.got))


def _place(error: Raised) -> str:
    """An exception and the line that raised it, in a word: the same line fails for the same cause."""
    return f"{error.type_name} in {error.function}: {error.line}"


def show(value: Any) -> str:
    """A value as a learner would print it: small tensors whole, large ones by their corner and shape."""
    text = _show(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]} …"


def _show(value: Any) -> str:
    if isinstance(value, Shown):
        return str(value)
    if isinstance(value, torch.Tensor):
        corner = value[tuple(slice(6 if axis < 3 else 1) for axis in range(value.dim()))]
        cut = "" if corner.shape == value.shape else f", first {'×'.join(map(str, corner.shape))} of it"
        shape = f"shape {tuple(value.shape)}" if value.dim() else "0-dim tensor"
        return f"{_format(corner)}  ({_dtype(value)}, {shape}{cut})"
    if isinstance(value, tuple | list) and any(isinstance(item, torch.Tensor) for item in value):
        return _show_list(value)
    if isinstance(value, tuple | list):
        inner = ", ".join(_show(item) for item in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(value) == 1)})"
    if isinstance(value, Opaque):
        return f"an object of type {value.type_name}"
    return repr(value + 0.0) if isinstance(value, float) else repr(value)  # + 0.0 makes 0 of -0


def _show_list(value: Sequence[Any]) -> str:
    """A list with tensors in it: numbers in one line, as in Python; larger tensors one below the other."""
    kind, shown, rest = type(value).__name__, value[:MAX_LISTED], len(value) - MAX_LISTED
    more = f", and {rest} more" if rest > 0 else ""
    scalars = [item for item in value if isinstance(item, torch.Tensor) and item.dim() == 0]
    dtypes = {_dtype(item) for item in scalars}
    if len(scalars) == len(value) and len(dtypes) == 1:
        inner = ", ".join(_format(item) for item in shown)
        return f"[{inner}{more}]  (a {kind} of {len(value)} 0-dim tensors, {dtypes.pop()})"
    lines = [f"[{place}] {_show(item)}" for place, item in enumerate(shown)]
    return "\n           ".join([f"a {kind} of {len(value)}:", *lines, *([f"…{more}"] if more else [])])


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _format(tensor: torch.Tensor) -> str:
    if tensor.dtype == torch.bool or not tensor.dtype.is_floating_point:
        return str(tensor.tolist())
    if tensor.dim() == 0:
        return f"{tensor.item() + 0.0:.6g}"
    inner = ", ".join(_format(row) for row in tensor)
    return f"[{inner}]"


def returned(out: Outcome, given: Mapping[str, Any] | None = None) -> Any:
    """The value of a call, or CheckFailed with the exception that came instead, or because nothing came."""
    if out.error is not None:
        raise CheckFailed(explained(out.error), given, error=out.error)
    if out.value is None:
        raise CheckFailed(NOTHING, given, complete=True, cause="type")
    return out.value


def explained(error: Raised) -> str:
    """What happened, in a sentence, with the line of the learner's code that raised the exception."""
    if error.unwritten:
        return f"{error.function or 'a part of the exercise'} is not written yet: it still raises NotImplementedError"
    what = error.type_name + (f": {error.message}" if error.message else "")
    place = f"\n  in {error.function}, at: {error.line}" if error.line else ""
    name = re.fullmatch(r"name '(\w+)' is not defined", error.message)
    known = IMPORTS.get(name[1]) if name and error.type_name == "NameError" else None
    advice = f"\n  This notebook does not import it: put `{known}` above your function." if known else ""
    return f"your code raised {what}{place}{advice}"


def expect_something(got: Any, what: str, given: Mapping[str, Any] | None = None) -> None:
    """`got`, a part of what came back, is not None."""
    if got is None:
        raise CheckFailed(
            f"{what} is None: was it computed, and returned?", given, complete=True, cause="type"
        )


def expect_tensor(
    got: Any,
    want: torch.Tensor,
    axes: str,
    given: Mapping[str, Any] | None = None,
    *,
    what: str = "the result",
    rtol: float = 1e-4,
    atol: float = 1e-6,
) -> None:
    """`got` is a tensor with the shape, dtype and values of `want`; `axes` names its axes ("TE")."""
    expect_something(got, what, given)
    if not isinstance(got, torch.Tensor):
        message = f"{what} should be a tensor, not {_kind(got)}"
        raise CheckFailed(message, given, want, got, cause="type", hint=TYPES)
    if got.shape != want.shape:
        shape = (
            f"have shape ({', '.join(axes)}{',' * (len(axes) == 1)}) = {tuple(want.shape)}, not"
            if axes
            else "be a 0-dim tensor, not of shape"
        )
        raise CheckFailed(f"{what} should {shape} {tuple(got.shape)}", given, want, got, cause="shape")
    if got.dtype != want.dtype:
        message = f"{what} should be {want.dtype}, not {got.dtype}"
        raise CheckFailed(message, given, want, got, cause="dtype", hint=DTYPES)
    close = torch.isclose(got.double(), want.double(), rtol=rtol, atol=atol, equal_nan=False)
    if not bool(close.all()):
        first = (~close).nonzero()[0].tolist()
        place = ", ".join(f"{AXIS_WORDS.get(axis, axis)} {i}" for axis, i in zip(axes, first, strict=True))
        wrong = (
            f": {int((~close).sum())} of {close.numel()} values differ, first at {place}"
            if place
            else " is wrong"
        )
        raise CheckFailed(f"{what}{wrong}", given, want, got)


def expect_index(
    got: Any,
    want: torch.Tensor,
    axes: str,
    given: Mapping[str, Any] | None = None,
    *,
    what: str = "the indices",
    any_order: bool = False,
) -> None:
    """`got` is a tensor of integers (of any width) equal to `want`; with `any_order`, as a set in each row."""
    expect_something(got, what, given)
    if not isinstance(got, torch.Tensor) or got.dtype not in INTEGERS:
        kind = got.dtype if isinstance(got, torch.Tensor) else _kind(got)
        message = f"{what} should be a tensor of integers, not {kind}"
        raise CheckFailed(message, given, want, got, cause="type", hint=TYPES)
    got = got.long()
    if any_order and got.shape == want.shape:
        got, want, what = got.sort(-1).values, want.sort(-1).values, f"{what}, each row sorted"
    expect_tensor(got, want, axes, given, what=what)


def expect_gradients(
    got: Sequence[torch.Tensor | None],
    want: Sequence[torch.Tensor],
    names: Sequence[str],
    given: Mapping[str, Any] | None = None,
    *,
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> None:
    """The gradients that a `vjp` probe found are there and right. Each name ends in its axes ("x_TD")."""
    for name, mine, right in zip(names, got, want, strict=True):
        what, axes = f"the gradient of {name}", name.rpartition("_")[2]
        if mine is None:
            raise CheckFailed(f"no gradient reaches {name}", given, right, None, cause="type")
        expect_tensor(mine, right, axes, given, what=what, rtol=rtol, atol=atol)


def expect_number(
    got: Any, want: int | float, given: Mapping[str, Any] | None = None, *, what: str = "the result"
) -> None:
    """`got` is a Python int (or float) equal to `want`, to rounding for floats."""
    expect_something(got, what, given)
    if type(got) is not type(want):
        message = f"{what} should be a Python {type(want).__name__}, not {_kind(got)}"
        raise CheckFailed(message, given, want, got, cause="type", hint=TYPES)
    same = got == want if isinstance(want, int) else abs(got - want) <= 1e-6 * max(1.0, abs(want))
    if not same:
        raise CheckFailed(f"{what} is wrong", given, want, got)


def expect_tuple(
    got: Any, length: int, given: Mapping[str, Any] | None = None, names: str = ""
) -> tuple[Any, ...]:
    """`got` is a tuple (or list) of `length` parts; returns it."""
    if not isinstance(got, tuple | list) or len(got) != length:
        message = f"return {length} values{f' ({names})' if names else ''}, not {_kind(got)}"
        raise CheckFailed(message, given, cause="type", hint=TYPES)
    return tuple(got)


def expect_raises(out: Outcome, error: str, given: Mapping[str, Any]) -> None:
    """The call raised `error` (a type's name, subclasses included)."""
    if out.error is None:
        raise CheckFailed(
            f"these arguments should raise {error}, but your code returned a result",
            given,
            f"{error}",
            out.value,
        )
    if error not in out.error.bases:
        message = f"these arguments should raise {error}, but {explained(out.error)}"
        raise CheckFailed(message, given, cause=_place(out.error))


def expect_untouched(out: Outcome, inputs: Sequence[Any], names: Sequence[str] = ()) -> None:
    """No tensor among the call's arguments was edited in place. `names` are the arguments' names."""
    for index, (before, after) in enumerate(zip(inputs, out.inputs, strict=True)):
        if isinstance(before, torch.Tensor) and not (
            isinstance(after, torch.Tensor) and after.shape == before.shape and torch.equal(after, before)
        ):
            name = names[index] if names else f"argument {index + 1}"
            raise CheckFailed(
                f"{name} was edited in place", {f"{name} before": before, f"{name} afterwards": after}
            )


def expect(condition: bool, message: str, given: Mapping[str, Any] | None = None) -> None:
    """`condition` holds, or CheckFailed with `message`."""
    if not condition:
        raise CheckFailed(message, given)


def _kind(value: Any) -> str:
    if isinstance(value, Opaque):
        return value.type_name
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return type(value).__name__
