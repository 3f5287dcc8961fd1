"""Figures of notebook 01: the parts of layers and models, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_course.viz.style import ACTIVE, EXPERT_COLORS, FAINT, TOTAL


def gate_curves() -> Figure:
    """The activation functions that gated layers use."""
    fig, ax = plt.subplots(figsize=(5, 2.6))
    z = torch.linspace(-6, 4, 301)
    ax.axhline(0, color=FAINT, lw=0.8)
    for (name, curve), color, dash in zip(
        {"silu": F.silu(z), "gelu": F.gelu(z), "relu": F.relu(z)}.items(),
        EXPERT_COLORS,
        ("-", "--", ":"),
        strict=False,
    ):
        ax.plot(z, curve, dash, color=color, label=name, lw=2)
    ax.set(
        title="silu lets a little of the negative side through",
        xlabel="gate before activation, z",
        ylabel="gate",
    )
    ax.legend()
    return fig


def component_bars(parts: Mapping[str, tuple[int, int]], name: str) -> Figure:
    """The share of each component in the parameters of a model; parts: {component: (total, active)}."""
    sizes = {component: total for component, (total, _) in parts.items() if total}
    whole = sum(sizes.values())
    order = sorted(sizes, key=lambda component: sizes[component])
    fig, ax = plt.subplots(figsize=(7, 0.7 + 0.38 * len(order)))
    shares = [sizes[component] / whole for component in order]
    colors = [ACTIVE if share == max(shares) else TOTAL for share in shares]
    bars = ax.barh(order, [100 * share for share in shares], color=colors)
    ax.bar_label(bars, [_percent(share) for share in shares], padding=4)
    ax.set(
        title=f"{order[-1][0].upper()}{order[-1][1:]} holds {shares[-1]:.0%} of {name}",
        xlabel=f"share of the {whole / 1e9:.2f} billion parameters, %",
        xlim=(0, 108 * max(shares)),
    )
    return fig


def capacity_curve(experts: Sequence[int], counts: Sequence[tuple[int, int]], dense: int) -> Figure:
    """Total and active parameters of an MoE layer by its number of experts, and those of a dense layer."""
    fig, ax = plt.subplots()
    total, active = ([count / 1e6 for count in column] for column in zip(*counts, strict=True))
    ax.plot(experts, total, "o-", color=FAINT, label="total")
    ax.plot(experts, active, "o-", color=ACTIVE, label="active per token")
    ax.axhline(dense / 1e6, color="black", ls=":", label="dense layer of the same compute")
    ax.set_xscale("log", base=2)
    ax.set_xticks(experts, [str(number) for number in experts])
    growth, same = total[-1] / total[0], active[-1] / active[0]
    ax.set(
        title=f"{growth:.0f} times the parameters, {same:.2f} times the active ones",
        xlabel="experts (logarithmic)",
        ylabel="parameters, millions",
    )
    ax.legend()
    return fig


def total_active_dots(models: Mapping[str, tuple[int, int]]) -> Figure:
    """Total and active parameters of models, {name: (total, active)}, as two dots each, the largest on top."""
    order = sorted(models, key=lambda name: models[name][0])
    fig, ax = plt.subplots(figsize=(7.5, 1.0 + 0.34 * len(order)))
    total = [models[name][0] / 1e9 for name in order]
    active = [models[name][1] / 1e9 for name in order]
    ax.hlines(order, active, total, color=TOTAL, lw=5)
    ax.plot(total, order, "o", color=FAINT, ms=8, label="total")
    ax.plot(active, order, "o", color=ACTIVE, ms=6, label="active per token")
    for y, (whole, used) in enumerate(zip(total, active, strict=True)):
        text = f"{whole:.1f}" if whole == used else f"{used:.1f} of {whole:.1f}"
        ax.annotate(text, (whole, y), (9, 0), textcoords="offset points", va="center", fontsize=9)
    sparsest = min(order, key=lambda name: models[name][1] / models[name][0])
    share = models[sparsest][1] / models[sparsest][0]
    ax.set(
        title=f"{sparsest} uses {share:.0%} of its parameters for a token",
        xlabel="parameters, billions (logarithmic)",
        xscale="log",
        xlim=(min(active) / 1.5, max(total) * 4),
    )
    ax.legend(loc="lower right")
    return fig


def memory_bars(memory: Mapping[str, Mapping[str, int]]) -> Figure:
    """The bytes that training holds, stacked by their purpose; {model: {part: bytes}}."""
    fig, ax = plt.subplots(figsize=(7, 1.1 + 0.5 * len(memory)))
    parts = list(next(iter(memory.values())))
    names = list(memory)[::-1]
    left = [0.0] * len(names)
    for part, color in zip(parts, ("#0072B2", "#56B4E9", "#B7C9DA", "#E69F00"), strict=False):
        width = [memory[name][part] / 1e9 for name in names]
        ax.barh(names, width, left=left, color=color, label=part)
        left = [a + b for a, b in zip(left, width, strict=True)]
    for y, whole in enumerate(left):
        ax.text(whole + 0.01 * max(left), y, f"{whole:.1f} GB", va="center")
    ax.set(
        title=f"The same compute per token, {max(left) / min(left):.1f} times the memory",
        xlabel="GB held in training (10⁹ bytes)",
        xlim=(0, 1.15 * max(left)),
    )
    _legend_below(ax, len(parts))
    return fig


def _legend_below(ax: Axes, columns: int) -> None:
    ax.legend(ncols=columns, loc="upper center", bbox_to_anchor=(0.45, -0.35), fontsize=9)


def _percent(share: float) -> str:
    if share < 0.001:
        return "< 0.1%"
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"
