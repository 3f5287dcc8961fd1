"""The loss that training minimises, and the losses that are reported."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_AT_ONCE = 2048


def cross_entropy(logits_BSV: Tensor, targets_BS: Tensor) -> Tensor:
    """Mean over tokens of −log p(target), in nats, in float32 at least: the loss to report.

    Narrower logits are widened _AT_ONCE tokens at a time, and again in the backward pass, so that no copy of all of
    them exists in float32.
    """
    logits_TV, targets_T = logits_BSV.flatten(0, 1), targets_BS.flatten().long()
    if logits_TV.dtype.itemsize >= 4:
        return F.cross_entropy(logits_TV, targets_T)
    parts = zip(logits_TV.split(_AT_ONCE), targets_T.split(_AT_ONCE), strict=True)
    sums = [checkpoint(_sum, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return torch.stack(sums).sum() / len(targets_T)


def _sum(logits_TV: Tensor, targets_T: Tensor) -> Tensor:
    return F.cross_entropy(logits_TV.float(), targets_T, reduction="sum")


def moe_objective(
    ce: Tensor,
    lb_losses_L: Sequence[Tensor] | Tensor,
    z_losses_L: Sequence[Tensor] | Tensor,
    lb_weight: float,
    z_weight: float,
) -> Tensor:
    """ce + lb_weight · mean(lb) + z_weight · mean(z), means over layers: the loss to minimise.

    A model without MoE layers passes empty lists, which add 0.
    """
    return ce + lb_weight * _mean(lb_losses_L) + z_weight * _mean(z_losses_L)


def bits_per_byte(ce_nats_per_token: float, tokens: int, bytes: int) -> float:
    """A loss that can be compared between tokenizers: the nats of the whole text, in bits, divided by its bytes.

    Raises ValueError where tokens or bytes is below 1.
    """
    if min(tokens, bytes) < 1:
        raise ValueError(f"tokens and bytes must be positive, got {tokens} and {bytes}")
    return ce_nats_per_token * tokens / (math.log(2) * bytes)


def _mean(losses_L: Sequence[Tensor] | Tensor) -> Tensor | float:
    if len(losses_L) == 0:
        return 0.0
    return losses_L.mean() if isinstance(losses_L, Tensor) else torch.stack(list(losses_L)).mean()
