"""What a computation does, counted on fake tensors: kernels, casts, FLOPs, bytes moved, and the memory it needs.

    with FakeTensorMode(), Counter() as counted:
        model(tokens_BS)[0].sum().backward()
    print(counted.kernels, counted.peak_bytes)

A fake tensor has a shape, a dtype and a device, and no values, so a model for a large GPU is counted on any machine
in seconds. The fake device is the CPU, for PyTorch without CUDA cannot differentiate on a fake GPU; `as_on_cuda` puts
the operators in the places where CUDA has them.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten

_NO_KERNEL = {aten.detach, aten.alias, aten._unsafe_view, aten.empty, aten.new_empty, aten.empty_like}
_NO_KERNEL |= {aten.lift_fresh, aten.empty_strided, aten.new_empty_strided}


@dataclass(frozen=True)
class Kernel:
    """One operator: its FLOPs, the bytes it reads and writes, and whether it computes in 16 bits."""

    name: str
    flops: int
    bytes: int
    narrow: bool


@dataclass
class Counter(TorchDispatchMode):
    """Inside, every operator is counted; what existed before counts as read, but not as memory.

    kernels: operators that compute or copy. casts: those of them that only change a floating dtype. peak_bytes: the
    most bytes that the tensors made inside held at one time; an allocator needs a few percent more.
    """

    found: list[Kernel] = field(default_factory=list)
    peak_bytes: int = 0
    live_bytes: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self._alive: set[int] = set()

    @property
    def kernels(self) -> int:
        return len(self.found)

    @property
    def casts(self) -> int:
        return sum(kernel.name == "cast" for kernel in self.found)

    @property
    def flops(self) -> int:
        return sum(kernel.flops for kernel in self.found)

    @property
    def bytes(self) -> int:
        return sum(kernel.bytes for kernel in self.found)

    def seconds(self, wide: float, narrow: float | None, bandwidth: float) -> float:
        """The time on a device with these FLOPs per second in 32 and in 16 bits, and bytes per second of memory.

        Each kernel takes as long as its arithmetic or its traffic, whichever is longer, and none overlap (the
        roofline model: Williams et al. 2009, doi 10.1145/1498765.1498785).
        """
        rates = {False: wide, True: narrow or wide}
        return sum(max(k.flops / rates[k.narrow], k.bytes / bandwidth) for k in self.found)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if func.namespace == "aten":
            given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
            if made and not func.is_view and packet not in _NO_KERNEL:
                self.found.append(_kernel(packet, args, kwargs or {}, out, given, made))
            self._keep(made, given)
        return out

    def _keep(self, made: Iterable[Tensor], given: Iterable[Tensor]) -> None:
        """Count the memory of new tensors until they are freed."""
        old = {tensor.untyped_storage()._cdata for tensor in given}
        for tensor in made:
            storage = tensor.untyped_storage()
            if (key := storage._cdata) not in old and key not in self._alive:
                self._alive.add(key)
                self.live_bytes += (size := storage.nbytes())
                weakref.finalize(storage, self._free, key, size)
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _free(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.live_bytes -= size


class as_on_cuda(TorchFunctionMode):
    """Inside, an RMSNorm is one kernel, as on CUDA: counted as a LayerNorm, which moves and keeps the same rows."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is F.rms_norm:
            return F.layer_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _kernel(
    packet: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    out: Any,
    given: list[Tensor],
    made: list[Tensor],
) -> Kernel:
    floats = [tensor.dtype for tensor in (*given, *made) if tensor.dtype.is_floating_point]
    cast = packet is aten._to_copy and made[0].is_floating_point() and given[0].dtype != made[0].dtype
    return Kernel(
        "cast" if cast and given[0].is_floating_point() else packet.__name__,
        _flops(packet, args, kwargs, out),
        sum(map(_bytes, given)) + sum(map(_bytes, made)),
        bool(floats) and floats[0].itemsize == 2,
    )


def _bytes(tensor: Tensor) -> int:
    """Bytes behind a tensor; what is expanded is there once."""
    return tensor.itemsize * math.prod(
        size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or size == 0
    )


def _flops(packet: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    """A multiply-add counts as two. Products and attention only, as torch.utils.flop_counter does."""
    if packet is aten._grouped_mm:  # (rows, D) · (E, D, F), and the weights' gradient (D, rows) · (rows, F)
        a, b = args[:2]
        return 2 * a.shape[0] * a.shape[1] * b.shape[-1]
    if packet is aten._scaled_dot_product_flash_attention_for_cpu:
        return _attention(*args[:3])
    if packet is aten._scaled_dot_product_flash_attention_for_cpu_backward:
        return (
            5 * _attention(*args[1:4]) // 2
        )  # five products, of which one is that of the forward pass again
    count = flop_registry.get(packet)
    return count(*args, **kwargs, out_val=out) if count else 0


def _attention(q: Tensor, k: Tensor, v: Tensor) -> int:
    """Both products of causal attention: a position sees (S + 1) / 2 on average."""
    *batch, queries, width = q.shape
    return 2 * math.prod(batch) * queries * (k.shape[-2] + 1) * (width + v.shape[-1]) // 2
