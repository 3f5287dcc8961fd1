"""Code that serves a trained model: its loss, its choices in bfloat16, and its work for few tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor

from moe_course.lesson import timing, tiny
from moe_course.lesson.clinic.ward import SEEDS
from moe_course.moe.balance import biased_top_k, update_bias
from moe_course.moe.counts import expert_counts
from moe_course.tables import text_table

BiasedGate = Callable[
    [Tensor, Tensor, int], tuple[Tensor, Tensor]
]  # scores_TE, bias_E, k -> weights_TK, idx_TK
Route = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]  # x_TD, router_DE, k -> weights_TK, idx_TK


@dataclass(frozen=True, eq=False)
class Served:
    """A tiny MoE whose router was trained with a balancing bias, two experts a token; and the bias it ended with."""

    run: tiny.TinyRun
    bias_E: Tensor
    stream: tiny.Stream

    def loss(self, gate: BiasedGate) -> float:
        """Loss on the first 512 lines when `gate` serves the model."""
        self.run.model.gate = lambda logits_TE: gate(logits_TE.sigmoid(), self.bias_E, 2)
        tokens_BS = self.stream.tokens_BS[:512]
        with torch.no_grad():
            logits_BSV, _ = self.run.model(tokens_BS[:, :-1])
        return tiny.translation_loss(logits_BSV, tokens_BS).item()


@lru_cache(maxsize=1)
def trained_with_bias(seeds: Sequence[int] = SEEDS) -> tuple[Served, ...]:
    """Models that were trained as they should be, for code that serves them.

    All biases start at 12, about where those of GLM-5.2 lie. What is added to all biases changes no choice.
    """
    return tuple(_trained_with_bias(seed) for seed in seeds)


def _trained_with_bias(seed: int, rate: float = 0.01) -> Served:
    config = tiny.TinyConfig()
    bias_E = torch.full((config.num_experts,), 12.0)

    def follow(idx_BN: Tensor) -> None:
        bias_E.copy_(update_bias(bias_E, expert_counts(idx_BN.reshape(-1, 1), len(bias_E)), rate))

    run = tiny.train(lambda z_TE: biased_top_k(z_TE.sigmoid(), bias_E, 2), seed, config, after_step=follow)
    return Served(run, bias_E, tiny.make_stream(seed, config))


def reference_gate(scores_TE: Tensor, bias_E: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The gate that the models of `trained_with_bias` were trained with."""
    return biased_top_k(scores_TE, bias_E, k)


def bfloat16_tokens(experts: int, seed: int) -> tuple[Tensor, Tensor]:
    """4096 tokens and a router in bfloat16, with logits of order 1: (x_TD, router_DE)."""
    rng = torch.Generator().manual_seed(seed)
    x_TD, router_DE = torch.randn(4096, 64, generator=rng), torch.randn(64, experts, generator=rng) / 8
    return x_TD.bfloat16(), router_DE.bfloat16()


def moved(route: Route, experts: int, k: int, seed: int) -> float:
    """The share of `bfloat16_tokens` that `route` sends to other experts than products in float64 do."""
    x_TD, router_DE = bfloat16_tokens(experts, seed)
    _, idx_TK = route(x_TD, router_DE, k)
    right_TK = (x_TD.double() @ router_DE.double()).topk(k, dim=-1).indices
    return (idx_TK.sort(dim=-1).values != right_TK.sort(dim=-1).values).any(dim=-1).double().mean().item()


def boundary_gaps(x_TD: Tensor, router_DE: Tensor, k: int) -> str:
    """How far the k-th and the next logit of a token are apart, in float64: some quantiles over the tokens."""
    top_TK = (x_TD.double() @ router_DE.double()).topk(k + 1, dim=-1).values
    gap_T = top_TK[:, k - 1] - top_TK[:, k]
    return "\n".join(
        f"{share:4.0%} of the tokens: below {gap_T.quantile(share):.4f}" for share in (0.02, 0.1, 0.5)
    )


def decoding(experts: int = 128, tokens: int = 1) -> tuple[Tensor, ...]:
    """The arguments of a layer that writes: few tokens, eight experts each, nothing that needs a gradient."""
    layer = timing.Layer(tokens=tokens, experts=experts, top_k=8, d_model=64, d_ff=32)
    return tuple(argument.detach() for argument in layer.arguments())


def work_by_experts(way: timing.Way, sizes: Sequence[int] = (8, 16, 32, 64, 128)) -> dict[int, int]:
    """How many operations `way` starts for one token, for several numbers of experts in the layer."""

    def operations(experts: int) -> int:
        arguments = decoding(experts)
        return timing.operations(lambda: way(*arguments))

    return {experts: operations(experts) for experts in sizes}


def training_step(way: timing.Way, experts: int, tokens: int = 8) -> Callable[[], object]:
    """A function that runs `way` forward and backward with eight experts a token."""
    return timing.Layer(tokens=tokens, experts=experts, top_k=8, d_model=64, d_ff=32).training_step(way)


def decode_times(*ways: timing.Way, batches: Sequence[int] = (1, 8, 128)) -> str:
    """Milliseconds of each way with 128 experts, for several numbers of tokens; measured in turns."""
    rows = [("tokens", *(f"way {place}" for place in range(1, len(ways) + 1)))]
    for tokens in batches:
        arguments = decoding(tokens=tokens)
        times = timing.race(
            {str(place): partial(way, *arguments) for place, way in enumerate(ways)}, rounds=3
        )
        rows.append((str(tokens), *(f"{1000 * time.median:.1f} ms" for time in times.values())))
    return text_table(rows)
