"""What crosses between the judge and a learner's code: plain data, and nothing else.

Values are None, bools, numbers, strings, lists, tuples, dicts with string keys, tensors and the frozen dataclasses
named here; `wire` turns them into bytes.
"""

from __future__ import annotations

import dataclasses
import linecache
import sysconfig
import traceback
from typing import Any

import torch

CHECKS_DISABLED = False  # set in the worker of batch grading, where a submission's own checks are not wanted

MAX_DEPTH = 40
LARGEST_REPLY = 1 << 20  # bytes of all tensors in a reply, where a grader does not say otherwise
MAX_TEXT = 20_000  # characters of one string; longer ones are cut
MAX_PLACE = 200  # characters of a line of code, or of a function's name
MAX_DIGITS = 1024  # hexadecimal ones of one int: Python itself refuses to print much longer ones

_OURS = {"moe_course", "graders", "own_graders"}  # the packages of the course: code in them is no learner's
_INSTALLED = tuple(sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib"))

DTYPE_NAMES = {
    dtype: str(dtype).removeprefix("torch.")
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}


class ForbiddenImport(ImportError):
    """Import of a library module that holds an answer of the notebook being graded."""


@dataclasses.dataclass(frozen=True)
class Opaque:
    """Stands for a value that is no plain data: only the name of its type crosses, never the value."""

    type_name: str


@dataclasses.dataclass(frozen=True)
class Raised:
    """An exception, as its type's name, the names of all its base classes, and its message.

    function and line: where the learner's own code stopped, as the name of the function and the text of the line; ""
    where that is not known.
    """

    type_name: str
    bases: tuple[str, ...]
    message: str
    function: str = ""
    line: str = ""

    @property
    def unwritten(self) -> bool:
        """Whether a stub raised it. torch raises NotImplementedError too, for a dtype that it does not support."""
        if self.type_name != "NotImplementedError":
            return False
        return self.line.startswith("raise NotImplementedError") if self.line else not self.message


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a call of a learner's function left behind.

    value: what was returned; requires_grad: for each tensor in it, in order; inputs: the positional arguments
    as they were after the call; error: the exception, if one was raised (then value is None); stood_in: the earlier
    exercises for which a stand-in answered, because the learner skipped them.
    """

    value: Any = None
    requires_grad: tuple[bool, ...] = ()
    inputs: tuple[Any, ...] = ()
    error: Raised | None = None
    stood_in: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Part:
    """Names one of the learner's own definitions as an argument of a probe."""

    name: str


# The frozen dataclasses that may cross, by the module that defines them (looked up only when one does cross).
DATACLASSES = {
    **{cls.__name__: __name__ for cls in (Opaque, Raised, Outcome, Part)},
    "ModelConfig": "moe_course.config",
}


def raised(error: BaseException) -> Raised:
    """Describe an exception as plain data. The message of a hostile exception cannot raise in turn.

    Where a forbidden import led to it, that is what is described.
    """
    try:
        error = _forbidden_cause(error)
        message = str.__getitem__(str(error), slice(MAX_TEXT))
    except BaseException:
        message = "(the exception's message could not be read)"
    function, line = _place(error)
    bases = tuple(base.__name__ for base in type(error).__mro__)
    return Raised(type(error).__name__, bases, message, function, line)


def _place(error: BaseException) -> tuple[str, str]:
    """Where in the learner's code an exception arose: the innermost function and its line, or ("", "")."""
    found = "", ""
    try:
        for frame, number in traceback.walk_tb(error.__traceback__):
            code = frame.f_code
            if line := linecache.getline(code.co_filename, number).strip():
                module = str(frame.f_globals.get("__name__")).partition(".")[0]
                if module not in _OURS and not code.co_filename.startswith(_INSTALLED):
                    found = code.co_name[:MAX_PLACE], line[:MAX_PLACE]
    except Exception:  # the place is a help; that a hostile module has no readable one costs nothing
        return "", ""
    return found


def _forbidden_cause(error: BaseException) -> BaseException:
    """The ForbiddenImport among the causes of an exception, else the exception itself."""
    link: BaseException | None = error
    for _ in range(MAX_DEPTH):
        if link is None:
            break
        if ForbiddenImport in type(link).__mro__:
            return link
        link = link.__cause__ or link.__context__
    return error


def plain(value: Any, depth: int = 0) -> Any:
    """A copy of `value` made of plain data alone; anything else becomes `Opaque`.

    Types are compared exactly, so a subclass of int, str or Tensor with ideas of its own does not get through
    (nn.Parameter does, as the tensor it holds).
    """
    if depth > MAX_DEPTH:
        return Opaque("a value nested too deeply")
    kind = type(value)
    if value is None or kind in (bool, float):
        return value
    if kind is int:
        return (
            value if value.bit_length() < 4 * (MAX_DIGITS - 3) else Opaque("int, a number too long to print")
        )
    if kind is str:
        return value[:MAX_TEXT]
    if kind in (torch.Tensor, torch.nn.Parameter):
        if value.layout is not torch.strided or value.dtype not in DTYPE_NAMES or value.is_meta:
            return Opaque(f"a {value.layout} tensor of {value.dtype} on {value.device}")
        return value.detach().cpu().clone()
    if kind in (list, tuple):
        return kind(plain(item, depth + 1) for item in value)
    if kind is dict:
        return {str(key)[:MAX_TEXT]: plain(item, depth + 1) for key, item in value.items()}
    if DATACLASSES.get(kind.__name__) == kind.__module__:
        fields = dataclasses.fields(kind)
        return kind(**{field.name: plain(getattr(value, field.name), depth + 1) for field in fields})
    return Opaque(f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."))
