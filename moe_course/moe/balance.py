"""Ways to keep experts busy: auxiliary losses, a bias without a loss, and experts that choose.

Nothing here reads a value on the host. Losses are 0-dim tensors, in float32 at least; the caller multiplies them
with weights and adds them. Nothing is kept in globals, and no bias is updated unless a caller asks for it.
"""

import torch
from torch import Tensor

from moe_course.moe.counts import expert_counts
from moe_course.moe.metrics import expert_load, global_load
from moe_course.moe.router import _check_k, _top_k
from moe_course.shapes import check_axes


def load_balancing_loss(probs_TE: Tensor, idx_TK: Tensor, mask_T: Tensor | None = None) -> Tensor:
    """E·Σ_e f_e·P_e: f the fraction of assignments, P the mean probability; uniform routing gives 1 for every K.

    Tokens whose mask is False (padding) count nowhere; if no token is left the loss is 0. f is a count, so
    the gradient flows through P alone: it lowers probabilities in proportion to load. 1 is not the minimum.
    Source: Switch Transformers, arXiv 2101.03961, equations 4 to 6. Megatron-LM divides f by K as well;
    transformers' `load_balancing_loss_func` does not, and gives K times this.
    """
    axes = {"probs_TE": probs_TE, "idx_TK": idx_TK} | ({} if mask_T is None else {"mask_T": mask_T})
    num_experts = check_axes(**axes)["E"]
    p_TE = probs_TE.to(torch.promote_types(probs_TE.dtype, torch.float32))
    if mask_T is None:
        f_E, P_E = expert_load(idx_TK, num_experts), p_TE.mean(dim=0)
    else:
        kept = mask_T.to(p_TE.dtype).sum().clamp(min=1)
        f_E = expert_counts(idx_TK, num_experts, mask_T).to(p_TE.dtype) / (kept * idx_TK.shape[1])
        # where, not a product: a padding row may hold nan
        P_E = torch.where(mask_T[:, None].bool(), p_TE, 0).sum(dim=0) / kept
    return num_experts * (f_E * P_E).sum()


def pooled_balancing_loss(probs_TE: Tensor, counts_E: Tensor) -> Tensor:
    """`load_balancing_loss` of some tokens of a batch, with f from the counts of more of it than these tokens.

    The mean over pieces of a batch, all with the counts of the whole batch, is the loss of the whole batch. The mean
    of the pieces' own losses is another, stricter one: it asks for an even load in each piece, although each may be
    about one subject, and the batch even. Source: Qiu et al. 2025, arXiv 2501.11873, section 3.
    """
    num_experts = check_axes(probs_TE=probs_TE, counts_E=counts_E)["E"]
    p_TE = probs_TE.to(torch.promote_types(probs_TE.dtype, torch.float32))
    return num_experts * (global_load(counts_E[None]) * p_TE.mean(dim=0)).sum()


def router_z_loss(logits_TE: Tensor) -> Tensor:
    """Mean over tokens of logsumexp(logits)²: keeps logits small, so that their softmax rounds well.

    Source: ST-MoE, arXiv 2202.08906, equation 5.
    """
    check_axes(logits_TE=logits_TE)
    wide_TE = logits_TE.to(torch.promote_types(logits_TE.dtype, torch.float32))
    return (wide_TE.logsumexp(dim=-1) ** 2).mean()


def biased_top_k(scores_TE: Tensor, bias_E: Tensor, k: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Select on scores + bias; the weights are the scores alone, renormalised over the selected, times scale.

    With k = 1 the weight is `scale`, a constant, and the scores get no gradient (see `MoEConfig.renormalize`). Where
    all selected scores are 0 the weights are 0.

    The bias moves tokens between experts and never enters an output. Slots are in descending order of the biased
    score, equal scores in the order of the experts. Returns (weights_TK in the dtype of scores_TE, idx_TK int64);
    no gradient reaches the bias. Raises ValueError for k outside 1..E. Source: DeepSeek-V3, arXiv 2412.19437,
    equations 12 to 16.
    """
    _check_k(k, check_axes(scores_TE=scores_TE, bias_E=bias_E)["E"])
    _, idx_TK = _top_k(scores_TE.detach() + bias_E.detach(), k)
    weights_TK = scores_TE.gather(-1, idx_TK)
    sums_T1 = weights_TK.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(weights_TK.dtype).tiny)
    return (weights_TK / sums_T1 * scale).to(scores_TE.dtype), idx_TK


@torch.no_grad()
def update_bias(bias_E: Tensor, counts_E: Tensor, rate: float) -> Tensor:
    """b + rate·sign(mean(n) − n): the bias rises for experts below the mean load and falls for those above it.

    The step's size does not depend on the size of the error. Returns a new tensor in the dtype of bias_E,
    without gradient. Source: Wang et al. 2024, arXiv 2408.15664, algorithm 1.
    """
    check_axes(bias_E=bias_E, counts_E=counts_E)
    # The sign of mean − n, with nothing divided: whole numbers stay exact, so an even load moves nothing.
    direction_E = torch.sign(counts_E.sum() - len(counts_E) * counts_E)
    return bias_E + rate * direction_E.to(bias_E.dtype)


def expert_choice(probs_TE: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    """Every expert takes the `capacity` tokens that give it the highest probability.

    The load is always perfectly balanced. A token may be taken by many experts or by none, and this depends on every
    other token, later ones included. Returns (weights_EC in descending order, those
    probabilities; idx_EC int64, tokens). Raises ValueError for a capacity outside 1..T.
    Source: Zhou et al. 2022, arXiv 2202.09368, equation 1.
    """
    tokens = check_axes(probs_TE=probs_TE)["T"]
    if not 1 <= capacity <= tokens:
        raise ValueError(f"capacity must be in 1..{tokens}, the number of tokens, got {capacity}")
    return _top_k(probs_TE.T, capacity)
