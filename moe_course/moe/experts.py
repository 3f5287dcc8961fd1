"""The experts: SwiGLU feed-forward networks.

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


def swiglu_experts(x_ECD: Tensor, w_gate_EDF: Tensor, w_up_EDF: Tensor, w_down_EFD: Tensor) -> Tensor:
    """All experts at once, each on C rows of its own: `swiglu_ffn` as batched matrix products.

    Computed in the wider of the dtypes of tokens and weights. Returns y_ECD in the dtype of x_ECD.
    """
    check_axes(x_ECD=x_ECD, w_gate_EDF=w_gate_EDF, w_up_EDF=w_up_EDF, w_down_EFD=w_down_EFD)
    wide = torch.promote_types(x_ECD.dtype, w_gate_EDF.dtype)
    x_wide_ECD = x_ECD.to(wide)
    hidden_ECF = F.silu(x_wide_ECD @ w_gate_EDF.to(wide)) * (x_wide_ECD @ w_up_EDF.to(wide))
    return (hidden_ECF @ w_down_EFD.to(wide)).to(x_ECD.dtype)


def init_experts(
    num_experts: int,
    d_model: int,
    d_ff: int,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Fresh weights (w_gate_EDF, w_up_EDF, w_down_EFD), normal with standard deviation 1/√fan-in.

    Each product then has the scale of its input. dtype and device are torch's defaults unless given.
    Raises ValueError for sizes below 1.
    """
    if min(num_experts, d_model, d_ff) < 1:
        raise ValueError(
            f"num_experts, d_model and d_ff must be positive, got {(num_experts, d_model, d_ff)}"
        )

    def normal(fan_in: int, fan_out: int) -> Tensor:
        w = torch.randn(num_experts, fan_in, fan_out, generator=generator, dtype=dtype, device=device)
        return w / math.sqrt(fan_in)

    return normal(d_model, d_ff), normal(d_model, d_ff), normal(d_ff, d_model)
