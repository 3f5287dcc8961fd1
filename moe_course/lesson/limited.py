"""The tiny MoE with a capacity: each expert has a buffer of C slots, and the dropped tokens are recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from moe_course.lesson import tiny

Positions = Callable[[Tensor, Tensor, int], Tensor]  # (idx_TK, weights_TK, num_experts) -> pos_TK


@dataclass(frozen=True, eq=False)
class Parts:
    """The functions of a layer with a capacity. By default they are the library's, with a choice-major queue."""

    capacity: Callable[[int, int, int, float], int] | None = None
    positions: Positions | None = None
    fill: Callable[..., Tensor] | None = None
    read: Callable[..., Tensor] | None = None


@dataclass(frozen=True, eq=False)
class LimitedRun:
    """One training run: its results on the task, and the share of assignments dropped at each place of the batch."""

    task: tiny.TinyRun
    dropped_T: Tensor

    @property
    def loss(self) -> list[float]:
        return self.task.loss

    @property
    def final_loss(self) -> float:
        return self.task.final_loss

    @property
    def drop_rate(self) -> float:
        return float(self.dropped_T.mean())


@dataclass(eq=False)
class LimitedMoE:
    """Queues, buffers, experts, and back to the tokens. It takes the place of `moe_loop` in the tiny MoE.

    With factor None nothing is dropped. `dropped` collects which share of each token's choices was dropped, one
    dropped_T for each training step.
    """

    factor: float | None
    parts: Parts = field(default_factory=Parts)
    dropped: list[Tensor] = field(default_factory=list)

    def __call__(
        self,
        x_TD: Tensor,
        weights_TK: Tensor,
        idx_TK: Tensor,
        w_gate_EDF: Tensor,
        w_up_EDF: Tensor,
        w_down_EFD: Tensor,
    ) -> Tensor:
        from moe_course.moe import capacity as library  # here: grading hides answers from set-up cells

        (tokens, k), experts = idx_TK.shape, len(w_gate_EDF)
        room = tokens  # a token chooses an expert at most once
        if self.factor is not None:
            room = (self.parts.capacity or library.expert_capacity)(tokens, experts, k, self.factor)
        if self.parts.positions:
            pos_TK = self.parts.positions(idx_TK, weights_TK, experts)
        else:
            pos_TK = library.positions_in_expert(idx_TK, experts)
        if torch.is_grad_enabled():
            self.dropped.append((pos_TK >= room).float().mean(dim=1))
        buf_ECD = (self.parts.fill or library.fill_buffers)(x_TD, idx_TK, pos_TK, experts, room)
        hidden_ECF = F.silu(buf_ECD @ w_gate_EDF) * (buf_ECD @ w_up_EDF)
        return (self.parts.read or library.read_buffers)(hidden_ECF @ w_down_EFD, idx_TK, pos_TK, weights_TK)


def train(gate: tiny.Gate, seed: int, factor: float | None, parts: Parts | None = None) -> LimitedRun:
    """Train a tiny MoE whose experts take C = ceil(T·K/E · factor) assignments in every step."""
    moe = LimitedMoE(factor, parts or Parts())
    run = tiny.train(gate, seed, moe=moe)
    return LimitedRun(run, torch.stack(moe.dropped).mean(dim=0))
