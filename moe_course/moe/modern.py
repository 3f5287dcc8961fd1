"""What modern layers add to top-k routing: shared and fine-grained experts, groups, and loading published weights.

Every function reads shapes and never values, and edits nothing in place, so it runs without a transfer from the
device.
"""

import torch
from torch import Tensor

from moe_course.moe.experts import swiglu_ffn
from moe_course.shapes import check_axes


def shared_expert_moe(
    x_TD: Tensor, routed_TD: Tensor, w_gate_DF: Tensor, w_up_DF: Tensor, w_down_FD: Tensor
) -> Tensor:
    """A shared expert beside the routed ones: every token passes through it, and its output is added without a gate.

    routed_TD: what the routed experts return for x_TD. Returns y_TD in the dtype of x_TD.
    Source: DeepSeekMoE, arXiv 2401.06066, equation 9. (Qwen2-MoE multiplies with a sigmoid gate as well.)
    """
    check_axes(x_TD=x_TD, routed_TD=routed_TD)
    return (routed_TD + swiglu_ffn(x_TD, w_gate_DF, w_up_DF, w_down_FD)).to(x_TD.dtype)


def split_experts(d_ff: int, num_experts: int, top_k: int, granularity: int) -> tuple[int, int, int]:
    """(d_ff, num_experts, top_k) after cutting every expert into `granularity` narrower ones.

    The experts' parameters and FLOPs stay as they were, in total and per token; the router grows by the same
    factor. Raises ValueError for sizes that are not positive, top_k above num_experts, or a width that does not
    divide. Source: DeepSeekMoE, arXiv 2401.06066, section 3.1.
    """
    sizes = {"d_ff": d_ff, "num_experts": num_experts, "top_k": top_k, "granularity": granularity}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be positive, got {size}")
    if top_k > num_experts:
        raise ValueError(f"top_k = {top_k} experts cannot be chosen out of {num_experts}")
    if d_ff % granularity:
        raise ValueError(f"d_ff = {d_ff} does not divide into {granularity} experts")
    return d_ff // granularity, num_experts * granularity, top_k * granularity


def group_limited_top_k(
    scores_TE: Tensor, bias_E: Tensor, num_groups: int, top_groups: int, k: int, group_sum: int = 2
) -> Tensor:
    """Each token's k experts by biased score, all from its `top_groups` best groups of neighbouring experts.

    The score of a group is the sum of its `group_sum` highest biased scores (of all, if it has fewer experts). A
    group lies on one node, so a token is sent to few nodes. Returns idx_TK, int64, in descending biased score; of
    equal scores the lower index comes first. Raises ValueError for groups that do not divide the experts,
    top_groups outside 1..num_groups, or k outside 1..experts of the chosen groups. Source: DeepSeek-V3, arXiv
    2412.19437, section 2.1.2, and its inference/model.py.
    """
    num_experts = check_axes(scores_TE=scores_TE, bias_E=bias_E)["E"]
    if num_groups < 1 or num_experts % num_groups:
        raise ValueError(f"{num_experts} experts do not divide into {num_groups} groups")
    if not 1 <= top_groups <= num_groups:
        raise ValueError(f"top_groups must be in 1..{num_groups}, the number of groups, got {top_groups}")
    size = num_experts // num_groups
    if group_sum < 1:
        raise ValueError(f"group_sum must be at least 1, got {group_sum}")
    if not 1 <= k <= top_groups * size:
        raise ValueError(f"k must be in 1..{top_groups * size}, the experts of {top_groups} groups, got {k}")

    biased_TE = scores_TE + bias_E
    groups = biased_TE.unflatten(-1, (num_groups, size))  # (T, groups, experts of a group)
    group_scores = groups.topk(min(group_sum, size), dim=-1).values.sum(dim=-1)
    best = group_scores.argsort(dim=-1, descending=True, stable=True)[:, :top_groups]
    closed = torch.ones_like(group_scores, dtype=torch.bool).scatter(-1, best, False)
    # −∞ and not 0: a bias can push the open experts' scores below 0.
    masked_TE = groups.masked_fill(closed[:, :, None], -torch.inf).flatten(1)
    return masked_TE.argsort(dim=-1, descending=True, stable=True)[:, :k].contiguous()


def from_huggingface(gate_up_proj_E2FD: Tensor, down_proj_EDF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(w_gate_EDF, w_up_EDF, w_down_EFD) from the experts of `transformers`, which stores them output first.

    gate_up_proj: (E, 2F, D), the gate's F rows before the up projection's. down_proj: (E, D, F). The results are
    contiguous copies. Raises ValueError for shapes that do not belong together.
    Source: transformers 5, models/mixtral/modeling_mixtral.py, MixtralExperts; OLMoE, Qwen3-MoE and DeepSeek-V3
    store theirs in the same way.
    """
    d_ff = check_axes(down_proj_EDF=down_proj_EDF)["F"]
    experts, d_model, _ = down_proj_EDF.shape
    if gate_up_proj_E2FD.shape != (experts, 2 * d_ff, d_model):
        raise ValueError(
            f"gate_up_proj must have shape (E, 2F, D) = {(experts, 2 * d_ff, d_model)} to go with down_proj "
            f"{tuple(down_proj_EDF.shape)}, got {tuple(gate_up_proj_E2FD.shape)}"
        )
    gate_EFD, up_EFD = gate_up_proj_E2FD.chunk(2, dim=1)
    return gate_EFD.mT.contiguous(), up_EFD.mT.contiguous(), down_proj_EDF.mT.contiguous()


def upcycle(
    w_gate_DF: Tensor, w_up_DF: Tensor, w_down_FD: Tensor, num_experts: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(w_gate_EDF, w_up_EDF, w_down_EFD): every expert a copy of one dense layer, in storage of its own.

    With gates that sum to 1 the new layer equals the dense one, to rounding, whatever the router says.
    Raises ValueError for num_experts below 1. Source: Komatsuzaki et al. 2022, "Sparse Upcycling", arXiv 2212.05055.
    """
    check_axes(w_gate_DF=w_gate_DF, w_up_DF=w_up_DF, w_down_FD=w_down_FD)
    if num_experts < 1:
        raise ValueError(f"num_experts must be positive, got {num_experts}")
    # `repeat` always copies; `expand` would let all experts share, and train, one matrix.
    gate_EDF, up_EDF, down_EFD = (w.repeat(num_experts, 1, 1) for w in (w_gate_DF, w_up_DF, w_down_FD))
    return gate_EDF, up_EDF, down_EFD
