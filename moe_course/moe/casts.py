"""In which dtype the experts' products are computed, and weights that are cast once for several forward passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import Tensor

_kept: ContextVar[dict[tuple[int, torch.dtype], tuple[Tensor, Tensor]] | None] = ContextVar(
    "kept", default=None
)


def compute_dtype(x_TD: Tensor, w_EDF: Tensor) -> torch.dtype:
    """The dtype that the experts' products are computed in: autocast's, else the wider of the two."""
    device = x_TD.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return torch.promote_types(x_TD.dtype, w_EDF.dtype)


@contextmanager
def casts_kept(device: torch.device) -> Iterator[None]:
    """Inside, each weight is cast once, by `cast` and by autocast; gradients reach the weight from every use.

    For the pieces of one training step: weights must not change inside. Autocast forgets its casts when the outermost
    autocast context ends, so one that is disabled lies around all others.
    """
    available = torch.amp.is_autocast_available(device.type)
    token = _kept.set({})
    try:
        with torch.autocast(device.type, enabled=False) if available else nullcontext():
            yield
    finally:
        _kept.reset(token)


def cast(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight in a dtype. torch.compile casts anew each time: it does so inside of other kernels."""
    if weight.dtype == dtype:
        return weight
    kept = None if torch.compiler.is_compiling() else _kept.get()
    if kept is None or not torch.is_grad_enabled():
        return weight.to(dtype)
    key = id(weight), dtype
    if key not in kept:
        kept[key] = weight, weight.to(dtype)  # the weight itself too, so that no other gets its id
    return kept[key][1]
