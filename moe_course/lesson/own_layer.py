"""The layer of `moe_course.moe.layer`, computed by the exercises of notebooks 01 to 06."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from moe_course.config import MoEConfig
from moe_course.moe.layer import MoELayer, MoEStats


class Parts(Protocol):
    """The functions that the layer uses: every exercise as an attribute of its name, and the whole dispatch."""

    def moe(
        self,
        x_TD: Tensor,
        weights_TK: Tensor,
        idx_TK: Tensor,
        w_gate_EDF: Tensor,
        w_up_EDF: Tensor,
        w_down_EFD: Tensor,
    ) -> Tensor:
        """y_TD, from the tokens, their weights and experts, and the experts' matrices."""

    def __getattr__(self, name: str) -> Any:
        """The function called `name`. Raises AttributeError if there is none."""


class OwnLayer(MoELayer):
    """`MoELayer(config)` in which every step is computed by the function in `parts` that was written for it."""

    def __init__(self, config: MoEConfig, parts: Parts):
        super().__init__(config)
        if config.num_groups > 1 and config.group_sum != 2:
            raise ValueError(
                f"group_limited_top_k adds two scores, group_sum = {config.group_sum} needs MoELayer"
            )
        self.parts = parts

    def forward(self, x_BSD: Tensor, mask_BS: Tensor | None = None) -> tuple[Tensor, MoEStats]:
        """As `MoELayer.forward`."""
        m, c = self.parts, self.config
        x_TD = x_BSD.flatten(0, 1)
        real_T = x_TD.new_ones(len(x_TD), dtype=torch.bool) if mask_BS is None else mask_BS.flatten()

        logits_TE, scores_TE = self.score(x_TD)
        weights_TK, idx_TK = self.choose(scores_TE)
        if c.capacity_factor is None:
            y_TD = m.moe(x_TD, weights_TK, idx_TK, self.w_gate, self.w_up, self.w_down)
            drop_rate = torch.zeros((), device=x_TD.device)
        else:
            y_TD, drop_rate = self.through_buffers(x_TD, scores_TE, weights_TK, idx_TK)
        if c.num_shared:
            y_TD = m.shared_expert_moe(x_TD, y_TD, self.shared_gate, self.shared_up, self.shared_down)

        probs_TE = scores_TE / scores_TE.sum(dim=-1, keepdim=True)
        stats = MoEStats(
            lb_loss=m.load_balancing_loss(probs_TE, idx_TK, real_T),
            z_loss=m.router_z_loss(logits_TE[real_T]),
            drop_rate=drop_rate,
            counts_E=m.plan_dispatch(idx_TK[real_T], c.num_experts)[1],
            load_E=m.expert_load(idx_TK[real_T], c.num_experts),
            probs_TE=probs_TE,
            weights_TK=weights_TK,
            idx_TK=idx_TK,
        )
        return y_TD.to(x_BSD.dtype).view_as(x_BSD), stats

    def score(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """logits_TE and scores_TE, both float32."""
        if self.config.noise and self.training:
            noise_TE = torch.randn(len(x_TD), self.config.num_experts, device=x_TD.device)
            logits_TE = self.parts.noisy_logits(x_TD.float(), self.router, self.router_noise, noise_TE, True)
        else:
            logits_TE = x_TD.float() @ self.router.float()
            if self.config.router == "softmax":
                return logits_TE, self.parts.router_probs(x_TD, self.router)
        return logits_TE, logits_TE.sigmoid() if self.config.router == "sigmoid" else logits_TE.softmax(
            dim=-1
        )

    def choose(self, scores_TE: Tensor) -> tuple[Tensor, Tensor]:
        """weights_TK and idx_TK, in descending weight."""
        m, c = self.parts, self.config
        if not c.bias_rate and c.num_groups == 1:
            weights_TK, idx_TK = m.top_k_gate(scores_TE, c.top_k, c.renormalize)
            return c.scale * weights_TK, idx_TK
        bias_E = self.balance_bias if c.bias_rate else scores_TE.new_zeros(c.num_experts)
        if c.num_groups > 1:
            idx_TK = m.group_limited_top_k(scores_TE, bias_E, c.num_groups, c.top_groups, c.top_k)
        else:
            _, idx_TK = m.biased_top_k(scores_TE, bias_E, c.top_k)
        weights_TK, order_TK = scores_TE.gather(1, idx_TK.long()).sort(dim=1, descending=True)
        if c.renormalize:
            weights_TK = weights_TK / weights_TK.sum(dim=1, keepdim=True)
        return c.scale * weights_TK, idx_TK.gather(1, order_TK)

    def through_buffers(
        self, x_TD: Tensor, scores_TE: Tensor, weights_TK: Tensor, idx_TK: Tensor
    ) -> tuple[Tensor, Tensor]:
        """y_TD with a limited number of slots in each expert, and the share of assignments that got no slot."""
        m, c = self.parts, self.config
        C = m.expert_capacity(len(x_TD), c.num_experts, c.top_k, c.capacity_factor)
        if c.fill == "priority":
            pos_TK = m.batch_priority_positions(idx_TK, scores_TE.gather(-1, idx_TK), c.num_experts)
        elif c.fill == "choice":
            pos_TK = m.positions_in_expert(idx_TK, c.num_experts)
        else:  # a single column, so that all assignments queue token by token
            pos_TK = m.positions_in_expert(idx_TK.reshape(-1, 1), c.num_experts).reshape(idx_TK.shape)
        x_ECD = m.fill_buffers(x_TD, idx_TK, pos_TK, c.num_experts, C)
        experts = zip(x_ECD, self.w_gate, self.w_up, self.w_down, strict=True)
        y_ECD = torch.stack([m.swiglu_ffn(*expert) for expert in experts])
        return m.read_buffers(y_ECD, idx_TK, pos_TK, weights_TK), (pos_TK >= C).float().mean()

    @torch.no_grad()
    def update_bias(self, counts_E: Tensor) -> None:
        """As `MoELayer.update_bias`."""
        if not self.config.bias_rate:
            raise ValueError("this layer has no balancing bias: its bias_rate is 0")
        self.balance_bias.copy_(self.parts.update_bias(self.balance_bias, counts_E, self.config.bias_rate))
