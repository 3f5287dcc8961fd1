"""The simplest dispatch, one expert after another. Every faster dispatch must give the same results."""

import torch
from torch import Tensor

from moe_course.moe.experts import swiglu_ffn
from moe_course.shapes import check_axes


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
    # Unbind once: slicing w[e] in the loop would make autograd allocate a full-size gradient for every expert.
    experts = zip(w_gate_EDF.unbind(), w_up_EDF.unbind(), w_down_EFD.unbind(), strict=True)
    for e, (w_gate_DF, w_up_DF, w_down_FD) in enumerate(experts):
        token, slot = (idx_TK == e).nonzero(as_tuple=True)  # who chose expert e, and as which choice
        out = swiglu_ffn(x_TD[token], w_gate_DF, w_up_DF, w_down_FD)
        y_TD.index_add_(0, token, (weights_TK[token, slot, None] * out).to(y_TD.dtype))
    return y_TD
