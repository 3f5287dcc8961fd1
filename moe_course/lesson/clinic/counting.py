"""A gate with counters, in a program that trains and tests in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from moe_course.moe.counts import expert_counts
from moe_course.tables import text_table

EXPERTS, TOP_K, WIDTH, TOKENS = 8, 2, 12, 64
Make = Callable[[int, int, int], Any]  # d_model, num_experts, top_k -> a gate


@dataclass(frozen=True, eq=False)
class Life:
    """What happened to a gate, one row a step.

    seen_SE: the training tokens of each expert; counted_SE: what the gate had counted before the bias moved;
    bias_SE: the bias after that.
    """

    seen_SE: Tensor
    counted_SE: Tensor
    bias_SE: Tensor

    @property
    def violation(self) -> Tensor:
        """max/mean − 1 of the training load, step by step."""
        return self.seen_SE.amax(dim=1) / self.seen_SE.mean(dim=1) - 1


def life_of(make: Make, seed: int, steps: int = 150, tested: bool = True, checkpointed: bool = False) -> Life:
    """Train a gate of 8 experts, two a token, on one text, and move its bias after every step.

    tested: before that, it is tested on four times as many tokens of another text. checkpointed: half of each batch
    passes a second layer with the same gate, which is computed again in the backward pass, to save memory.
    """
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    gate, centres = make(WIDTH, EXPERTS, TOP_K), torch.randn(2, WIDTH, generator=rng)

    def tokens(number: int, text: int) -> Tensor:
        return torch.randn(number, WIDTH, generator=rng) + centres[text]

    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(steps):
        x_TD = tokens(TOKENS, 0).requires_grad_()
        weights_TK, idx_TK = gate(x_TD)
        loss = (weights_TK**2).mean()
        seen_E = expert_counts(idx_TK, EXPERTS)
        if checkpointed:
            half_TK, half_idx_TK = checkpoint(_block, gate, x_TD[: TOKENS // 2], use_reentrant=False)
            loss, seen_E = loss + (half_TK**2).mean(), seen_E + expert_counts(half_idx_TK, EXPERTS)
        loss.backward()
        gate.zero_grad()
        if tested:
            with torch.no_grad():
                gate.eval()(tokens(4 * TOKENS, 1))
                gate.train()
        counted_E = gate.counts_E.detach().clone()
        gate.update_bias(0.02)
        rows.append((seen_E, counted_E, gate.bias_E.detach().clone()))
    return Life(*(torch.stack(column).float() for column in zip(*rows, strict=True)))


def _block(gate: Any, x_TD: Tensor) -> tuple[Tensor, Tensor]:
    """A gate and something after it, as in a model."""
    weights_TK, idx_TK = gate(x_TD)
    return torch.sin(weights_TK), idx_TK


def violations(lives: Mapping[str, Sequence[Life]]) -> dict[str, Tensor]:
    """The max violation of every life, for a figure: {name: (seeds, steps)}."""
    return {name: torch.stack([life.violation for life in group]) for name, group in lives.items()}


def counters(make: Make, checkpointed: bool = False) -> str:
    """One step of a gate's life: how many assignments it trained on, and how many it counted."""
    life = life_of(make, seed=0, steps=1, checkpointed=checkpointed)
    head = ("expert", *map(str, range(EXPERTS)), "all")
    rows = {"trained on": life.seen_SE[0], "counted": life.counted_SE[0]}
    return text_table(
        [head, *((name, *(f"{n:.0f}" for n in row), f"{row.sum():.0f}") for name, row in rows.items())]
    )
