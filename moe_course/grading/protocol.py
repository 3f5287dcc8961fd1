"""What crosses between the judge and a learner's code: plain data, and nothing else.

A frame is a length, a JSON header and the raw bytes of its tensors. The header spells the value as a tree of
one-letter tags, so that a list stays a list, a tuple a tuple and an int an int. Nothing is ever unpickled, and
decoding refuses whatever is too large or not well-formed: a forged reply can only be another wrong answer.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import struct
from typing import Any, BinaryIO

import torch

MAX_HEADER = 4 << 20  # bytes of JSON
MAX_TENSOR_BYTES = 256 << 20  # all tensors of a frame together
MAX_TENSORS = 10_000
MAX_DEPTH = 40
MAX_DIMS = 8
MAX_TEXT = 20_000  # characters of one string; longer ones are cut

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}
_NAME_OF = {dtype: name for name, dtype in DTYPES.items()}


class ProtocolError(ValueError):
    """A frame that is too large, cut short or not well-formed."""


@dataclasses.dataclass(frozen=True)
class Opaque:
    """Stands for a value that is no plain data: only the name of its type crosses, never the value."""

    type_name: str


@dataclasses.dataclass(frozen=True)
class Raised:
    """An exception, as its type's name, the names of all its base classes, and its message."""

    type_name: str
    bases: tuple[str, ...]
    message: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a call of a learner's function left behind.

    value: what was returned; requires_grad: for each tensor in it, in order; inputs: the positional arguments
    as they were after the call; error: the exception, if one was raised (then value is None).
    """

    value: Any = None
    requires_grad: tuple[bool, ...] = ()
    inputs: tuple[Any, ...] = ()
    error: Raised | None = None


@dataclasses.dataclass(frozen=True)
class Part:
    """Names one of the learner's own definitions as an argument of a probe."""

    name: str


# The frozen dataclasses that may cross, by the module that defines them (looked up only when one does cross).
_DATACLASSES = {
    **{cls.__name__: __name__ for cls in (Opaque, Raised, Outcome, Part)},
    "ModelConfig": "moe_course.config",
}


def raised(error: BaseException) -> Raised:
    """Describe an exception as plain data. The message of a hostile exception cannot raise in turn."""
    try:
        message = str(error)
    except BaseException:
        message = "(the exception's message could not be read)"
    return Raised(
        type(error).__name__, tuple(base.__name__ for base in type(error).__mro__), message[:MAX_TEXT]
    )


def plain(value: Any, depth: int = 0) -> Any:
    """A copy of `value` made of plain data alone; anything else becomes `Opaque`.

    Types are compared exactly, so a subclass of int, str or Tensor with ideas of its own does not get through
    (nn.Parameter does, as the tensor it holds).
    """
    if depth > MAX_DEPTH:
        return Opaque("a value nested too deeply")
    kind = type(value)
    if value is None or kind in (bool, int, float):
        return value
    if kind is str:
        return value[:MAX_TEXT]
    if kind in (torch.Tensor, torch.nn.Parameter):
        if value.layout is not torch.strided or value.dtype not in _NAME_OF or value.is_meta:
            return Opaque(f"a {value.layout} tensor of {value.dtype} on {value.device}")
        return value.detach().cpu().clone()
    if kind in (list, tuple):
        return kind(plain(item, depth + 1) for item in value)
    if kind is dict:
        return {str(key)[:MAX_TEXT]: plain(item, depth + 1) for key, item in value.items()}
    if _DATACLASSES.get(kind.__name__) == kind.__module__:
        fields = dataclasses.fields(kind)
        return kind(**{field.name: plain(getattr(value, field.name), depth + 1) for field in fields})
    return Opaque(f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."))


def encode(value: Any) -> bytes:
    """The frame of a plain value. Tensors keep their strides: non-contiguous ones arrive non-contiguous."""
    tensors: list[torch.Tensor] = []
    header: dict[str, Any] = {"value": _spell(value, tensors)}
    header["tensors"] = [[_NAME_OF[t.dtype], list(t.shape), _compact_strides(t)] for t in tensors]
    text = json.dumps(header, allow_nan=False).encode()
    body = b"".join(_raw(t) for t in tensors)
    return struct.pack(">QQ", len(text), len(body)) + text + body


def decode(frame: bytes) -> Any:
    """The value of a frame. Raises ProtocolError on anything that `encode` cannot have made."""
    try:
        size_text, size_body = struct.unpack(">QQ", frame[:16])
        _check_sizes(size_text, size_body)
        if len(frame) != 16 + size_text + size_body:
            raise ProtocolError(f"a frame of {len(frame)} bytes announces {16 + size_text + size_body}")
        header = json.loads(frame[16 : 16 + size_text])
        tensors = _tensors(header["tensors"], memoryview(frame)[16 + size_text :])
        return _read(header["value"], tensors, 0)
    except ProtocolError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, struct.error, RuntimeError, RecursionError) as error:
        raise ProtocolError(f"malformed frame ({type(error).__name__}: {str(error)[:200]})") from None


def write_frame(stream: BinaryIO, value: Any) -> None:
    """Send one value."""
    stream.write(encode(value))
    stream.flush()


def read_frame(stream: BinaryIO) -> Any:
    """Receive one value. Raises EOFError where the stream ends, ProtocolError where it makes no sense."""
    prefix = _read_exactly(stream, 16)
    sizes = struct.unpack(">QQ", prefix)
    _check_sizes(*sizes)
    return decode(prefix + _read_exactly(stream, sum(sizes)))


def _read_exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if data is None or len(data) < count:
        raise EOFError("the other side closed the connection")
    return data


def _check_sizes(text: int, body: int) -> None:
    if text > MAX_HEADER or body > MAX_TENSOR_BYTES:
        raise ProtocolError(f"a frame with {text} bytes of header and {body} of tensors is too large")


def _compact_strides(tensor: torch.Tensor) -> list[int]:
    """Strides for the compact storage that is sent: the tensor's own, or contiguous where they overlap."""
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    own = tensor.numel() > 0 and span == tensor.numel()
    return list(tensor.stride() if own else tensor.contiguous().stride())


def _raw(tensor: torch.Tensor) -> bytes:
    if tensor.numel() == 0:
        return b""
    order = sorted(range(tensor.dim()), key=lambda axis: -_compact_strides(tensor)[axis])
    flat = tensor.detach().permute(order).contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def _tensors(specs: list[Any], body: memoryview) -> list[torch.Tensor]:
    if len(specs) > MAX_TENSORS:
        raise ProtocolError(f"{len(specs)} tensors in one frame")
    tensors, offset = [], 0
    for name, shape, strides in specs:
        dtype = DTYPES[name]
        if not (len(shape) == len(strides) <= MAX_DIMS) or any(
            type(n) is not int or n < 0 for n in (*shape, *strides)
        ):
            raise ProtocolError(f"a tensor of shape {shape} and strides {strides}")
        size = math.prod(shape) * dtype.itemsize
        if offset + size > len(body):
            raise ProtocolError("the tensors of a frame are longer than its body")
        flat = (
            torch.frombuffer(bytearray(body[offset : offset + size]), dtype=dtype)
            if size
            else torch.empty(0, dtype=dtype)
        )
        span = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) if size else 0
        if span > flat.numel():
            raise ProtocolError(f"a tensor of shape {shape} and strides {strides} reaches past its bytes")
        tensors.append(flat.as_strided(shape, strides) if size else flat.reshape(shape))
        offset += size
    if offset != len(body):
        raise ProtocolError("a frame carries bytes that belong to no tensor")
    return tensors


def _spell(value: Any, tensors: list[torch.Tensor]) -> Any:
    kind = type(value)
    if value is None or kind in (bool, str):
        return value
    if kind is int:
        return {"i": hex(value)}
    if kind is float:
        return {"f": value.hex()}
    if kind is torch.Tensor:
        tensors.append(value)
        return {"t": len(tensors) - 1}
    if kind in (list, tuple):
        return {"l" if kind is list else "u": [_spell(item, tensors) for item in value]}
    if kind is dict:
        return {"d": {str(key): _spell(item, tensors) for key, item in value.items()}}
    if _DATACLASSES.get(kind.__name__) == kind.__module__:
        fields = {f.name: _spell(getattr(value, f.name), tensors) for f in dataclasses.fields(kind)}
        return {"c": [kind.__name__, fields]}
    raise TypeError(f"{kind.__name__} is no plain data")


def _read(tree: Any, tensors: list[torch.Tensor], depth: int) -> Any:
    if depth > 2 * MAX_DEPTH:  # a message wraps the value that `plain` cut off at MAX_DEPTH
        raise ProtocolError("a value nested too deeply")
    if tree is None or type(tree) in (bool, str):
        return tree
    ((tag, inner),) = tree.items()
    if tag == "i":
        return int(inner, 16)
    if tag == "f":
        return float.fromhex(inner)
    if tag == "t":
        return tensors[inner]
    if tag in ("l", "u"):
        return (list if tag == "l" else tuple)(_read(item, tensors, depth + 1) for item in inner)
    if tag == "d":
        return {key: _read(item, tensors, depth + 1) for key, item in inner.items()}
    if tag == "c":
        name, fields = inner
        cls = getattr(importlib.import_module(_DATACLASSES[name]), name)
        return cls(**{key: _read(item, tensors, depth + 1) for key, item in fields.items()})
    raise ProtocolError(f"unknown tag {tag!r}")
