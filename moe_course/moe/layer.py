"""The mixture-of-experts layer: router, dispatch and experts, put together.

    config = MoEConfig(d_model=256, d_ff=352, num_experts=8, top_k=2)
    layer = MoELayer(config)
    y_BSD, stats = layer(x_BSD)

Read `MoELayer.forward` first; the rest of the package is its parts. Nothing in a forward pass reads a value from the
device (except the dispatch "loop"), edits its input or changes the layer.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moe_course.config import Fill, MoEConfig
from moe_course.moe.balance import load_balancing_loss, router_z_loss, update_bias
from moe_course.moe.capacity import (
    batch_priority_positions,
    expert_capacity,
    fill_buffers,
    positions_in_expert,
    read_buffers,
)
from moe_course.moe.counts import expert_counts
from moe_course.moe.dispatchers import DISPATCHES
from moe_course.moe.experts import init_experts, swiglu_experts
from moe_course.moe.modern import group_limited_top_k, shared_expert_moe
from moe_course.moe.router import noisy_logits, router_logits, softmax_of_experts, top_k_gate
from moe_course.shapes import check_axes

__all__ = ["MoEConfig", "MoELayer", "MoEStats"]


@dataclass(frozen=True, eq=False)
class MoEStats:
    """What one forward pass of a layer did. Losses and rates are 0-dim tensors; padding counts only in drop_rate.

    lb_loss: load-balancing loss, 1 for uniform routing, gradient through the scores. z_loss: router z-loss.
    drop_rate: share of the assignments that found their expert full. counts_E: assignments per expert before any
    is dropped, int64. load_E: the same as fractions. probs_TE: scores, normalised to sum 1. weights_TK, idx_TK:
    the chosen experts of each token in descending weight.
    """

    lb_loss: Tensor
    z_loss: Tensor
    drop_rate: Tensor
    counts_E: Tensor
    load_E: Tensor
    probs_TE: Tensor
    weights_TK: Tensor
    idx_TK: Tensor


torch.export.register_dataclass(MoEStats)  # torch.export returns only types that it can take apart


class MoELayer(nn.Module):
    """A mixture of experts in the place of a feed-forward layer. Parameters and buffers (some configs need fewer):

    router (D, E), w_gate (E, D, F), w_up (E, D, F), w_down (E, F, D); the shared experts as one expert of width
    n = num_shared · d_ff_shared: shared_gate (D, n), shared_up (D, n), shared_down (n, D); router_noise (D, E);
    and the buffer balance_bias (E), which no gradient reaches: `update_bias` moves it.
    """

    balance_bias: Tensor

    def __init__(self, config: MoEConfig, generator: torch.Generator | None = None):
        super().__init__()
        self.config = c = config
        if c.renormalize and c.top_k == 1:
            warnings.warn(
                f"renormalize=True with top_k=1 makes every weight {c.scale:g}: the router gets no gradient from the "
                "task. Give renormalize=False.",
                stacklevel=2,
            )
        # Small weights at the start, so that all experts are about equally likely at first.
        self.router = nn.Parameter(
            0.1 * c.d_model**-0.5 * torch.randn(c.d_model, c.num_experts, generator=generator)
        )
        experts = init_experts(c.num_experts, c.d_model, c.d_ff, generator)
        self.w_gate, self.w_up, self.w_down = (nn.Parameter(w) for w in experts)
        if c.num_shared:
            shared = init_experts(1, c.d_model, c.num_shared * c.d_ff_shared, generator)
            self.shared_gate, self.shared_up, self.shared_down = (nn.Parameter(w[0]) for w in shared)
        if c.noise:
            self.router_noise = nn.Parameter(torch.zeros(c.d_model, c.num_experts))  # Shazeer, appendix A
        if c.bias_rate:
            self.register_buffer("balance_bias", torch.zeros(c.num_experts, dtype=torch.float32))

    def forward(self, x_BSD: Tensor, mask_BS: Tensor | None = None) -> tuple[Tensor, MoEStats]:
        """Returns y_BSD in the dtype of x_BSD, and the stats of this pass.

        mask_BS: False (or 0) for padding. Padding is routed like any token, but counts neither in the losses nor in
        the load, and it may hold nan. Without tokens all losses are 0. Raises ValueError for a mask or an input of
        the wrong type or shape.
        """
        c = self.config
        B, S, D = self._sizes(x_BSD, mask_BS)
        x_TD = x_BSD.reshape(B * S, D)
        mask_T = None if mask_BS is None else mask_BS.reshape(B * S).bool()
        if mask_T is not None:  # even times a gradient of 0, nan would be nan in the gradients of all weights
            x_TD = x_TD.masked_fill(~mask_T[:, None] & ~x_TD.isfinite(), 0)
        elif not B * S:  # the mean over no tokens would be nan, the masked one is 0
            mask_T = torch.ones(0, dtype=torch.bool, device=x_TD.device)

        logits_TE = self._logits(x_TD)
        # The logarithms of the scores, up to a constant for each token: they are finite where scores underflow.
        log_scores_TE = F.logsigmoid(logits_TE) if c.router == "sigmoid" else logits_TE
        probs_TE = softmax_of_experts(log_scores_TE)
        scores_TE = logits_TE.sigmoid() if c.router == "sigmoid" else probs_TE
        weights_TK, idx_TK = self._choose(scores_TE, log_scores_TE)

        if c.capacity_factor is None:
            y_TD = self._dropless(x_TD, weights_TK, idx_TK)
            drop_rate = torch.zeros((), device=x_TD.device)
        else:
            tokens = max(1, B * S)
            capacity = expert_capacity(tokens, c.num_experts, c.top_k, c.capacity_factor)
            capacity = min(capacity, tokens)  # a token never chooses an expert twice
            y_TD, drop_rate = self._through_buffers(x_TD, scores_TE, weights_TK, idx_TK, capacity)
        if c.num_shared:
            y_TD = shared_expert_moe(x_TD, y_TD, self.shared_gate, self.shared_up, self.shared_down)

        counts_E = expert_counts(idx_TK, c.num_experts, mask_T)
        stats = MoEStats(
            lb_loss=load_balancing_loss(probs_TE, idx_TK, mask_T),
            z_loss=router_z_loss(logits_TE) if mask_T is None else _masked_z_loss(logits_TE, mask_T),
            drop_rate=drop_rate,
            counts_E=counts_E,
            load_E=counts_E / counts_E.sum().clamp(min=1),
            probs_TE=probs_TE,
            weights_TK=weights_TK,
            idx_TK=idx_TK,
        )
        return y_TD.view(B, S, D), stats

    @torch.no_grad()
    def update_bias(self, counts_E: Tensor) -> None:
        """Move the balancing bias one step against the load. Call it once for each optimizer step, in training only.

        counts_E: the assignments of the whole batch; sum `stats.counts_E` over micro-batches and processes first.
        Raises ValueError if the layer has no bias.
        """
        if not self.config.bias_rate:
            raise ValueError("this layer has no balancing bias: its bias_rate is 0")
        check_axes(bias_E=self.balance_bias, counts_E=counts_E)
        self.balance_bias.copy_(update_bias(self.balance_bias, counts_E, self.config.bias_rate))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MoELayer:
        """Keep the bias in float32 when the layer is cast: in bfloat16 its small steps would be rounded away."""
        before = self._buffers.get("balance_bias")
        super()._apply(fn, recurse)
        if before is not None and self.balance_bias.dtype != torch.float32:
            self.balance_bias = before.to(self.balance_bias.device)  # not cast back: the cast has rounded it
        return self

    def _logits(self, x_TD: Tensor) -> Tensor:
        """The router's logits, in float32 whatever the dtype of the input (Switch, section 2.4)."""
        if not (self.config.noise and self.training):
            return router_logits(x_TD, self.router)
        noise_TE = torch.randn(len(x_TD), self.config.num_experts, device=x_TD.device)
        return noisy_logits(x_TD.float(), self.router, self.router_noise, noise_TE, training=True)

    def _choose(self, scores_TE: Tensor, log_scores_TE: Tensor) -> tuple[Tensor, Tensor]:
        """The K experts of each token and their weights, weights_TK and idx_TK, in descending weight."""
        c = self.config
        if c.bias_rate or c.num_groups > 1:
            # The bias decides only which experts are chosen; weights come from the scores. DeepSeek-V3, equation 16.
            bias_E = self.balance_bias if c.bias_rate else scores_TE.new_zeros(c.num_experts)
            groups = c.num_groups, c.top_groups, c.top_k, c.group_sum
            idx_TK = group_limited_top_k(scores_TE.detach(), bias_E, *groups)
        elif c.router == "softmax":
            weights_TK, idx_TK = top_k_gate(scores_TE, c.top_k, c.renormalize)
            return c.scale * weights_TK, idx_TK
        else:
            _, idx_TK = top_k_gate(log_scores_TE.detach(), c.top_k, renormalize=False)
        log_TK, order_TK = log_scores_TE.gather(-1, idx_TK).sort(dim=-1, descending=True, stable=True)
        idx_TK = idx_TK.gather(-1, order_TK)
        # exp(log_TK) over its sum, which is never 0
        weights_TK = log_TK.softmax(dim=-1) if c.renormalize else scores_TE.gather(-1, idx_TK)
        return c.scale * weights_TK, idx_TK

    def _through_buffers(
        self, x_TD: Tensor, scores_TE: Tensor, weights_TK: Tensor, idx_TK: Tensor, capacity: int
    ) -> tuple[Tensor, Tensor]:
        """Each expert computes C slots; an assignment without a slot adds nothing. Returns y_TD and the drop rate."""
        num_experts = self.config.num_experts
        # The scores themselves: renormalised weights of different tokens cannot be compared, and for K = 1 all are 1.
        chosen_TK = scores_TE.gather(-1, idx_TK)
        pos_TK = queue_positions(idx_TK, chosen_TK, num_experts, self.config.fill)
        x_ECD = fill_buffers(x_TD, idx_TK, pos_TK, num_experts, capacity)
        y_ECD = self._on_buffers(x_ECD)
        dropped = (pos_TK >= capacity).float().sum() / max(1, pos_TK.numel())
        return read_buffers(y_ECD, idx_TK, pos_TK, weights_TK), dropped

    # What `moe_course.systems.expert_parallel` computes on several processes:

    def _dropless(self, x_TD: Tensor, weights_TK: Tensor, idx_TK: Tensor) -> Tensor:
        """The weighted sum of the chosen experts' outputs, for every assignment."""
        moe = DISPATCHES[self.config.dispatch]
        return moe(x_TD, weights_TK, idx_TK, self.w_gate, self.w_up, self.w_down)

    def _on_buffers(self, x_ECD: Tensor) -> Tensor:
        """Each expert on the C slots of its buffer."""
        return swiglu_experts(x_ECD, self.w_gate, self.w_up, self.w_down)

    def _sizes(self, x_BSD: Tensor, mask_BS: Tensor | None) -> tuple[int, int, int]:
        """B, S and D of the input, which must fit the layer."""
        if not x_BSD.dtype.is_floating_point:
            raise ValueError(f"x_BSD must hold floating-point numbers, got {x_BSD.dtype}")
        if mask_BS is not None and (mask_BS.is_floating_point() or mask_BS.is_complex()):
            raise ValueError(
                f"mask_BS must be True for tokens and False for padding (or 1 and 0), got {mask_BS.dtype}; "
                "an additive mask must be compared with 0 first"
            )
        masks = {} if mask_BS is None else {"mask_BS": mask_BS}
        sizes = check_axes(router_DE=self.router, x_BSD=x_BSD, **masks)
        return sizes["B"], sizes["S"], sizes["D"]


def queue_positions(idx_TK: Tensor, chosen_TK: Tensor, num_experts: int, fill: Fill) -> Tensor:
    """The place of each assignment in its expert's queue, pos_TK, in the order that `fill` names.

    chosen_TK: the scores of the chosen experts, before any renormalisation; only "priority" uses them.
    """
    if fill == "priority":
        return batch_priority_positions(idx_TK, chosen_TK, num_experts)
    if fill == "choice":
        return positions_in_expert(idx_TK, num_experts)
    one_by_one = idx_TK.reshape(-1, 1)  # as if every assignment were the only choice of a token of its own
    return positions_in_expert(one_by_one, num_experts).reshape(idx_TK.shape)


def _masked_z_loss(logits_TE: Tensor, mask_T: Tensor) -> Tensor:
    """`router_z_loss` over the tokens whose mask is True, without asking how many there are."""
    z_T = logits_TE.logsumexp(dim=-1).square()
    return torch.where(mask_T, z_T, 0).sum() / mask_T.sum().clamp(min=1)
