"""One frozen description of everything that decides a run, and the presets: one for each kind of machine.

recipe("cpu", "moe", seed=0)           # a mixture: 8 experts, each token uses 2
recipe("cpu", "dense-active", seed=0)  # one FFN as wide as the experts that a token uses
recipe("cpu", "dense-total", seed=0)   # one FFN as wide as all experts together
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from moe_course.config import MoEConfig
from moe_course.lm.model.lm_config import LMConfig, TrainConfig

ARMS = ("moe", "dense-active", "dense-total")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides a run. `name` is its name in tables; `data` and `level` are as in `load` and `train_tokenizer`.

    Parameters whose names end in one of `frozen` keep their initial values.

    A batch is `batch_size` sequences of the model's context. plan.seed decides the initial weights, the order of the
    data and the router's noise: runs with the same seed see the same batches.
    """

    name: str
    data: str = "default"
    level: str = "bpe"
    batch_size: int
    model: LMConfig
    plan: TrainConfig
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if type(self.batch_size) is not int or self.batch_size < 1:
            raise ValueError(f"batch_size must be an int of at least 1, got {self.batch_size!r}")

    @property
    def tokens(self) -> int:
        """How many tokens the run is trained on."""
        return self.plan.steps * self.batch_size * self.model.context

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Recipe:
        """The recipe that `to_dict` wrote."""
        plan = dict(plain["plan"])
        plan["betas"] = tuple(plan["betas"])
        model = LMConfig.from_dict(dict(plain["model"]))
        frozen = tuple(plain.get("frozen", ()))
        return cls(**{**plain, "model": model, "plan": TrainConfig(**plan), "frozen": frozen})


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Sizes for a machine. `d_ff` is the width of the dense arm that matches the active parameters.

    The mixture has `num_experts` experts of width d_ff / top_k.
    """

    measured: bool
    vocab_size: int
    d_model: int
    num_layers: int
    num_heads: int
    context: int
    d_ff: int
    num_experts: int
    top_k: int
    batch_size: int
    plan: TrainConfig


PRESETS = {
    "cpu": Preset(  # that of the experiment; docs/results.md says how its learning rate was found
        measured=True,
        vocab_size=1024,
        d_model=96,
        num_layers=4,
        num_heads=4,
        context=128,
        d_ff=256,
        num_experts=8,
        top_k=2,
        batch_size=32,
        plan=TrainConfig(
            steps=1000,
            peak=1.2e-2,
            warmup=50,
            save_every=250,
            eval_every=50,
            bf16=False,
            optimizer="muon",
            muon_iterations=3,
            embedding_peak=1e-2,
        ),
    ),
    "t4": Preset(  # float32: a T4 has no bfloat16; 16 GB
        measured=False,
        vocab_size=4096,
        d_model=384,
        num_layers=8,
        num_heads=6,
        context=512,
        d_ff=1024,
        num_experts=8,
        top_k=2,
        batch_size=32,
        plan=TrainConfig(
            steps=4000, peak=1.5e-3, warmup=200, eval_every=250, save_every=500, accumulate=2, bf16=False
        ),
    ),
    "h100": Preset(
        measured=False,
        vocab_size=8192,
        d_model=768,
        num_layers=12,
        num_heads=12,
        context=1024,
        d_ff=2048,
        num_experts=16,
        top_k=2,
        batch_size=64,
        plan=TrainConfig(
            steps=10_000, peak=6e-4, floor=6e-5, warmup=500, eval_every=500, save_every=1000, accumulate=4
        ),
    ),
}
"""For "t4" and "h100" the default corpus is too small: give them `hf:NAME`. Their sizes are computed with `costs`, by
counting the kernels of a step: they fit into the memory, and the mixture is trained within an hour if the GPU does
half of its FLOPs and three quarters of its bandwidth. Their learning rates are guesses."""


def recipe(
    preset: str,
    arm: str,
    seed: int = 0,
    data: str = "default",
    level: str = "bpe",
    vocab_size: int | None = None,
) -> Recipe:
    """The recipe of an arm with a preset. Raises ValueError for an unknown preset or arm."""
    if preset not in PRESETS:
        raise ValueError(f"no preset {preset!r}; there are {', '.join(PRESETS)}")
    if arm not in ARMS:
        raise ValueError(f"no model {arm!r}; there are {', '.join(ARMS)}")
    p = PRESETS[preset]
    moe = MoEConfig(d_model=p.d_model, d_ff=p.d_ff // p.top_k, num_experts=p.num_experts, top_k=p.top_k)
    ffns: dict[str, MoEConfig | int] = {
        "moe": moe,
        "dense-active": p.d_ff,
        "dense-total": moe.num_experts * moe.d_ff,
    }
    model = LMConfig(
        vocab_size=vocab_size or p.vocab_size,
        d_model=p.d_model,
        num_layers=p.num_layers,
        num_heads=p.num_heads,
        context=p.context,
        ffn=ffns[arm],
    )
    plan = replace(p.plan, seed=seed, floor=p.plan.peak / 10)
    return Recipe(name=arm, data=data, level=level, batch_size=p.batch_size, model=model, plan=plan)


def with_settings(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """The recipe with fields set by "name=value": those of its plan, its mixture of experts, its model, batch_size.

    A value is read as a Python literal, and as text where it is none: peak=0.01, optimizer=muon.
    Raises ValueError for what is no setting, for a name that is no field, and where the fields do not fit together.
    """
    plain = recipe.to_dict()
    ffn = plain["model"]["ffn"]
    places = [plain["plan"], ffn if isinstance(ffn, dict) else {}, plain["model"], plain]
    fixed = {"ffn", "plan", "model", "name", "data", "level", "vocab_size"}
    for setting in settings:
        name, equals, text = setting.partition("=")
        found = [place for place in places if name in place and name not in fixed]
        if not equals or not found:
            known = sorted({name for place in places for name in place} - fixed)
            raise ValueError(f"{setting!r} sets nothing: write NAME=VALUE with one of {', '.join(known)}")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        for place in found:  # d_model is one of the model and of its experts
            place[name] = value
    try:
        return Recipe.from_dict(plain)
    except TypeError as error:  # a text where a number belongs
        raise ValueError(f"{', '.join(settings)}: {error}") from None
