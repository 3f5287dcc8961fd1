"""The loss that training minimises, and the losses that are reported."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits_BSV: Tensor, targets_BS: Tensor) -> Tensor:
    """Mean over tokens of −log p(target), in nats, in float32 at least: the loss to report."""
    wide = torch.promote_types(logits_BSV.dtype, torch.float32)
    return F.cross_entropy(logits_BSV.flatten(0, 1).to(wide), targets_BS.flatten().long())


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
