"""Figures of notebook 11: curves and dots by seed, loads, and counts that grow. The caller words the title."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from moe_course.viz.style import FAINT, INK, expert_color

_COLORS = ("#D55E00", "#0072B2", "#009E73", INK)


def seed_curves(
    curves: Mapping[str, torch.Tensor], title: str, ylabel: str, line: tuple[float, str] | None = None
) -> Figure:
    """Curves over training, {name: (seeds, steps)}: one line for each seed; `line` is (height, its name).

    The first of three names or more are drawn wider, so that they show under the others where curves are the same.
    """
    fig, ax = plt.subplots(figsize=(7, 2.8))
    for number, ((name, values), color) in enumerate(zip(curves.items(), _COLORS, strict=False)):
        width = 1 + 2.5 * (len(curves) - 1 - number) if len(curves) > 2 else 1
        for place, row in enumerate(values):
            ax.plot(row, color=color, lw=width, alpha=0.8, label=None if place else name)
    if line:
        ax.axhline(line[0], color=FAINT, ls=":", label=line[1])
    ax.set(title=title, xlabel="step", ylabel=ylabel)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize=9, frameon=True, edgecolor="none")
    return fig


def dots_by_seed(
    values: Mapping[str, Sequence[float]], title: str, xlabel: str, line: tuple[float, str] | None = None
) -> Figure:
    """One row for each name, one dot for each seed; `line` is (place, its name)."""
    fig, ax = plt.subplots(figsize=(7, 1.1 + 0.4 * len(values)))
    names = list(values)[::-1]
    for y, name in enumerate(names):
        ax.plot(list(values[name]), [y] * len(values[name]), "o", ms=7, color=_COLORS[1])
    if line:
        ax.axvline(line[0], color=FAINT, ls=":", label=line[1])
        ax.legend(fontsize=9)
    ax.set_yticks(range(len(names)), names)
    ax.set(title=title, xlabel=xlabel, ylim=(-0.6, len(names) - 0.4))
    return fig


def seed_loads(load_BE: torch.Tensor, title: str) -> Figure:
    """The load of every expert, a panel for each seed; the line is the fair share."""
    experts = load_BE.shape[1]
    fig, axes = plt.subplots(1, len(load_BE), figsize=(8, 2.3), sharey=True, squeeze=False)
    for seed, (ax, load_E) in enumerate(zip(axes[0], load_BE.tolist(), strict=True)):
        ax.bar(range(experts), load_E, color=[expert_color(e) for e in range(experts)])
        ax.axhline(1 / experts, color=FAINT, ls=":")
        ax.set_title(f"seed {seed}", fontsize=9, fontweight="normal")
        ax.set_xlabel("expert")
    axes[0, 0].set_ylabel("share of the load")
    fig.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return fig


def growth(counts: Mapping[str, Mapping[int, float]], title: str, xlabel: str, ylabel: str) -> Figure:
    """Counts that depend on a size, {name: {size: count}}, on logarithmic axes."""
    fig, ax = plt.subplots(figsize=(7, 2.8))
    for (name, points), color in zip(counts.items(), _COLORS, strict=False):
        ax.plot(list(points), list(points.values()), "o-", color=color, label=name)
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel, xscale="log", yscale="log")
    sizes = sorted({size for points in counts.values() for size in points})
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.minorticks_off()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # counts may all lie within one power of ten
    ax.yaxis.set_major_formatter("{x:,.0f}")
    ax.legend(fontsize=9)
    return fig
