"""Published mixtures of experts from Mixtral on, in the order of their release, counted by the accounting.

Only models whose parameters `accounting` counts exactly from their public configuration are here. (gpt-oss, Grok-1
and Phi-3.5-MoE have biases or norms that `ModelConfig` does not describe; Switch Transformers are encoder-decoders;
GShard and GLaM were never released.)
"""

from __future__ import annotations

from dataclasses import dataclass

from moe_course.config import PRESETS, LatentAttention, ModelConfig
from moe_course.systems.accounting import model_params

_DEEPSEEK_LATENT = LatentAttention(q_rank=1536, kv_rank=512, nope_dim=128, rope_dim=64, value_dim=128)

MODELS: dict[str, ModelConfig] = PRESETS | {
    # huggingface.co/Qwen/Qwen1.5-MoE-A2.7B, config.json: the shared expert is one, four times as wide as the others
    "qwen1.5-moe-a2.7b": ModelConfig(
        vocab_size=151_936, d_model=2048, num_layers=24, num_heads=16, num_kv_heads=16, head_dim=128,
        d_ff_expert=1408, num_experts=60, top_k=4, num_shared=1, d_ff_shared=5632,
        qkv_bias=True, shared_gate=True,
    ),
    # huggingface.co/databricks/dbrx-base, config.json; its LayerNorms have no biases
    "dbrx": ModelConfig(
        vocab_size=100_352, d_model=6144, num_layers=40, num_heads=48, num_kv_heads=8, head_dim=128,
        d_ff_expert=10_752, num_experts=16, top_k=4,
    ),
    # huggingface.co/deepseek-ai/DeepSeek-V2, config.json
    "deepseek-v2": ModelConfig(
        vocab_size=102_400, d_model=5120, num_layers=60, num_heads=128, num_kv_heads=128, head_dim=192,
        d_ff_expert=1536, num_experts=160, top_k=6, num_shared=2, d_ff_shared=1536,
        num_dense_layers=1, d_ff_dense=12_288, latent=_DEEPSEEK_LATENT,
    ),
    # huggingface.co/Qwen/Qwen2-57B-A14B, config.json
    "qwen2-57b-a14b": ModelConfig(
        vocab_size=151_936, d_model=3584, num_layers=28, num_heads=28, num_kv_heads=4, head_dim=128,
        d_ff_expert=2560, num_experts=64, top_k=8, num_shared=1, d_ff_shared=20_480,
        qkv_bias=True, shared_gate=True,
    ),
    # huggingface.co/deepseek-ai/DeepSeek-V3, config.json; without the head that predicts a second token
    "deepseek-v3": ModelConfig(
        vocab_size=129_280, d_model=7168, num_layers=61, num_heads=128, num_kv_heads=128, head_dim=192,
        d_ff_expert=2048, num_experts=256, top_k=8, num_shared=1, d_ff_shared=2048,
        num_dense_layers=3, d_ff_dense=18_432, latent=_DEEPSEEK_LATENT,
    ),
    # huggingface.co/meta-llama/Llama-4-Scout-17B-16E, config.json, text_config: without the image encoder
    "llama-4-scout": ModelConfig(
        vocab_size=202_048, d_model=5120, num_layers=48, num_heads=40, num_kv_heads=8, head_dim=128,
        d_ff_expert=8192, num_experts=16, top_k=1, num_shared=1, d_ff_shared=8192,
    ),
    # huggingface.co/meta-llama/Llama-4-Maverick-17B-128E, config.json: every second layer is dense
    "llama-4-maverick": ModelConfig(
        vocab_size=202_048, d_model=5120, num_layers=48, num_heads=40, num_kv_heads=8, head_dim=128,
        d_ff_expert=8192, num_experts=128, top_k=1, num_shared=1, d_ff_shared=8192,
        num_dense_layers=24, d_ff_dense=16_384,
    ),
    # huggingface.co/moonshotai/Kimi-K2-Base, config.json: DeepSeek-V3's architecture in other sizes
    "kimi-k2": ModelConfig(
        vocab_size=163_840, d_model=7168, num_layers=61, num_heads=64, num_kv_heads=64, head_dim=192,
        d_ff_expert=2048, num_experts=384, top_k=8, num_shared=1, d_ff_shared=2048,
        num_dense_layers=1, d_ff_dense=18_432, latent=_DEEPSEEK_LATENT,
    ),
}  # fmt: skip
"""The presets, and the models of the timeline that notebook 01's config does not describe."""


def model(name: str) -> ModelConfig:
    """The published model called `name`. Raises ValueError with the names that exist."""
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}; the models are {', '.join(MODELS)}")
    return MODELS[name]


@dataclass(frozen=True, kw_only=True)
class Release:
    """A model of the timeline. `balancing` is what its paper or announcement says, or "not stated"."""

    name: str
    month: str
    preset: str
    balancing: str
    source: str

    @property
    def config(self) -> ModelConfig:
        return MODELS[self.preset]

    @property
    def params(self) -> tuple[int, int]:
        """(total, active), counted."""
        return model_params(self.config)


def _release(name: str, month: str, preset: str, balancing: str, source: str) -> Release:
    return Release(name=name, month=month, preset=preset, balancing=balancing, source=source)


TIMELINE: tuple[Release, ...] = (
    _release("Mixtral 8x7B", "2023-12", "mixtral-8x7b", "not stated", "arXiv 2401.04088"),
    _release("DeepSeekMoE 16B", "2024-01", "deepseek-moe-16b", "aux loss", "arXiv 2401.06066"),
    _release("DBRX", "2024-03", "dbrx", "not stated", "databricks.com, 27 March 2024"),
    _release("Qwen1.5-MoE", "2024-03", "qwen1.5-moe-a2.7b", "not stated", "qwenlm.github.io, 28 March 2024"),
    _release("Mixtral 8x22B", "2024-04", "mixtral-8x22b", "not stated", "mistral.ai, 17 April 2024"),
    _release("DeepSeek-V2", "2024-05", "deepseek-v2", "aux losses, 3 levels", "arXiv 2405.04434"),
    _release("Qwen2-57B-A14B", "2024-06", "qwen2-57b-a14b", "not stated", "arXiv 2407.10671"),
    _release("OLMoE", "2024-09", "olmoe-1b-7b", "aux loss, z-loss", "arXiv 2409.02060"),
    _release("DeepSeek-V3", "2024-12", "deepseek-v3", "bias, small aux loss", "arXiv 2412.19437"),
    _release("Llama 4 Scout", "2025-04", "llama-4-scout", "not stated", "ai.meta.com, 5 April 2025"),
    _release("Llama 4 Maverick", "2025-04", "llama-4-maverick", "not stated", "ai.meta.com, 5 April 2025"),
    _release("Qwen3-30B-A3B", "2025-04", "qwen3-30b-a3b", "aux loss, global batch", "arXiv 2505.09388"),
    _release("Qwen3-235B-A22B", "2025-04", "qwen3-235b-a22b", "aux loss, global batch", "arXiv 2505.09388"),
    _release("Kimi K2", "2025-07", "kimi-k2", "bias (config)", "arXiv 2507.20534"),
)
"""Releases in order. Months are those of the announcement."""


def timeline_table() -> str:
    """The timeline as a table to print: experts and their width, choices, shared experts, parameters, balancing."""
    head = (
        f"{'model':<17}{'month':<9}{'k of E':>10}{'shared':>8}{'F/D':>7}{'total':>9}{'active':>8}  balancing"
    )
    lines = [head, "-" * (len(head) + 14)]
    for release in TIMELINE:
        c, (total, active) = release.config, release.params
        experts, width = f"{c.top_k} of {c.num_experts}", c.d_ff_expert / c.d_model
        shared = f"{c.num_shared * c.d_ff_shared / c.d_ff_expert:.0f}" if c.num_shared else "-"
        lines.append(
            f"{release.name:<17}{release.month:<9}{experts:>10}{shared:>8}{width:>7.2f}"
            f"{total / 1e9:>8.1f}B{active / 1e9:>7.1f}B  {release.balancing}"
        )
    return "\n".join(lines)
