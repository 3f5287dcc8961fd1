"""Capacity: experts that take C assignments each, the queue in front of each expert, and the buffers.

Buffers of one fixed shape suit compilers and all-to-all exchanges, and so made large MoE layers possible (GShard,
Switch). They have a price: an expert that is chosen more than C times drops the rest, and one that is chosen less
often computes zeros.

A position is the place of an assignment in its expert's queue, from 0. The three fills differ only in which
assignments come first. The functions that return tensors read no value on the host and run on the `meta`
device; the others return Python numbers.
"""

import math

import torch
from torch import Tensor

from moe_course.moe.counts import expert_counts
from moe_course.shapes import check_axes


def expert_capacity(num_tokens: int, num_experts: int, top_k: int, factor: float) -> int:
    """Slots of each expert, C = ceil(T·K/E · factor), counted in assignments.

    Megatron counts assignments too; Switch (arXiv 2101.03961, equation 3) counts tokens, which is the same for
    its K = 1. The factor means the decimal number that was written: 1.1 times 100 is 110, though in floating point
    100 · 1.1 is a little more. Raises ValueError for sizes or a factor that are not positive, and for K above E.
    """
    sizes = {"num_tokens": num_tokens, "num_experts": num_experts, "top_k": top_k}
    if min(sizes.values()) < 1 or top_k > num_experts:
        raise ValueError(f"sizes must be positive and top_k at most num_experts, got {sizes}")
    if not 0 < factor < math.inf:
        raise ValueError(f"the capacity factor must be positive and finite, got {factor}")
    # round, not a Fraction: torch.compile understands it, even when the number of tokens varies.
    return math.ceil(round(num_tokens * top_k * factor / num_experts, 9))


def positions_in_expert(idx_TK: Tensor, num_experts: int) -> Tensor:
    """Place of each assignment in its expert's queue, choice-major: all first choices, then all second ones.

    Returns pos_TK, int64. Source: GShard, arXiv 2006.16668, algorithm 1.
    """
    check_axes(idx_TK=idx_TK)
    tokens, k = idx_TK.shape
    return _places(idx_TK.T.flatten(), num_experts).view(k, tokens).T.contiguous()


def token_major_positions(idx_TK: Tensor, num_experts: int) -> Tensor:
    """Place of each assignment in its expert's queue, token-major: all choices of token 0, then of token 1.

    This is the only fill in which no token can take the place of an earlier one. Returns pos_TK, int64.
    """
    check_axes(idx_TK=idx_TK)
    return _places(idx_TK.flatten(), num_experts).view_as(idx_TK)


def batch_priority_positions(idx_TK: Tensor, weights_TK: Tensor, num_experts: int) -> Tensor:
    """Place of each assignment in its expert's queue, when tokens queue in descending first-choice weight.

    Like `positions_in_expert`, all first choices come before all second ones; tokens of equal weight keep their
    order. Returns pos_TK, int64. Source: V-MoE, Riquelme et al. 2021, arXiv 2106.05974, section 4.1.
    """
    check_axes(idx_TK=idx_TK, weights_TK=weights_TK)
    order_T = weights_TK[:, 0].argsort(descending=True, stable=True)
    queued_TK = positions_in_expert(idx_TK[order_T], num_experts)
    return torch.zeros_like(queued_TK).index_copy(0, order_T, queued_TK)


def fill_buffers(x_TD: Tensor, idx_TK: Tensor, pos_TK: Tensor, num_experts: int, capacity: int) -> Tensor:
    """Each expert's tokens in the order of its queue; empty slots are 0.

    Assignments at positions ≥ C are dropped. Returns buf_ECD in the dtype of x_TD. Raises ValueError for a
    capacity below 1.
    """
    sizes = check_axes(x_TD=x_TD, idx_TK=idx_TK, pos_TK=pos_TK)
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, got {capacity}")
    slots = num_experts * capacity
    slot_TK = torch.where(pos_TK < capacity, idx_TK * capacity + pos_TK, slots)
    rows_ND = x_TD.repeat_interleave(sizes["K"], dim=0)
    # Dropped rows go to one extra row, which is cut off: so no shape depends on how many are dropped.
    buf = x_TD.new_zeros(slots + 1, sizes["D"]).index_copy(0, slot_TK.flatten(), rows_ND)
    return buf[:-1].view(num_experts, capacity, sizes["D"])


def read_buffers(buf_ECD: Tensor, idx_TK: Tensor, pos_TK: Tensor, weights_TK: Tensor) -> Tensor:
    """Each token's weighted sum over the slots that hold its assignments.

    Dropped assignments (positions ≥ C) add 0 and the weights of the others stay as they are: the residual
    connection around the layer carries the token. Returns y_TD in the dtype of buf_ECD.
    """
    sizes = check_axes(buf_ECD=buf_ECD, idx_TK=idx_TK, pos_TK=pos_TK, weights_TK=weights_TK)
    kept_TK = pos_TK < sizes["C"]
    slot_TK = torch.where(kept_TK, idx_TK * sizes["C"] + pos_TK, 0)
    rows_TKD = buf_ECD.flatten(0, 1)[slot_TK]
    rows_TKD = torch.where(kept_TK[..., None], rows_TKD, 0)  # not times 0: an infinite row would give nan
    return (weights_TK[..., None] * rows_TKD).sum(dim=1).to(buf_ECD.dtype)


def drop_and_waste(idx_TK: Tensor, num_experts: int, capacity: int) -> tuple[float, float]:
    """What a capacity costs: (the share of the N assignments dropped, the share of the E·C slots that stay empty).

    The order of the queues does not matter here. Reads the counts on the host. Raises ValueError if there are no
    assignments, or for a capacity below 1.
    """
    check_axes(idx_TK=idx_TK)
    if idx_TK.numel() == 0 or capacity < 1:
        raise ValueError(
            f"needs assignments and a capacity of 1 or more, got {tuple(idx_TK.shape)}, {capacity}"
        )
    counts_E = expert_counts(idx_TK, num_experts)
    kept, assignments, slots = int(counts_E.clamp(max=capacity).sum()), idx_TK.numel(), num_experts * capacity
    return (assignments - kept) / assignments, (slots - kept) / slots


def uniform_drop_rate(num_tokens: int, num_experts: int, top_k: int, capacity: int) -> float:
    """Expected share of the assignments dropped when every token chooses K different experts at random.

    An expert's count is then binomial, with T trials of probability K/E. At factor 1 and with many tokens the
    share is near √((E−K)/(2πTK)): the mean overshoot of a normal distribution over its mean is σ/√(2π).
    """
    if top_k == num_experts:
        return max(0, num_tokens - capacity) / num_tokens
    p = top_k / num_experts

    def log_probability(n: int) -> float:
        log_ways = math.lgamma(num_tokens + 1) - math.lgamma(n + 1) - math.lgamma(num_tokens - n + 1)
        return log_ways + n * math.log(p) + (num_tokens - n) * math.log1p(-p)

    late = range(capacity + 1, num_tokens + 1)
    overflow = sum((n - capacity) * math.exp(log_probability(n)) for n in late)
    return overflow * num_experts / (num_tokens * top_k)


def _places(queue_N: Tensor, num_experts: int) -> Tensor:
    """How many entries before each entry of the queue name the same expert, computed without an (N, E) matrix."""
    order_N = queue_N.argsort(stable=True)
    counts_E = expert_counts(queue_N[:, None], num_experts)
    starts_E = counts_E.cumsum(0) - counts_E
    place_N = torch.arange(len(queue_N), device=queue_N.device) - starts_E[queue_N[order_N]]
    return torch.empty_like(place_N).index_copy(0, order_N, place_N)
