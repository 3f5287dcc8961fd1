"""The frozen descriptions of a language model and of its training. JSON can hold both."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from moe_course.config import MoEConfig

Optimizer = Literal["adamw", "muon"]


@dataclass(frozen=True, kw_only=True)
class LMConfig:
    """A decoder. `ffn` is the width of a dense SwiGLU, or the MoEConfig of every layer's mixture of experts.

    `context` is the longest sequence it is trained on. With `tied` embeddings input and output share one matrix.
    Raises ValueError with the offending values.
    """

    vocab_size: int
    d_model: int
    num_layers: int
    num_heads: int
    context: int
    ffn: MoEConfig | int
    tied: bool = True

    def __post_init__(self) -> None:
        _need_ints(self, "vocab_size", "d_model", "num_layers", "num_heads", "context", least=1)
        if type(self.tied) is not bool:
            raise ValueError(f"tied must be True or False, got {self.tied!r}")
        if self.d_model % self.num_heads or self.d_model // self.num_heads % 2:
            raise ValueError(
                f"d_model = {self.d_model} must divide into num_heads = {self.num_heads} heads of even width, "
                "for rotary positions turn pairs of channels"
            )
        if not isinstance(self.ffn, MoEConfig):
            _need_ints(self, "ffn", least=1)
        elif self.ffn.d_model != self.d_model:
            raise ValueError(f"the experts' d_model = {self.ffn.d_model} is not the model's {self.d_model}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, for JSON and checkpoints."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> LMConfig:
        """The config that `to_dict` wrote."""
        ffn = plain["ffn"]
        return cls(**{**plain, "ffn": MoEConfig(**ffn) if isinstance(ffn, dict) else ffn})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model is trained. How many sequences a batch has follows from the data that `train` gets.

    Learning rate: it rises to `peak` in `warmup` steps, then falls along half a cosine to `floor` at the last of
    `steps`. `optimizer` "adamw" uses `betas` and `weight_decay` (for matrices only); "muon" uses Muon with
    `muon_iterations` for the matrices, and AdamW for embeddings, routers and gains. If `embedding_peak` is given,
    embeddings have this peak; their rate follows the same schedule. Gradients are clipped to the global norm
    `clip`. A batch is computed in `accumulate` equal pieces. The objective adds `lb_weight` and `z_weight` times
    the routers' mean losses. `seed` decides the router's noise; the order of the data has another seed.

    Every `log_every` steps a line is logged; every `save_every` steps a checkpoint is written; every `eval_every`
    steps held-out data are evaluated, if there are any. After the last step all three happen. `bf16` computes in
    bfloat16 on CUDA (parameters stay in float32), `compile` uses torch.compile.
    Raises ValueError with the offending values.
    """

    steps: int
    peak: float = 3e-3
    floor: float = 3e-4
    warmup: int = 20
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0
    lb_weight: float = 0.01
    z_weight: float = 0.001
    accumulate: int = 1
    optimizer: Optimizer = "adamw"
    embedding_peak: float | None = None
    muon_iterations: int = 5
    seed: int = 0
    log_every: int = 10
    save_every: int = 100
    eval_every: int = 100
    bf16: bool = True
    compile: bool = False

    def __post_init__(self) -> None:
        if self.optimizer not in (known := get_args(Optimizer)):
            raise ValueError(f"optimizer must be one of {', '.join(known)}, got {self.optimizer!r}")
        if self.embedding_peak is not None and not 0 < self.embedding_peak < math.inf:
            raise ValueError(f"embedding_peak must be positive or None, got {self.embedding_peak}")
        _need_ints(
            self, "muon_iterations", "steps", "accumulate", "log_every", "save_every", "eval_every", least=1
        )
        _need_ints(self, "warmup", "seed", least=0)
        for name in ("bf16", "compile"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        for name in ("peak", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("floor", "weight_decay", "lb_weight", "z_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.floor > self.peak:
            raise ValueError(f"floor = {self.floor} is above peak = {self.peak}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {self.betas}")
        if self.steps <= self.warmup + 1:
            raise ValueError(f"steps = {self.steps} leaves no room after a warmup of {self.warmup}")


def _need_ints(config: object, *names: str, least: int) -> None:
    for name in names:
        value = getattr(config, name)
        if type(value) is not int or value < least:
            raise ValueError(f"{name} must be an int of at least {least}, got {value!r}")
