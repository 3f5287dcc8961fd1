"""Published models by name, with their sizes as their public configuration files state them.

Only models whose parameters `moe_course.systems.accounting` counts exactly are here. (gpt-oss, Grok-1 and
Phi-3.5-MoE have biases or norms that `ModelConfig` does not describe; Switch Transformers are encoder-decoders;
GShard and GLaM were never released.) Statistics that others measured on such models are in
`moe_course.analysis.published_statistics`.
"""

from __future__ import annotations

from moe_course.config import LatentAttention, ModelConfig

PRESETS: dict[str, ModelConfig] = {
    # huggingface.co/mistralai/Mixtral-8x7B-v0.1, config.json
    "mixtral-8x7b": ModelConfig(
        vocab_size=32_000, d_model=4096, num_layers=32, num_heads=32, num_kv_heads=8, head_dim=128,
        d_ff_expert=14_336, num_experts=8, top_k=2,
    ),
    # huggingface.co/mistral-community/Mixtral-8x22B-v0.1, config.json (instruct: 32,768 tokens)
    "mixtral-8x22b": ModelConfig(
        vocab_size=32_000, d_model=6144, num_layers=56, num_heads=48, num_kv_heads=8, head_dim=128,
        d_ff_expert=16_384, num_experts=8, top_k=2,
    ),
    # huggingface.co/allenai/OLMoE-1B-7B-0924, config.json
    "olmoe-1b-7b": ModelConfig(
        vocab_size=50_304, d_model=2048, num_layers=16, num_heads=16, num_kv_heads=16, head_dim=128,
        d_ff_expert=1024, num_experts=64, top_k=8, qk_norm="full",
    ),
    # huggingface.co/Qwen/Qwen3-30B-A3B, config.json: 32 heads of 128 on a model width of 2048
    "qwen3-30b-a3b": ModelConfig(
        vocab_size=151_936, d_model=2048, num_layers=48, num_heads=32, num_kv_heads=4, head_dim=128,
        d_ff_expert=768, num_experts=128, top_k=8, qk_norm="head",
    ),
    # huggingface.co/Qwen/Qwen3-235B-A22B, config.json
    "qwen3-235b-a22b": ModelConfig(
        vocab_size=151_936, d_model=4096, num_layers=94, num_heads=64, num_kv_heads=4, head_dim=128,
        d_ff_expert=1536, num_experts=128, top_k=8, qk_norm="head",
    ),
    # huggingface.co/deepseek-ai/deepseek-moe-16b-base, config.json: first layer dense, two shared experts
    "deepseek-moe-16b": ModelConfig(
        vocab_size=102_400, d_model=2048, num_layers=28, num_heads=16, num_kv_heads=16, head_dim=128,
        d_ff_expert=1408, num_experts=64, top_k=6, num_shared=2, d_ff_shared=1408, num_dense_layers=1,
        d_ff_dense=10_944,
    ),
    # huggingface.co/mistralai/Mistral-7B-v0.1, config.json: Mixtral 8x7B with one FFN in place of eight
    "mistral-7b": ModelConfig(
        vocab_size=32_000, d_model=4096, num_layers=32, num_heads=32, num_kv_heads=8, head_dim=128,
        d_ff_expert=0, num_experts=0, top_k=0, num_dense_layers=32, d_ff_dense=14_336,
    ),
    # huggingface.co/Qwen/Qwen3-8B, config.json
    "qwen3-8b": ModelConfig(
        vocab_size=151_936, d_model=4096, num_layers=36, num_heads=32, num_kv_heads=8, head_dim=128,
        d_ff_expert=0, num_experts=0, top_k=0, num_dense_layers=36, d_ff_dense=12_288, qk_norm="head",
    ),
    # huggingface.co/Qwen/Qwen3-0.6B, config.json: input and output embeddings are one matrix
    "qwen3-0.6b": ModelConfig(
        vocab_size=151_936, d_model=1024, num_layers=28, num_heads=16, num_kv_heads=8, head_dim=128,
        d_ff_expert=0, num_experts=0, top_k=0, num_dense_layers=28, d_ff_dense=3072, tied_embeddings=True,
        qk_norm="head",
    ),
}  # fmt: skip
"""The models of notebook 01, with the usual attention. `qwen3-8b`, `qwen3-0.6b` and `mistral-7b` are dense."""

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
"""All published models of the course: the presets, and the models that notebook 06 adds to its timeline."""


def model(name: str) -> ModelConfig:
    """The published model called `name`. Raises ValueError with the names that exist."""
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}; the models are {', '.join(MODELS)}")
    return MODELS[name]
