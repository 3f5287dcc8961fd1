"""How plain data travels between judge and worker: a length, a JSON header, and the raw bytes of the tensors.

The header spells a value as a tree of one-letter tags, so that a list stays a list, a tuple a tuple and an int an
int. Nothing is ever unpickled. Decoding refuses whatever is too large, not well-formed or not of the declared
type, and raises nothing but ProtocolError: a forged reply can only be another wrong answer.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import math
import struct
import types
import typing
from typing import Any, BinaryIO

import torch

from moe_course.grading.exercises.protocol import (
    DATACLASSES,
    DTYPE_NAMES,
    LARGEST_REPLY,
    MAX_DEPTH,
    MAX_DIGITS,
)

REQUEST = (64 << 20, 64 << 20)  # the most bytes of JSON and of tensors; nobody but the judge writes requests
REPLY = (256 << 10, LARGEST_REPLY)  # of a reply; right answers of the course need 6 kB and 65 kB at most
MAX_TENSORS = 2_000
MAX_DIMS = 8
CHUNK = 1 << 20  # bytes read at a time, so that an announced size costs nothing until it arrives

DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


class ProtocolError(ValueError):
    """A frame that is too large, cut short or not well-formed."""


def encode(value: Any, largest: tuple[int, int] = REPLY) -> bytes:
    """The frame of a plain value. Tensors keep their strides: non-contiguous ones arrive non-contiguous.

    largest: the most bytes that its JSON and its tensors may take. Raises ProtocolError for a value that is too large
    to send.
    """
    tensors: list[torch.Tensor] = []
    tree: dict[str, Any] = {"value": _spell(value, tensors)}
    tree["tensors"] = [[DTYPE_NAMES[t.dtype], list(t.shape), _compact_strides(t)] for t in tensors]
    text = json.dumps(tree, allow_nan=False).encode()
    if len(tensors) > MAX_TENSORS:
        raise ProtocolError(f"{len(tensors)} tensors at once are too many")
    _check_sizes((len(text), sum(t.numel() * t.dtype.itemsize for t in tensors)), largest)
    raw = b"".join(_raw(t) for t in tensors)
    return struct.pack(">QQ", len(text), len(raw)) + text + raw


def decode(frame: bytes, largest: tuple[int, int] = REPLY) -> Any:
    """The value of a frame. Raises ProtocolError on anything that `encode` cannot have made within these sizes."""
    try:
        size_text, size_body = struct.unpack(">QQ", frame[:16])
        _check_sizes((size_text, size_body), largest)
        if len(frame) != 16 + size_text + size_body:
            raise ProtocolError(f"a frame of {len(frame)} bytes announces {16 + size_text + size_body}")
        tree = json.loads(frame[16 : 16 + size_text])
        reader = _Reader(_tensors(tree["tensors"], memoryview(frame)[16 + size_text :]))
        value = reader.read(tree["value"], 0)
        if reader.used != len(reader.tensors):
            raise ProtocolError("a frame carries tensors that it does not use")
        return value
    except ProtocolError:
        raise
    except Exception as error:  # whatever a hostile frame trips: RecursionError, OverflowError, MemoryError …
        raise ProtocolError(f"malformed frame ({type(error).__name__}: {str(error)[:200]})") from None


def write_frame(stream: BinaryIO, value: Any, largest: tuple[int, int] = REPLY) -> None:
    """Send one value."""
    send(stream, encode(value, largest))


def send(stream: BinaryIO, frame: bytes) -> None:
    """Send a frame that is encoded already."""
    rest = memoryview(frame)
    while rest:
        rest = rest[stream.write(rest) :]
    stream.flush()


def read_frame(stream: BinaryIO, largest: tuple[int, int] = REPLY) -> Any:
    """Receive one value. Raises EOFError where the stream ends, ProtocolError where it makes no sense."""
    prefix = _read_exactly(stream, 16)
    sizes = struct.unpack(">QQ", prefix)
    _check_sizes(sizes, largest)
    return decode(prefix + _read_exactly(stream, sum(sizes)), largest)


def _read_exactly(stream: BinaryIO, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = stream.read(min(CHUNK, count - len(data)))
        if not piece:
            raise EOFError("the other side closed the connection")
        data += piece
    return bytes(data)


def _check_sizes(sizes: tuple[int, ...], largest: tuple[int, int]) -> None:
    text, body = sizes
    if text > largest[0] or body > largest[1]:
        raise ProtocolError(
            f"too large: {text} bytes of text and {body} of tensors, where {largest[0]} and {largest[1]} are the most"
        )


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
    # a tensor of one element may keep any stride, and `view` to another dtype wants exactly 1
    return flat.as_strided((flat.numel(),), (1,)).view(torch.uint8).numpy().tobytes()


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
    if DATACLASSES.get(kind.__name__) == kind.__module__:
        fields = {f.name: _spell(getattr(value, f.name), tensors) for f in dataclasses.fields(kind)}
        return {"c": [kind.__name__, fields]}
    raise TypeError(f"{kind.__name__} is no plain data")


class _Reader:
    """Reads a tree back. Every tensor is used once and in order, so that a small frame stays a small value."""

    def __init__(self, tensors: list[torch.Tensor]):
        self.tensors = tensors
        self.used = 0

    def read(self, tree: Any, depth: int) -> Any:
        if depth > 2 * MAX_DEPTH:  # a message wraps the value that `plain` cut off at MAX_DEPTH
            raise ProtocolError("a value nested too deeply")
        if tree is None or type(tree) is bool:
            return tree
        if type(tree) is str:
            return _text(tree)
        ((tag, inner),) = tree.items()
        if tag == "i":
            if len(inner) > MAX_DIGITS:
                raise ProtocolError(f"a number of {len(inner)} digits")
            return int(inner, 16)
        if tag == "f":
            return float.fromhex(inner)
        if tag == "t":
            return self._next_tensor(inner)
        if tag in ("l", "u"):
            return (list if tag == "l" else tuple)(self.read(item, depth + 1) for item in inner)
        if tag == "d":
            return {_text(key): self.read(item, depth + 1) for key, item in inner.items()}
        if tag == "c":
            name, fields = inner
            return self._dataclass(name, fields, depth)
        raise ProtocolError(f"unknown tag {tag[:20]!r}")

    def _next_tensor(self, index: Any) -> torch.Tensor:
        if type(index) is not int or index != self.used:
            raise ProtocolError("the tensors of a frame are not used in order")
        self.used += 1
        return self.tensors[index]

    def _dataclass(self, name: str, fields: dict[str, Any], depth: int) -> Any:
        cls = getattr(importlib.import_module(DATACLASSES[name]), name)
        values = {key: self.read(item, depth + 1) for key, item in fields.items()}
        for key, hint in hints(cls).items():
            if key in values and not conforms(values[key], hint):
                raise ProtocolError(f"{name}.{key} is a {type(values[key]).__name__}")
        return cls(**values)


def _text(text: str) -> str:
    """Text that can be written as UTF-8: JSON lets half a surrogate pair through, files and terminals do not."""
    return text.encode("utf-8", "replace").decode("utf-8")


@functools.cache
def hints(declared: Any) -> dict[str, Any]:
    """The declared types of a dataclass's fields, or of a probe's arguments and reply."""
    return typing.get_type_hints(declared)


def conforms(value: Any, hint: Any) -> bool:
    """Whether a decoded value has the declared type: a class, a union, a tuple[X, ...], a Literal or Any."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(conforms(value, option) for option in options)
    if origin is typing.Literal:
        return any(type(value) is type(option) and value == option for option in options)
    if origin is tuple and options[1:] == (...,):
        return type(value) is tuple and all(conforms(item, options[0]) for item in value)
    kind = type(None) if hint is None else origin or hint
    return isinstance(value, kind) and (kind is bool or type(value) is not bool)
