"""Figures of notebook 09: where the time of a step goes on each rank, published bandwidths, and speed-ups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_course.viz.interact import _Panel
from moe_course.viz.style import EXPERT_COLORS, FAINT, INK

PARTS = {"compute": "#0072B2", "exchange": "#E69F00", "wait": "#D9DDE1"}


def rank_split(arms: Mapping[str, Sequence[Any]]) -> Figure:
    """Compute, exchange and waiting of each rank, {arm: one split a rank}; a panel for each arm."""
    fig, axes = plt.subplots(
        1, len(arms), figsize=(8, 0.9 + 0.5 * len(next(iter(arms.values())))), sharex=True
    )
    for ax, (name, splits) in zip([axes] if len(arms) == 1 else axes, arms.items(), strict=True):
        for rank, split in enumerate(splits):
            left = 0.0
            for part, color in PARTS.items():
                width = 1e3 * getattr(split, part)
                ax.barh(
                    rank,
                    width,
                    left=left,
                    color=color,
                    edgecolor=INK,
                    lw=0.4,
                    label=part if rank == 0 else None,
                )
                left += width
        idle = max(range(len(splits)), key=lambda r: splits[r].wait / splits[r].total)
        ax.set(
            title=f"{name}: rank {idle} waits {splits[idle].wait / splits[idle].total:.0%}",
            xlabel="ms of a forward pass",
            ylim=(len(splits) - 0.4, -0.6),
        )
        ax.set_yticks(range(len(splits)), [f"rank {r}\n{split.rows} rows" for r, split in enumerate(splits)])
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return fig


def model_check(measured: Sequence[float], predicted: Sequence[float]) -> Figure:
    """Measured against predicted seconds of steps; the title states the error."""
    errors = [abs(p - m) / m for m, p in zip(measured, predicted, strict=True)]
    fig, ax = plt.subplots(figsize=(5, 3.4))
    top = 1.1e3 * max(*measured, *predicted)
    ax.plot([0, top], [0, top], color=FAINT, lw=1, ls="--", label="predicted = measured")
    ax.plot([1e3 * p for p in predicted], [1e3 * m for m in measured], "o", color=PARTS["compute"])
    ax.set(
        title=f"Off by {median(errors):.0%} in the median, by {max(errors):.0%} at worst",
        xlabel="predicted, ms",
        ylabel="measured, ms",
        xlim=(0, top),
        ylim=(0, top),
    )
    ax.legend(fontsize=9)
    return fig


def bandwidths(ranks: Sequence[int], lines: Mapping[str, Sequence[float]], card: float) -> Figure:
    """GB/s by number of ranks under several ways to count the same bytes, beside the speed of the network card."""
    fig, ax = plt.subplots(figsize=(6.5, 3.2))
    for (name, values), style, color in zip(lines.items(), ("o-", "s-", "^-"), EXPERT_COLORS, strict=False):
        ax.plot(ranks, values, style, color=color, label=name)
    ax.axhline(card, color=INK, ls="--", lw=1)
    ax.text(ranks[0], card + 1, f"the card: {card:g} GB/s", fontsize=9, va="bottom")
    above = [name for name, values in lines.items() if max(values) > card]
    ax.set(
        title=f"{len(above)} of {len(lines)} counts of the bytes exceed the card",
        xlabel="ranks",
        ylabel="GB/s",
        xscale="log",
        ylim=(0, None),
    )
    ax.set_xticks(ranks, [str(r) for r in ranks])
    ax.minorticks_off()
    ax.legend(fontsize=9)
    return fig


def speed_up_explorer(seconds: Callable[..., tuple[float, dict[str, float]]], ranks: Sequence[int]) -> None:
    """Sliders for skew, ranks and bandwidth; they call `seconds(ranks, skew, bandwidth)`: the time, and its parts."""

    def draw(skew: float, size: int, bandwidth: float) -> tuple[Figure, str]:
        fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), width_ratios=(1.5, 1))
        one, _ = seconds(1, 0.0, bandwidth * 1e9)
        gains = [one / seconds(r, skew, bandwidth * 1e9)[0] for r in ranks]
        _curve(left, ranks, gains)
        gain = one / seconds(size, skew, bandwidth * 1e9)[0]
        left.plot(size, gain, "o", color="#D55E00", ms=8)
        left.set_title(f"{size} ranks are {gain:.3g} times as fast as one")
        _, parts = seconds(size, skew, bandwidth * 1e9)
        right.barh(list(parts), [1e3 * value for value in parts.values()], color=PARTS["compute"])
        right.invert_yaxis()
        largest = max(parts, key=lambda part: parts[part])
        right.set(title=f"Most of it is {largest}", xlabel="ms of a forward pass")
        return (
            fig,
            f"Speed-up over one rank by number of ranks at skew {skew:g} and {bandwidth:g} GB/s; parts of a step",
        )

    panel = _Panel(draw)
    if panel.alive:
        from ipywidgets import FloatSlider, SelectionSlider

        panel.run(
            skew=FloatSlider(0.5, min=0.0, max=3.0, step=0.25, description="skew"),
            size=SelectionSlider(options=list(ranks), value=ranks[len(ranks) // 2], description="ranks"),
            bandwidth=SelectionSlider(
                options=[5, 10, 25, 50, 100, 200, 450, 900], value=50, description="GB/s"
            ),
        )
    else:
        panel.show(skew=0.5, size=ranks[len(ranks) // 2], bandwidth=50)


def _curve(ax: Axes, ranks: Sequence[int], gains: Sequence[float]) -> None:
    ax.plot(ranks, ranks, color=FAINT, lw=1, ls="--", label="R times as fast")
    ax.plot(ranks, gains, "-", color=PARTS["compute"], label="step_time")
    ax.axhline(1, color=INK, lw=0.8, ls=":")
    ax.set(xlabel="ranks", ylabel="speed-up over one rank", xscale="log", yscale="log")
    ax.set_xticks(ranks, [str(r) for r in ranks])
    ax.minorticks_off()
    ax.legend(fontsize=9)


def sent_rows(counts_RR: torch.Tensor, title: str = "") -> Figure:
    """How many rows each rank sends to each, counts_RR by sender and receiver, as a table of colours and numbers."""
    size = len(counts_RR)
    leaves = 1 - float(counts_RR.diagonal().sum() / counts_RR.sum())
    fig, ax = plt.subplots(figsize=(1.6 + 0.8 * size, 1.2 + 0.6 * size))
    ax.imshow(counts_RR, cmap="Blues", vmin=0, aspect="auto")
    for sender in range(size):
        for receiver in range(size):
            value = int(counts_RR[sender, receiver])
            dark = value > 0.6 * int(counts_RR.max())
            ax.text(receiver, sender, str(value), ha="center", va="center", color="white" if dark else INK)
    ax.set(title=title or f"{leaves:.0%} of the rows leave their rank", xlabel="to rank", ylabel="from rank")
    ax.set_xticks(range(size))
    ax.set_yticks(range(size))
    ax.tick_params(length=0)
    return fig
