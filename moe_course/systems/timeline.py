"""The timeline of notebook 06: published mixtures of experts from Mixtral on, in the order of their release.

Their parameters are counted by `accounting` from the sizes in `moe_course.published`.
"""

from __future__ import annotations

from dataclasses import dataclass

from moe_course.config import ModelConfig
from moe_course.published import MODELS
from moe_course.systems.accounting import model_params
from moe_course.tables import text_table


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
    rows: list[tuple[str, ...]] = [
        ("model", "month", "k of E", "shared", "F/D", "total", "active", "balancing")
    ]
    for release in TIMELINE:
        c, (total, active) = release.config, release.params
        experts, width = f"{c.top_k} of {c.num_experts}", c.d_ff_expert / c.d_model
        shared = f"{c.num_shared * c.d_ff_shared / c.d_ff_expert:.0f}" if c.num_shared else "-"
        parameters = f"{total / 1e9:.1f}B", f"{active / 1e9:.1f}B"
        rows.append(
            (release.name, release.month, experts, shared, f"{width:.2f}", *parameters, release.balancing)
        )
    return text_table(rows, left=(0, 1, 7), rules=(1,))
