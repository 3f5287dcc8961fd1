"""What real routing costs a server: the distinct experts of a step, and the traces that a cache of experts sees."""

from __future__ import annotations

import torch
from torch import Tensor

from moe_course.moe.counts import expert_counts
from moe_course.shapes import check_axes


def distinct_per_step(idx_SBK: Tensor, num_experts: int) -> Tensor:
    """How many different experts each step uses: (S,), int64. A step has B tokens, and each of them K experts."""
    check_axes(idx_SBK=idx_SBK)
    used_SE = torch.zeros(len(idx_SBK), num_experts, dtype=torch.int64, device=idx_SBK.device)
    return used_SE.scatter(1, idx_SBK.flatten(1), 1).sum(dim=1)


def steps_of(idx_TK: Tensor, batch: int, generator: torch.Generator | None = None) -> Tensor:
    """Tokens cut into steps of `batch` neighbours: idx_SBK; what is left at the end is dropped.

    generator: shuffle the tokens first, so that a step's tokens have nothing to do with each other. Raises ValueError
    if there are fewer tokens than a step needs.
    """
    tokens = check_axes(idx_TK=idx_TK)["T"]
    if not 1 <= batch <= tokens:
        raise ValueError(f"batch must be in 1..{tokens}, the number of tokens, got {batch}")
    if generator is not None:
        idx_TK = idx_TK[torch.randperm(tokens, generator=generator).to(idx_TK.device)]
    return idx_TK[: tokens // batch * batch].unflatten(0, (-1, batch))


def expected_distinct_given_load(chosen_E: Tensor, batch: int) -> float:
    """Distinct experts of a step of B independent tokens, if a token chooses expert e with probability chosen_E[e].

    Σ_e 1 − (1 − p_e)^B; the p_e sum to K. For equal p_e it is E · (1 − (1 − K/E)^B), and every skew lowers it, since
    1 − (1 − p)^B is concave in p. Raises ValueError for a probability outside 0..1.
    """
    check_axes(chosen_E=chosen_E)
    if chosen_E.min() < 0 or chosen_E.max() > 1:
        raise ValueError(f"each expert's probability must be in 0..1, got {chosen_E.tolist()}")
    return float((1 - (1 - chosen_E.double()) ** batch).sum())


def chosen_shares(idx_TK: Tensor, num_experts: int) -> Tensor:
    """chosen_E: the share of the tokens that chose each expert; they sum to K."""
    return expert_counts(idx_TK, num_experts).double() / len(idx_TK)


def layer_traces(idx_LTK: Tensor) -> list[list[int]]:
    """The experts that each layer uses, one after the other: the trace of a cache that belongs to one layer."""
    check_axes(idx_LTK=idx_LTK)
    return [idx_TK.flatten().tolist() for idx_TK in idx_LTK]


def shared_trace(idx_LTK: Tensor, num_experts: int) -> list[int]:
    """The uses of all layers in the order of decoding: token by token, in each token layer by layer.

    The trace of one cache for all layers. Expert e of layer l is called l · E + e.
    """
    layers = check_axes(idx_LTK=idx_LTK)["L"]
    first_L11 = num_experts * torch.arange(layers, device=idx_LTK.device)[:, None, None]
    return (idx_LTK + first_L11).transpose(0, 1).flatten().tolist()
