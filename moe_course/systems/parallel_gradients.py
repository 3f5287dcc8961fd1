"""Gradients of a layer whose experts are spread over ranks: brought to those of one process, and clipped by one norm.

Shared parameters are on every rank; each expert is on the ranks of its expert group, which may be one rank alone.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


@torch.no_grad()
def reduce_gradients(
    shared_grads: Sequence[Tensor],
    expert_grads: Sequence[Tensor],
    expert_group: dist.ProcessGroup,
    group: dist.ProcessGroup,
) -> None:
    """Make both, in place, the gradients of the mean loss over the tokens of all ranks of `group`.

    Before: each rank's loss was the mean over its own tokens, equally many everywhere. shared_grads are those of this
    rank's loss; expert_grads are sums over the ranks whose tokens came here. expert_group: the ranks that hold
    the same experts. All ranks call, with their tensors in the same order. Source: the derivation in
    databricks/megablocks#86, and NVIDIA/Megatron-LM#5956.
    """
    ranks = dist.get_world_size(group)
    for gradients, members in ((shared_grads, group), (expert_grads, expert_group)):
        for gradient in gradients:
            total = gradient.contiguous()  # gloo takes no others
            dist.all_reduce(total, group=members)
            # Every rank's tokens are in the sum of the experts, too: those of the group sent them here.
            gradient.copy_(total / ranks)


@torch.no_grad()
def clip_gradients(
    shared_grads: Sequence[Tensor], expert_grads: Sequence[Tensor], max_norm: float, group: dist.ProcessGroup
) -> float:
    """Scale all gradients, in place, by max_norm / norm where the norm is larger than max_norm; returns the norm.

    The norm is over everything that exists once: shared gradients, which are the same on all ranks, and the experts
    of all ranks of `group`, each of which is on one of them. All ranks call; lists may be empty.
    """
    squares = torch.zeros(2, dtype=torch.float64)
    for place, gradients in enumerate((shared_grads, expert_grads)):
        for gradient in gradients:
            squares[place] += gradient.double().square().sum().cpu()
    device = next((gradient.device for gradient in (*shared_grads, *expert_grads)), squares.device)
    squares = squares.to(device)
    dist.all_reduce(squares[1:], group=group)
    norm = squares.sum().sqrt().item()
    if norm > max_norm:
        for gradient in (*shared_grads, *expert_grads):
            gradient.mul_(max_norm / norm)
    return norm
