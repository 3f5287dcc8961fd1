"""What the code of notebook 11 should do: small, complete versions of gates, routers and one decoding step.

Each stands alone, as such code does where it is shipped. Where the library has a part already, it is used.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from moe_course.moe.balance import biased_top_k, load_balancing_loss, update_bias
from moe_course.moe.counts import expert_counts
from moe_course.moe.experts import swiglu_ffn
from moe_course.moe.router import _top_k, router_logits, router_probs, sparse_gates, switch_gate, top_k_gate
from moe_course.shapes import check_axes


def gate(logits_TE: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k experts of the largest logits, in descending order, and their weights.

    For k ≥ 2 the weights are a softmax over these k logits (Mixtral); for k = 1 the weight is the expert's
    probability among all E (Switch Transformers, arXiv 2101.03961, equation 2), which the router learns from.
    Returns (weights_TK in the dtype of logits_TE, idx_TK int64). Raises ValueError for k outside 1..E.
    """
    if k == 1:
        weight_T, idx_T = switch_gate(logits_TE)
        return weight_T[:, None], idx_T[:, None]
    gates_TE = sparse_gates(logits_TE, k)
    _, idx_TK = _top_k(logits_TE, k)
    return gates_TE.gather(-1, idx_TK), idx_TK


def route_with_loss(x_TD: Tensor, router_DE: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Top-k routing of x·W and its load-balancing loss (Switch Transformers, equations 4 to 6).

    Product and softmax in float32; the weights are the k largest probabilities, renormalised, in the dtype of x_TD.
    The loss is E·Σ f_e·P_e of the same probabilities, 0-dim, float32; uniform routing gives 1.
    Returns (weights_TK, idx_TK, lb_loss). Raises ValueError for k outside 1..E.
    """
    probs_TE = router_probs(x_TD, router_DE)
    weights_TK, idx_TK = top_k_gate(probs_TE, k)
    return weights_TK.to(x_TD.dtype), idx_TK, load_balancing_loss(probs_TE, idx_TK)


def biased_gate(scores_TE: Tensor, bias_E: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k experts of the highest scores + bias; their weights are the scores alone, renormalised.

    Returns (weights_TK in the dtype of scores_TE, idx_TK int64). No gradient reaches the bias. Raises ValueError for
    k outside 1..E. Source: DeepSeek-V3, arXiv 2412.19437, equations 12 to 16.
    """
    return biased_top_k(scores_TE, bias_E, k)


class BalancedGate(nn.Module):
    """Sigmoid routing with a balancing bias (DeepSeek-V3, arXiv 2412.19437, equations 12 to 16).

    Parameter router (D, E); buffers bias_E, and counts_E: the assignments since the last `update_bias` of calls that
    were trained on. A call counts at the first backward pass through its weights, and only then. So evaluation
    counts nothing, and a call that a checkpoint repeats counts once.
    """

    def __init__(self, d_model: int, num_experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.router = nn.Parameter(torch.randn(d_model, num_experts) / d_model**0.5)
        self.register_buffer("bias_E", torch.zeros(num_experts))
        self.register_buffer("counts_E", torch.zeros(num_experts, dtype=torch.long))
        self.bias_E: Tensor
        self.counts_E: Tensor

    def forward(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """(weights_TK in the dtype of x_TD, idx_TK): selected on scores + bias, weighted by the scores alone."""
        scores_TE = router_logits(x_TD, self.router).sigmoid()
        weights_TK, idx_TK = biased_top_k(scores_TE, self.bias_E.to(scores_TE.dtype), self.top_k)
        if weights_TK.requires_grad:
            weights_TK.register_hook(self._count_once(expert_counts(idx_TK, len(self.counts_E))))
        return weights_TK.to(x_TD.dtype), idx_TK

    def _count_once(self, new_E: Tensor) -> Callable[[Tensor], None]:
        waiting = [new_E]

        def count(_: Tensor) -> None:
            while waiting:
                self.counts_E += waiting.pop()

        return count

    @torch.no_grad()
    def update_bias(self, rate: float) -> None:
        """Move the bias by rate·sign(mean − counts), and start counting anew (arXiv 2408.15664, algorithm 1)."""
        self.bias_E.copy_(update_bias(self.bias_E, self.counts_E, rate))
        self.counts_E.zero_()


def route_in_bf16(x_TD: Tensor, router_DE: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Top-k routing of bfloat16 tokens by a bfloat16 router: everything up to the weights in float32.

    Returns (weights_TK in the dtype of x_TD, idx_TK int64). Raises ValueError for k outside 1..E.
    Source: Switch Transformers, arXiv 2101.03961, section 2.4.
    """
    weights_TK, idx_TK = top_k_gate(router_probs(x_TD, router_DE), k)
    return weights_TK.to(x_TD.dtype), idx_TK


def context_router(x_BSD: Tensor, router_DE: Tensor) -> Tensor:
    """probs_BSE: each token is routed by itself plus the mean of its own prefix, itself included.

    No position sees a later one, and no sequence another. Computed and returned in float32.
    """
    length = check_axes(x_BSD=x_BSD, router_DE=router_DE)["S"]
    x_BSD = x_BSD.float()
    seen_S1 = torch.arange(1, length + 1, device=x_BSD.device)[:, None]
    prefix_BSD = x_BSD.cumsum(dim=1) / seen_S1
    return ((x_BSD + prefix_BSD) @ router_DE.float()).softmax(dim=-1)


def decode_experts(
    x_TD: Tensor, weights_TK: Tensor, idx_TK: Tensor, w_gate_EDF: Tensor, w_up_EDF: Tensor, w_down_EFD: Tensor
) -> Tensor:
    """`moe_loop` in work that grows with the experts that some token chose, not with E.

    Output and gradients are the same; experts without tokens get gradients of zeros. Reads idx_TK on the host.
    Returns y_TD in the dtype of x_TD. Raises ValueError for an expert outside 0..E−1.
    """
    sizes = check_axes(
        x_TD=x_TD, weights_TK=weights_TK, idx_TK=idx_TK,
        w_gate_EDF=w_gate_EDF, w_up_EDF=w_up_EDF, w_down_EFD=w_down_EFD,
    )  # fmt: skip
    flat_N, order_N = idx_TK.flatten().sort(stable=True)
    hit_H, counts_H = flat_N.unique_consecutive(return_counts=True)
    if len(hit_H) and not 0 <= int(hit_H[0]) <= int(hit_H[-1]) < sizes["E"]:
        raise ValueError(f"idx_TK names experts {hit_H.tolist()}, the experts are 0..{sizes['E'] - 1}")
    token_N = order_N // idx_TK.shape[1]
    groups = x_TD[token_N].split(counts_H.tolist())
    experts = zip(w_gate_EDF[hit_H], w_up_EDF[hit_H], w_down_EFD[hit_H], strict=True)
    out = [swiglu_ffn(rows, *expert) for rows, expert in zip(groups, experts, strict=True)]
    y_ND = torch.cat(out) * weights_TK.flatten()[order_N, None] if out else x_TD
    return torch.zeros_like(x_TD).index_add(0, token_N, y_ND.to(x_TD.dtype))
