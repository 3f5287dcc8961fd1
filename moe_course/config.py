"""The frozen descriptions of a mixture-of-experts layer and of a whole model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

QKNorm = Literal["none", "head", "full"]
Router = Literal["softmax", "sigmoid"]
Fill = Literal["choice", "token", "priority"]
DispatchName = Literal["auto", "loop", "onehot", "sorted", "grouped", "fused"]


@dataclass(frozen=True, kw_only=True)
class MoEConfig:
    """One mixture-of-experts layer. The defaults are a softmax over all experts, top-k, renormalised, dropless.

    Sizes: `d_model` D, `d_ff` F, `num_experts` E, `top_k` K. `num_shared` experts of width `d_ff_shared` each
    see every token.

    Router: `router` turns logits into scores; with `renormalize` the K weights of a token sum to 1; `scale`
    multiplies them (DeepSeek-V3: 2.5). The default is to renormalise for K > 1 only: a single weight would be the
    constant 1, which gives the router no gradient from the task. (Switch does not renormalise, Megatron-LM refuses
    to. `MoELayer` warns where a config does.) `noise` adds Shazeer's learned noise while training. With a `bias_rate`
    above 0 experts are selected on scores plus a balancing bias, which `MoELayer.update_bias` moves by that much
    a call (DeepSeek-V3: 0.001). The experts are divided into `num_groups` equal groups, and a token chooses among
    the experts of its `top_groups` best groups. The score of a group is the sum of its `group_sum` highest scores:
    1 of them in DeepSeek-V2, 2 in DeepSeek-V3, top_k / top_groups in Megatron-LM.

    Capacity: with None nothing is dropped. A number limits every expert to C = ceil(T·K/E · capacity_factor)
    assignments, and `fill` says which assignments come first: "choice" (all first choices, then all second ones:
    GShard), "token" (token by token: Switch), "priority" (the tokens with the highest score of their first choice:
    V-MoE).

    `dispatch` chooses among several ways to compute the same result (see `moe_course.moe.dispatchers`); with a
    capacity there is only one way, and `dispatch` must stay "auto".

    Raises ValueError with the offending values.
    """

    d_model: int
    d_ff: int
    num_experts: int
    top_k: int
    num_shared: int = 0
    d_ff_shared: int = 0
    router: Router = "softmax"
    renormalize: bool = None  # type: ignore[assignment]  # None becomes top_k > 1, so it is always a bool
    scale: float = 1.0
    noise: bool = False
    bias_rate: float = 0.0
    num_groups: int = 1
    top_groups: int = 1
    group_sum: int = 2
    capacity_factor: float | None = None
    fill: Fill = "choice"
    dispatch: DispatchName = "auto"

    def __post_init__(self) -> None:
        for name in ("d_model", "d_ff", "num_experts", "top_k", "num_groups", "top_groups", "group_sum"):
            _need_int(self, name, least=1)
        for name in ("num_shared", "d_ff_shared"):
            _need_int(self, name, least=0)
        if self.renormalize is None:
            object.__setattr__(self, "renormalize", self.top_k > 1)
        for name in ("renormalize", "noise"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        for name, choices in (("router", Router), ("fill", Fill), ("dispatch", DispatchName)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name} must be one of {get_args(choices)}, got {getattr(self, name)!r}")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be positive, got {self.scale}")
        if not 0 <= self.bias_rate < math.inf:
            raise ValueError(f"bias_rate must not be negative, got {self.bias_rate}")
        if self.capacity_factor is not None and not 0 < self.capacity_factor < math.inf:
            raise ValueError(f"capacity_factor must be positive, or None, got {self.capacity_factor}")
        if self.capacity_factor is not None and self.dispatch != "auto":
            raise ValueError(
                f"dispatch = {self.dispatch!r} is for a dropless layer, but capacity_factor is {self.capacity_factor}"
            )
        if self.num_shared:
            _need_int(self, "d_ff_shared", least=1)
        if self.num_experts % self.num_groups:
            raise ValueError(
                f"{self.num_experts} experts do not divide into {self.num_groups} groups of equal size"
            )
        if self.top_groups > self.num_groups:
            raise ValueError(
                f"top_groups = {self.top_groups} cannot be chosen out of num_groups = {self.num_groups}"
            )
        reachable = self.num_experts // self.num_groups * self.top_groups
        if self.top_k > reachable:
            raise ValueError(f"top_k = {self.top_k} experts cannot be chosen out of {reachable}")


def _need_int(config: object, name: str, least: int) -> None:
    value = getattr(config, name)
    if type(value) is not int or value < least:
        raise ValueError(f"{name} must be an int of at least {least}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention: the keys and values of all heads are computed from one short vector per token.

    Queries are computed from a latent of width `q_rank` (0: directly from the token), keys and values from a latent
    of width `kv_rank`; each latent has an RMSNorm. A head's query and key have `nope_dim` channels without and
    `rope_dim` channels with a rotation (all heads share the rotated part of the key); its value has `value_dim`.
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

    Three more fields belong to models from notebook 06 on. `latent` replaces the usual attention; `head_dim` is
    then the width of a head's query, nope_dim + rope_dim. `qkv_bias` gives q, k and v biases (Qwen2). `shared_gate`
    is a sigmoid gate, one vector, on the shared experts' output (Qwen2-MoE).

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
