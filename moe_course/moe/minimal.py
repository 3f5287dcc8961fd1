"""A whole mixture-of-experts layer, as short as possible; `moe_course.moe.layer` has the configurable one."""

import torch
from torch import Tensor, nn

from moe_course.moe.dispatch import combine, gather_tokens, grouped_ffn, plan_dispatch
from moe_course.moe.experts import init_experts
from moe_course.moe.router import router_probs, top_k_gate
from moe_course.shapes import check_axes


class MoELayer(nn.Module):
    """Top-k routing over SwiGLU experts, dropless.

    Parameters: router (D, E), w_gate and w_up (E, D, F), w_down (E, F, D), drawn normal with standard deviation
    1/√fan-in. With renormalize the K gate weights of a token sum to 1.
    """

    def __init__(self, d_model: int, d_ff: int, num_experts: int, top_k: int, renormalize: bool = True):
        super().__init__()
        self.top_k, self.renormalize = top_k, renormalize
        self.router = nn.Parameter(torch.randn(d_model, num_experts) / d_model**0.5)
        experts = init_experts(num_experts, d_model, d_ff, device=self.router.device)
        self.w_gate, self.w_up, self.w_down = map(nn.Parameter, experts)

    def forward(self, x_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (y_BSD, idx_TK): the output, and the experts of each token, tokens in order of the batch.

        The router computes in float32. y_BSD has the dtype of x_BSD. Raises ValueError for a top_k outside 1..E.
        """
        check_axes(x_BSD=x_BSD)
        x_TD = x_BSD.flatten(0, 1)
        weights_TK, idx_TK = top_k_gate(router_probs(x_TD, self.router), self.top_k, self.renormalize)
        order_N, counts_E = plan_dispatch(idx_TK, len(self.w_gate))
        x_ND = gather_tokens(x_TD, order_N, self.top_k)
        y_ND = grouped_ffn(x_ND, counts_E, self.w_gate, self.w_up, self.w_down)
        return combine(y_ND, order_N, weights_TK.to(x_TD.dtype)).view_as(x_BSD), idx_TK
