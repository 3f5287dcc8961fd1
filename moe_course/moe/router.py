"""The router: which experts handle a token, and with what weight.

Every function works on T tokens (flatten a batch first), reads shapes and never values, and edits nothing in
place, so it runs without a transfer from the device. The softmax of a router is taken in float32 whatever the
input's dtype: Switch Transformers diverged in bfloat16; with only the router in float32 they trained as well as
in float32 throughout (arXiv 2101.03961, section 2.4, table 2).
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from moe_course.shapes import check_axes

_MOST_KEYED = 1 << 16  # experts whose index fits below the 32 bits of a score


def router_logits(x_TD: Tensor, w_DE: Tensor) -> Tensor:
    """Score of each expert for each token, x·W, in float32 (also under autocast).

    x_TD: tokens, any floating dtype. w_DE: router weights. Returns logits_TE, float32.
    """
    check_axes(x_TD=x_TD, w_DE=w_DE)
    with _no_autocast(x_TD):
        return x_TD.float() @ w_DE.float()


def router_probs(x_TD: Tensor, w_DE: Tensor) -> Tensor:
    """Probability of each expert for each token, softmax(x·W), in float32 (also under autocast).

    x_TD: tokens, any floating dtype. w_DE: router weights. Returns probs_TE, float32, rows summing to 1.
    """
    return softmax_of_experts(router_logits(x_TD, w_DE))


def softmax_of_experts(logits_TE: Tensor) -> Tensor:
    """softmax(logits) along the experts, in the dtype of logits_TE.

    On a CPU PyTorch computes rows of fewer than 16 numbers, one vector register, about three times as fast when they
    lie across memory (4,096 tokens and 8 experts, forward and backward, torch 2.13).
    """
    T, E = logits_TE.shape
    real = type(logits_TE) is Tensor  # a fake tensor may stand for a GPU's
    if real and logits_TE.device.type == "cpu" and T >= 256 and E < 16:
        return logits_TE.T.contiguous().softmax(dim=0).T.contiguous()
    return logits_TE.softmax(dim=-1)


def top_k_gate(probs_TE: Tensor, k: int, renormalize: bool = True) -> tuple[Tensor, Tensor]:
    """The k most probable experts of each token, and their weights, in descending order.

    With `renormalize` the weights of a token sum to 1 (Mixtral), which equals a softmax over the k largest
    logits; without it they are the probabilities themselves (OLMoE). Experts of equal probability come in the
    order of their index. Returns (weights_TK in the dtype of probs_TE, idx_TK int64). Raises ValueError for k
    outside 1..E.
    """
    _check_k(k, check_axes(probs_TE=probs_TE)["E"])
    weights_TK, idx_TK = _top_k(probs_TE, k)
    if renormalize:
        weights_TK = weights_TK / weights_TK.sum(dim=-1, keepdim=True)
    return weights_TK, idx_TK


def sparse_gates(logits_TE: Tensor, k: int) -> Tensor:
    """Softmax over the k largest logits of each token, exactly 0 elsewhere: KeepTopK, then Softmax.

    Equals `top_k_gate` of the full softmax when that renormalises, and differs from it when it does not.
    Returns gates_TE in the dtype of logits_TE. Raises ValueError for k outside 1..E.
    Source: Shazeer et al. 2017, arXiv 1701.06538, equations 3 and 5.
    """
    _check_k(k, check_axes(logits_TE=logits_TE)["E"])
    top_TK, idx_TK = _top_k(logits_TE, k)
    weights_TK = top_TK.float().softmax(dim=-1).to(logits_TE.dtype)
    return torch.zeros_like(logits_TE).scatter(-1, idx_TK, weights_TK)


def noisy_logits(
    x_TD: Tensor, w_gate_DE: Tensor, w_noise_DE: Tensor, noise_TE: Tensor, training: bool
) -> Tensor:
    """Router logits with learned noise, H = x·W_g + ε·softplus(x·W_n) in training, and plain x·W_g otherwise.

    noise_TE: ε, standard normal, drawn by the caller. Noise belongs to training only: at evaluation it would
    route the same token differently each time. Computed in float32 at least; returns logits_TE in the dtype
    of x_TD. Source: Shazeer et al. 2017, arXiv 1701.06538, equation 4.
    """
    check_axes(x_TD=x_TD, w_gate_DE=w_gate_DE, w_noise_DE=w_noise_DE, noise_TE=noise_TE)
    wide = torch.promote_types(x_TD.dtype, torch.float32)
    x_wide_TD = x_TD.to(wide)
    with _no_autocast(x_TD):
        logits_TE = x_wide_TD @ w_gate_DE.to(wide)
        if training:
            std_TE = F.softplus(x_wide_TD @ w_noise_DE.to(wide))
            logits_TE = logits_TE + noise_TE.to(wide) * std_TE
    return logits_TE.to(x_TD.dtype)


def switch_gate(logits_TE: Tensor) -> tuple[Tensor, Tensor]:
    """Top-1 routing: each token's best expert, weighted by its probability p.

    The weight is *not* renormalised: p/p = 1 is a constant, and a constant weight gives the router no
    gradient from the task. An auxiliary loss would still balance it, so its load would look healthy.
    Returns (weight_T in the dtype of logits_TE, idx_T int64).
    Source: Switch Transformers, arXiv 2101.03961, equation 2 with one expert.
    """
    check_axes(logits_TE=logits_TE)
    probs_TE = logits_TE.float().softmax(dim=-1)
    weights_TK, idx_TK = _top_k(probs_TE, 1)
    return weights_TK[:, 0].to(logits_TE.dtype), idx_TK[:, 0]


def router_gradient(dy_TD: Tensor, expert_out_TKD: Tensor, probs_TE: Tensor, idx_TK: Tensor) -> Tensor:
    """Gradient of the loss with respect to the router's logits, by hand, for y = Σ_k p[idx_k]·out_k.

    dy_TD: gradient of the loss with respect to y. expert_out_TKD: what each selected expert returned, before
    weighting. The weights are not renormalised. Only the selected experts get a direct signal, ⟨dy, out_k⟩;
    the others change only because the probabilities of a softmax sum to 1, each in proportion to
    its probability. Returns dlogits_TE in the dtype of probs_TE, computed in float32 at least.
    """
    check_axes(dy_TD=dy_TD, expert_out_TKD=expert_out_TKD, probs_TE=probs_TE, idx_TK=idx_TK)
    wide = torch.promote_types(probs_TE.dtype, torch.float32)
    p_TE = probs_TE.to(wide)
    dweight_TK = (dy_TD.to(wide)[:, None, :] * expert_out_TKD.to(wide)).sum(dim=-1)  # ∂y/∂p[idx_k] = out_k
    dp_TE = torch.zeros_like(p_TE).scatter_add(-1, idx_TK, dweight_TK)
    dlogits_TE = p_TE * (dp_TE - (p_TE * dp_TE).sum(dim=-1, keepdim=True))  # the softmax's Jacobian
    return dlogits_TE.to(probs_TE.dtype)


def _top_k(scores_TE: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`torch.topk` by row, except that ties go to the lower index everywhere, so that runs repeat.

    `torch.topk` promises nothing about ties, so it is given keys without any: the bits of the score as a number that
    grows with it, and below them the index. This takes half the time of a stable sort of all E scores.
    """
    num_experts = scores_TE.shape[-1]
    if scores_TE.dtype == torch.float64 or num_experts > _MOST_KEYED:
        idx_TK = scores_TE.argsort(dim=-1, descending=True, stable=True)[:, :k].contiguous()
    else:
        bits_TE = (scores_TE.detach().float() + 0.0).view(torch.int32)  # −0 + 0 is 0, and ties with 0
        ordered_TE = torch.where(bits_TE < 0, bits_TE ^ 0x7FFFFFFF, bits_TE).long()
        keys_TE = ordered_TE * _MOST_KEYED - torch.arange(num_experts, device=scores_TE.device)
        idx_TK = keys_TE.topk(k, dim=-1).indices
    return scores_TE.gather(-1, idx_TK), idx_TK


def _check_k(k: int, num_experts: int) -> None:
    if not 1 <= k <= num_experts:
        raise ValueError(f"k must be in 1..{num_experts}, the number of experts, got {k}")


def _no_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Keep matrix products in the dtype they are written in: autocast would turn float32 into bfloat16."""
    if torch.amp.is_autocast_available(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return nullcontext()
