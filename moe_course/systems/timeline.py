"""The timeline of notebook 06: published mixtures of experts from Mixtral on, in the order of their release.

Models that `ModelConfig` describes are counted by `accounting` from the sizes in `moe_course.published`. Others have
biases, linear attention or residual streams of their own: their sizes and parameters are those of the default
configuration of their class in `transformers`, which is the named checkpoint's, counted on the meta device.
`python -m moe_course.systems.timeline` records them anew.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from moe_course import files
from moe_course.published import MODELS
from moe_course.systems.accounting import model_params
from moe_course.tables import text_table

RECORDED = Path(__file__).with_name("timeline.json")


class Sizes(NamedTuple):
    """Of one MoE layer and of the whole model. `shared` and `width`: of the shared experts together in widths of a
    routed one, and of a routed one in model widths."""

    top_k: int
    num_experts: int
    shared: float
    width: float
    total: int
    active: int


@dataclass(frozen=True, kw_only=True)
class Release:
    """A model of the timeline. `model` is its name in `published`, or its class's family in `transformers`.

    `balancing` follows one rule: what its paper or announcement says; else what its public configuration, or its
    class, says, marked "(config)"; else "not stated".
    """

    name: str
    month: str
    model: str
    balancing: str
    source: str

    @property
    def sizes(self) -> Sizes:
        if self.model not in MODELS:
            return Sizes(**_recorded()[self.model])
        c = MODELS[self.model]
        shared = c.num_shared * c.d_ff_shared / c.d_ff_expert
        return Sizes(c.top_k, c.num_experts, shared, c.d_ff_expert / c.d_model, *model_params(c))


def _release(name: str, month: str, model: str, balancing: str, source: str) -> Release:
    return Release(name=name, month=month, model=model, balancing=balancing, source=source)


TIMELINE: tuple[Release, ...] = (
    _release("Mixtral 8x7B", "2023-12", "mixtral-8x7b", "aux loss 0.02 (config)", "arXiv 2401.04088"),
    _release("DeepSeekMoE 16B", "2024-01", "deepseek-moe-16b", "aux loss", "arXiv 2401.06066"),
    _release("DBRX", "2024-03", "dbrx", "aux loss 0.05 (config)", "databricks.com, 27 March 2024"),
    _release(
        "Qwen1.5-MoE",
        "2024-03",
        "qwen1.5-moe-a2.7b",
        "aux loss 0.001 (config)",
        "qwenlm.github.io, 28 March 2024",
    ),
    _release(
        "Mixtral 8x22B", "2024-04", "mixtral-8x22b", "aux loss 0.001 (config)", "mistral.ai, 17 April 2024"
    ),
    _release("DeepSeek-V2", "2024-05", "deepseek-v2", "aux losses, 3 levels", "arXiv 2405.04434"),
    _release("Qwen2-57B-A14B", "2024-06", "qwen2-57b-a14b", "aux loss 0.001 (config)", "arXiv 2407.10671"),
    _release("OLMoE", "2024-09", "olmoe-1b-7b", "aux loss, z-loss", "arXiv 2409.02060"),
    _release("DeepSeek-V3", "2024-12", "deepseek-v3", "bias, small aux loss", "arXiv 2412.19437"),
    _release(
        "Llama 4 Scout", "2025-04", "llama-4-scout", "aux loss 0.001 (config)", "ai.meta.com, 5 April 2025"
    ),
    _release(
        "Llama 4 Maverick",
        "2025-04",
        "llama-4-maverick",
        "aux loss 0.001 (config)",
        "ai.meta.com, 5 April 2025",
    ),
    _release("Qwen3-30B-A3B", "2025-04", "qwen3-30b-a3b", "aux loss, global batch", "arXiv 2505.09388"),
    _release("Qwen3-235B-A22B", "2025-04", "qwen3-235b-a22b", "aux loss, global batch", "arXiv 2505.09388"),
    _release("Kimi K2", "2025-07", "kimi-k2", "bias (config)", "arXiv 2507.20534"),
    _release("gpt-oss-120b", "2025-08", "GptOss", "aux loss 0.9 (config)", "arXiv 2508.10925"),
    _release(
        "Qwen3-Next-80B", "2025-09", "Qwen3Next", "aux loss, global batch", "qwen.ai, 11 September 2025"
    ),
    _release("MiniMax-M2", "2025-10", "MiniMaxM2", "bias (config)", "minimax.io, 27 October 2025"),
    _release("Kimi Linear 48B", "2025-10", "KimiLinear", "bias (config)", "arXiv 2510.26692"),
    _release("GLM-5", "2026-02", "GlmMoeDsa", "bias (config)", "arXiv 2602.15763"),
    _release(
        "Qwen3.5-35B-A3B", "2026-02", "Qwen3_5MoeText", "aux loss 0.001 (config)", "qwen.ai, February 2026"
    ),
    _release(
        "DeepSeek-V4-Flash",
        "2026-04",
        "DeepseekV4",
        "bias (config), 3 layers hash",
        "report of 24 April 2026",
    ),
)
"""Releases in order. Months are those of the announcement."""


def timeline_table() -> str:
    """The timeline as a table to print: experts and their width, choices, shared experts, parameters, balancing."""
    rows: list[tuple[str, ...]] = [
        ("model", "month", "k of E", "shared", "F/D", "total", "active", "balancing")
    ]
    for release in TIMELINE:
        s = release.sizes
        shared = f"{s.shared:.0f}" if s.shared else "-"
        parameters = f"{s.total / 1e9:.1f}B", f"{s.active / 1e9:.1f}B"
        cells = f"{s.top_k} of {s.num_experts}", shared, f"{s.width:.2f}", *parameters
        rows.append((release.name, release.month, *cells, release.balancing))
    return text_table(rows, left=(0, 1, 7), rules=(1,))


def count(config: Any, num_experts: int, top_k: int) -> tuple[int, int]:
    """(total, active) parameters of a model of `transformers`; of the experts' parameters top_k/E are active."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}  # tied ones come once
    homes = (".mlp.experts.", ".feed_forward.experts.", ".ffn.experts.")
    routed = sum(size for name, size in sizes.items() if any(home in name for home in homes))
    if bool(routed) != bool(num_experts):
        raise ValueError(
            f"{num_experts} experts, but {routed} parameters of experts in {type(config).__name__}"
        )
    total = sum(sizes.values())
    return total, total - routed + (routed * top_k // num_experts if num_experts else 0)


def counted(family: str) -> Sizes:
    """The sizes of the class `family` of `transformers` with its default configuration."""
    c = getattr(importlib.import_module("transformers"), f"{family}Config")()

    def size(*names: str) -> int:
        return next((getattr(c, name) for name in names if getattr(c, name, None)), 0)

    num_experts, top_k = size("num_experts", "n_routed_experts", "num_local_experts"), c.num_experts_per_tok
    d_ff = size("moe_intermediate_size", "intermediate_size")
    shared = size("shared_expert_intermediate_size") or d_ff * size("n_shared_experts")
    return Sizes(top_k, num_experts, shared / d_ff, d_ff / c.hidden_size, *count(c, num_experts, top_k))


@cache
def _recorded() -> Mapping[str, Any]:
    models: Mapping[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8"))["models"]
    return models


def record() -> str:
    """The text of timeline.json, and the version of `transformers` that it comes from."""
    version = importlib.import_module("transformers").__version__
    families = [release.model for release in TIMELINE if release.model not in MODELS]
    models = {family: counted(family)._asdict() for family in families}
    return json.dumps({"transformers": version, "models": models}, indent=1) + "\n"


if __name__ == "__main__":
    files.write(RECORDED, record())
