"""The sizes that decide what serving a model costs, counted from its configuration, and the bounds that follow.

sizes = serving_sizes(model("qwen3-30b-a3b"))
sizes.step_seconds(device("h100"), batch=16, context=4096)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from moe_course.config import ModelConfig
from moe_course.hardware import Device
from moe_course.systems.accounting import breakdown
from moe_course.systems.serving import decode_bytes, decode_seconds


@dataclass(frozen=True, kw_only=True)
class ServingSizes:
    """What the formulas of `serving` need to know of a model.

    total_params: all that must be stored. fixed_params: what each decoding step reads whatever the routers do, which
    is everything except routed experts and the input embedding (a look-up; with tied embeddings the matrix counts as
    the output's). expert_params: one expert of one layer. kv_values: keys and values that a token leaves in the
    cache, of all layers. A dense model has moe_layers = 0 and num_experts = top_k = 1.
    """

    total_params: int
    fixed_params: int
    expert_params: int
    moe_layers: int
    num_experts: int
    top_k: int
    kv_values: int

    @property
    def active_params(self) -> int:
        """Parameters that one token multiplies with; the input embedding is a look-up and not in it."""
        return self.fixed_params + self.moe_layers * self.top_k * self.expert_params

    def memory_bytes(
        self, sequences: int = 0, context: int = 0, bytes_per_value: float = 2, kv_bytes_per_value: float = 2
    ) -> float:
        """Bytes of all weights, and of the keys and values of some sequences of `context` tokens."""
        cache = sequences * context * self.kv_values * kv_bytes_per_value
        return self.total_params * bytes_per_value + cache

    def step_bytes(
        self, batch: int, context: int = 0, bytes_per_value: float = 2, kv_bytes_per_value: float = 2
    ) -> float:
        """Bytes that a decoding step reads (`decode_bytes`); each sequence has `context` tokens in its cache."""
        return decode_bytes(
            self.fixed_params * bytes_per_value,
            self.expert_params * bytes_per_value,
            self.moe_layers,
            self.num_experts,
            self.top_k,
            batch,
            context * self.kv_values * kv_bytes_per_value,
        )

    def step_seconds(
        self,
        on: Device,
        batch: int,
        context: int = 0,
        bytes_per_value: float = 2,
        devices: int = 1,
        kv_bytes_per_value: float = 2,
    ) -> float:
        """The least seconds of a decoding step on some devices that share the work evenly, without communication."""
        read = self.step_bytes(batch, context, bytes_per_value, kv_bytes_per_value)
        return decode_seconds(
            read, self.active_params, batch, devices * on.bandwidth, devices * on.peak_flops
        )

    def equal_dense_params(self, on: Device, batch: int, bytes_per_value: float = 2) -> float:
        """How many parameters a dense model may have whose step takes as long as this one's, weights alone.

        A dense model reads all its parameters once a step and does 2 FLOPs with each for each token. With fewer
        parameters than this it is cheaper to serve at that batch.
        """
        a_param = max(bytes_per_value / on.bandwidth, 2 * batch / on.peak_flops)
        return self.step_seconds(on, batch, 0, bytes_per_value) / a_param


def serving_sizes(config: ModelConfig) -> ServingSizes:
    """The sizes of a published model."""
    parts = breakdown(config)
    total = sum(whole for whole, _ in parts.values())
    experts = parts["routed experts"][0]
    look_up = 0 if config.tied_embeddings else config.vocab_size * config.d_model
    return ServingSizes(
        total_params=total,
        fixed_params=total - experts - look_up,
        expert_params=3 * config.d_model * config.d_ff_expert,
        moe_layers=config.num_moe_layers,
        num_experts=config.num_experts if config.num_moe_layers else 1,
        top_k=config.top_k if config.num_moe_layers else 1,
        kv_values=kv_values_per_token(config),
    )


def kv_values_per_token(config: ModelConfig) -> int:
    """Values that one token leaves in the cache of keys and values, of all layers.

    The usual attention keeps a key and a value for each key-value head; multi-head latent attention one latent and
    one rotated key for all heads (DeepSeek-V2, arXiv 2405.04434, table 1).
    """
    if config.latent:
        return config.num_layers * (config.latent.kv_rank + config.latent.rope_dim)
    return config.num_layers * 2 * config.num_kv_heads * config.head_dim


def tokens_per_verification(acceptance: float, drafted: int) -> float:
    """How many tokens a step of speculative decoding yields on average: (1 − α^(γ+1)) / (1 − α).

    A small model drafts γ tokens, the large one checks them all in one step and keeps them up to the first that it
    rejects, and adds one of its own; each is accepted with probability α, independently. Source: Leviathan et al.
    2023, arXiv 2211.17192, equation 1. Raises ValueError for an acceptance outside 0..1 or a negative draft.
    """
    if not 0 <= acceptance <= 1:
        raise ValueError(f"acceptance must be in 0..1, got {acceptance}")
    if drafted < 0:
        raise ValueError(f"drafted must not be negative, got {drafted}")
    return math.fsum(acceptance**n for n in range(drafted + 1))
