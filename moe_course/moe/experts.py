"""The experts: the SwiGLU feed-forward network, and the readable reference of a mixture of them.

Weights are stored input first, `w_gate_DF`, `w_up_DF`, `w_down_FD`, with a leading E for a set of experts.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from moe_course.shapes import check_axes


def swiglu_ffn(x_TD: Tensor, w_gate_DF: Tensor, w_up_DF: Tensor, w_down_FD: Tensor) -> Tensor:
    """One expert, or one dense feed-forward layer: (silu(x·W_gate) ⊙ x·W_up)·W_down, without biases.

    Computed in the wider of the dtypes of tokens and weights. Returns y_TD in the dtype of x_TD.
    Source: Shazeer 2020, "GLU Variants Improve Transformer", arXiv 2002.05202, equation 6.
    """
    check_axes(x_TD=x_TD, w_gate_DF=w_gate_DF, w_up_DF=w_up_DF, w_down_FD=w_down_FD)
    wide = torch.promote_types(x_TD.dtype, w_gate_DF.dtype)
    x_wide_TD = x_TD.to(wide)
    hidden_TF = F.silu(x_wide_TD @ w_gate_DF.to(wide)) * (x_wide_TD @ w_up_DF.to(wide))
    return (hidden_TF @ w_down_FD.to(wide)).to(x_TD.dtype)


def moe_loop(
    x_TD: Tensor,
    weights_TK: Tensor,
    idx_TK: Tensor,
    w_gate_EDF: Tensor,
    w_up_EDF: Tensor,
    w_down_EFD: Tensor,
) -> Tensor:
    """Mixture of experts, one expert after another: y_t = Σ_k weights[t, k] · expert[idx[t, k]](x_t).

    The readable reference, equal in output and gradients to every faster dispatch. An expert that no token
    chose runs on zero rows and gets a gradient of zeros. Reads idx_TK on the host. Returns y_TD in the dtype
    of x_TD. Raises ValueError for an expert index outside 0..E-1.
    """
    sizes = check_axes(
        x_TD=x_TD, weights_TK=weights_TK, idx_TK=idx_TK,
        w_gate_EDF=w_gate_EDF, w_up_EDF=w_up_EDF, w_down_EFD=w_down_EFD,
    )  # fmt: skip
    outside = idx_TK[(idx_TK < 0) | (idx_TK >= sizes["E"])]
    if outside.numel():
        raise ValueError(f"idx_TK names expert {outside[0].item()}, the experts are 0..{sizes['E'] - 1}")

    y_TD = torch.zeros_like(x_TD)
    # Unbind once: slicing w[e] in the loop makes autograd allocate a full-size gradient for every expert.
    experts = zip(w_gate_EDF.unbind(), w_up_EDF.unbind(), w_down_EFD.unbind(), strict=True)
    for e, (w_gate_DF, w_up_DF, w_down_FD) in enumerate(experts):
        token, slot = (idx_TK == e).nonzero(as_tuple=True)  # who chose expert e, and as which choice
        out = swiglu_ffn(x_TD[token], w_gate_DF, w_up_DF, w_down_FD)
        y_TD.index_add_(0, token, (weights_TK[token, slot, None] * out).to(y_TD.dtype))
    return y_TD


def init_experts(
    num_experts: int,
    d_model: int,
    d_ff: int,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor, Tensor]:
    """Fresh weights (w_gate_EDF, w_up_EDF, w_down_EFD), normal with standard deviation 1/√fan-in.

    Each matrix then keeps the scale of what passes through it. Raises ValueError for sizes below 1.
    """
    if min(num_experts, d_model, d_ff) < 1:
        raise ValueError(
            f"num_experts, d_model and d_ff must be positive, got {(num_experts, d_model, d_ff)}"
        )

    def normal(fan_in: int, fan_out: int) -> Tensor:
        w = torch.randn(num_experts, fan_in, fan_out, generator=generator, dtype=dtype, device=device)
        return w / math.sqrt(fan_in)

    return normal(d_model, d_ff), normal(d_model, d_ff), normal(d_ff, d_model)
