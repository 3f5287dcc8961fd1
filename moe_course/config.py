"""What describes a model, and the public descriptions of published ones."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal, get_args

QKNorm = Literal["none", "head", "full"]


@dataclass(frozen=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention: keys and values of all heads are read out of one short vector per token.

    Queries come from a latent of width `q_rank` (0: straight from the model width), keys and values from one of
    `kv_rank`; each latent has an RMSNorm. A head's query and key have `nope_dim` channels without and `rope_dim`
    with a rotation (the key's rotated part is one for all heads), its value has `value_dim`.
    Source: DeepSeek-V2, arXiv 2405.04434, section 2.1. Raises ValueError for sizes that are not positive.
    """

    q_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if type(value) is not int or value < (name != "q_rank"):
                raise ValueError(f"{name} must be a positive int (q_rank may be 0), got {value!r}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The sizes of a decoder-only transformer whose feed-forward layers may be mixtures of experts.

    All matrices are bias-free, every norm is an RMSNorm (weights only), and every FFN is a SwiGLU (three
    matrices). The first `num_dense_layers` layers have one dense FFN of width `d_ff_dense`; the others have
    a router, `num_experts` routed experts of width `d_ff_expert`, of which each token uses `top_k`, and
    `num_shared` experts of width `d_ff_shared` each, which every token uses.

    A dense model has `num_dense_layers == num_layers`; then, and only then, `num_experts`, `top_k` and
    `d_ff_expert` may be 0.

    `qk_norm` says how queries and keys are normalised: "none", "head" (Qwen3: head_dim weights each for q
    and k) or "full" (OLMoE: one weight per channel of q and of k).

    Three more belong to models from notebook 06 on. `latent` replaces the usual attention; `head_dim` is then the
    width of a head's query, nope_dim + rope_dim. `qkv_bias` gives q, k and v biases (Qwen2). `shared_gate` is a
    sigmoid gate, one vector, on the shared experts' output (Qwen2-MoE).

    Raises ValueError with the offending values when the sizes cannot belong to one model.
    """

    vocab_size: int
    d_model: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    d_ff_expert: int
    num_experts: int
    top_k: int
    num_shared: int = 0
    d_ff_shared: int = 0
    num_dense_layers: int = 0
    d_ff_dense: int = 0
    tied_embeddings: bool = False
    qk_norm: QKNorm = "none"
    latent: LatentAttention | None = field(default=None, repr=False)
    qkv_bias: bool = field(default=False, repr=False)
    shared_gate: bool = field(default=False, repr=False)

    @property
    def num_moe_layers(self) -> int:
        """Layers with a router and experts."""
        return self.num_layers - self.num_dense_layers

    def __post_init__(self) -> None:
        for size in fields(self):
            value = getattr(self, size.name)
            if size.type == "int" and (type(value) is not int or value < 0):
                raise ValueError(f"{size.name} must be an int, not negative, got {value!r}")
            if size.type == "bool" and type(value) is not bool:
                raise ValueError(f"{size.name} must be True or False, got {value!r}")
        if self.qk_norm not in get_args(QKNorm):
            raise ValueError(f"qk_norm must be one of {get_args(QKNorm)}, got {self.qk_norm!r}")

        self._need_positive("vocab_size", "d_model", "num_layers", "num_heads", "num_kv_heads", "head_dim")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"{self.num_heads} heads cannot share {self.num_kv_heads} key-value heads evenly"
            )
        if self.num_dense_layers > self.num_layers:
            raise ValueError(f"{self.num_dense_layers} dense layers do not fit in {self.num_layers} layers")
        if self.num_dense_layers:
            self._need_positive("d_ff_dense")
        if self.num_moe_layers:
            self._need_positive("num_experts", "top_k", "d_ff_expert")
        if self.num_shared:
            self._need_positive("d_ff_shared")
        if self.top_k > self.num_experts:
            raise ValueError(f"top_k = {self.top_k} experts cannot be chosen out of {self.num_experts}")
        if self.latent and self.head_dim != self.latent.nope_dim + self.latent.rope_dim:
            raise ValueError(f"head_dim = {self.head_dim} is not nope_dim + rope_dim of {self.latent}")

    def _need_positive(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)} in {self}")


PRESETS: dict[str, ModelConfig] = {
    # huggingface.co/mistralai/Mixtral-8x7B-v0.1, config.json
    "mixtral-8x7b": ModelConfig(
        vocab_size=32_000,
        d_model=4096,
        num_layers=32,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        d_ff_expert=14_336,
        num_experts=8,
        top_k=2,
    ),
    # huggingface.co/mistral-community/Mixtral-8x22B-v0.1, config.json (instruct: 32,768 tokens)
    "mixtral-8x22b": ModelConfig(
        vocab_size=32_000,
        d_model=6144,
        num_layers=56,
        num_heads=48,
        num_kv_heads=8,
        head_dim=128,
        d_ff_expert=16_384,
        num_experts=8,
        top_k=2,
    ),
    # huggingface.co/allenai/OLMoE-1B-7B-0924, config.json
    "olmoe-1b-7b": ModelConfig(
        vocab_size=50_304,
        d_model=2048,
        num_layers=16,
        num_heads=16,
        num_kv_heads=16,
        head_dim=128,
        d_ff_expert=1024,
        num_experts=64,
        top_k=8,
        qk_norm="full",
    ),
    # huggingface.co/Qwen/Qwen3-30B-A3B, config.json: 32 heads of 128 on a model width of 2048
    "qwen3-30b-a3b": ModelConfig(
        vocab_size=151_936,
        d_model=2048,
        num_layers=48,
        num_heads=32,
        num_kv_heads=4,
        head_dim=128,
        d_ff_expert=768,
        num_experts=128,
        top_k=8,
        qk_norm="head",
    ),
    # huggingface.co/Qwen/Qwen3-235B-A22B, config.json
    "qwen3-235b-a22b": ModelConfig(
        vocab_size=151_936,
        d_model=4096,
        num_layers=94,
        num_heads=64,
        num_kv_heads=4,
        head_dim=128,
        d_ff_expert=1536,
        num_experts=128,
        top_k=8,
        qk_norm="head",
    ),
    # huggingface.co/deepseek-ai/deepseek-moe-16b-base, config.json: first layer dense, two shared experts
    "deepseek-moe-16b": ModelConfig(
        vocab_size=102_400,
        d_model=2048,
        num_layers=28,
        num_heads=16,
        num_kv_heads=16,
        head_dim=128,
        d_ff_expert=1408,
        num_experts=64,
        top_k=6,
        num_shared=2,
        d_ff_shared=1408,
        num_dense_layers=1,
        d_ff_dense=10_944,
    ),
    # huggingface.co/mistralai/Mistral-7B-v0.1, config.json: Mixtral 8x7B with one FFN in place of eight
    "mistral-7b": ModelConfig(
        vocab_size=32_000,
        d_model=4096,
        num_layers=32,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        d_ff_expert=0,
        num_experts=0,
        top_k=0,
        num_dense_layers=32,
        d_ff_dense=14_336,
    ),
    # huggingface.co/Qwen/Qwen3-8B, config.json
    "qwen3-8b": ModelConfig(
        vocab_size=151_936,
        d_model=4096,
        num_layers=36,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        d_ff_expert=0,
        num_experts=0,
        top_k=0,
        num_dense_layers=36,
        d_ff_dense=12_288,
        qk_norm="head",
    ),
    # huggingface.co/Qwen/Qwen3-0.6B, config.json: input and output embeddings are one matrix
    "qwen3-0.6b": ModelConfig(
        vocab_size=151_936,
        d_model=1024,
        num_layers=28,
        num_heads=16,
        num_kv_heads=8,
        head_dim=128,
        d_ff_expert=0,
        num_experts=0,
        top_k=0,
        num_dense_layers=28,
        d_ff_dense=3072,
        tied_embeddings=True,
        qk_norm="head",
    ),
}
"""Published models by name. `qwen3-8b`, `qwen3-0.6b` and `mistral-7b` are dense, for comparison."""


def preset(name: str) -> ModelConfig:
    """The published model called `name`. Raises ValueError with the names that exist."""
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; the presets are {', '.join(PRESETS)}")
    return PRESETS[name]
