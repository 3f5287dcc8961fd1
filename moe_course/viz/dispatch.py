"""Figures of dispatch: assignments before and after the sort, the rows that each layout computes, measured times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path

from moe_course.viz.interact import _Panel
from moe_course.viz.style import FAINT, INK, expert_color, ink_on

Plan = Callable[[torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]]

WAY_STYLE = {
    "loop": ("#D55E00", "o"),
    "one-hot": ("#009E73", "^"),
    "sorted": ("#0072B2", "s"),
    "grouped": ("#CC79A7", "D"),
}
AXIS_LABELS = {
    "tokens": "tokens T",
    "experts": "experts E",
    "d_model": "width D",
    "top_k": "experts per token K",
}


def sorted_assignments(idx_TK: torch.Tensor, order_N: torch.Tensor) -> Figure:
    """Assignments in token order above, and in the order of the plan below; the colour is that of the expert."""
    slots = idx_TK.shape[1]
    expert_of = idx_TK.flatten().tolist()
    fig, ax = plt.subplots(figsize=(8, 2.9))
    for place, n in enumerate(order_N.tolist()):
        color = expert_color(expert_of[n])
        _box(ax, n, 2.0, color, f"t{n // slots}")
        _box(ax, place, 0.0, color, f"t{n // slots}")
        bow = Path([(n, 1.95), (n, 1.3), (place, 1.3), (place, 0.65)], [1, 4, 4, 4])
        ax.add_patch(PathPatch(bow, fill=False, edgecolor=color, lw=2, alpha=0.8))
    start = 0
    for e in sorted(set(expert_of)):
        count = expert_of.count(e)
        ax.annotate(f"expert {e}", (start + count / 2 - 0.5, -0.12), ha="center", va="top", fontsize=9)
        start += count
    ax.set_yticks([2.3, 0.3], ["in token order", "in expert order"])
    ax.set_xticks([])
    ax.set(xlim=(-0.6, len(expert_of) - 0.4), ylim=(-0.55, 2.75))
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    busiest = max(set(expert_of), key=expert_of.count)
    ax.set_title(
        f"{len(expert_of)} assignments, sorted: expert {busiest} finds its {expert_of.count(busiest)} side by side"
    )
    ax.set_xlabel(f"assignments n = {slots}·t + k" if slots > 1 else "assignments", color=INK)
    return fig


def _box(ax: Axes, x: float, y: float, color: str, text: str) -> None:
    shape = FancyBboxPatch(
        (x - 0.38, y), 0.76, 0.6, boxstyle="round,pad=0,rounding_size=0.12", fc=color, ec="white"
    )
    ax.add_patch(shape)
    ax.text(x, y + 0.29, text, ha="center", va="center", color=ink_on(color), fontsize=9, weight="bold")


def layout_rows(counts_E: torch.Tensor, num_tokens: int, top_k: int) -> Figure:
    """The rows of each expert, padded to the longest, and how many rows the experts compute in each layout."""
    counts, experts = counts_E.tolist(), len(counts_E)
    longest, total = max(counts), sum(counts)
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.0), width_ratios=(1.7, 1))
    colors = [expert_color(e) for e in range(experts)]
    left.bar(range(experts), counts, color=colors)
    rest = [longest - count for count in counts]
    left.bar(range(experts), rest, bottom=counts, color="white", edgecolor=FAINT, hatch="////", lw=0.5)
    left.axhline(total / experts, color="black", ls=":", lw=1)
    left.annotate(
        "uniform",
        (experts - 0.5, total / experts),
        (0, 3),
        textcoords="offset points",
        ha="right",
        fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )
    empty = counts.count(0)
    title = (
        f"{1 - total / (experts * longest):.0%} of the padded rows are empty"
        if longest * experts > total
        else "No padding"
    )
    left.set(title=title, xlabel=f"expert ({empty} without rows)", ylabel="rows", xticks=range(experts))
    rows = {"sorted": total, "padded": experts * longest, "one-hot": experts * num_tokens}
    bars = right.barh(
        list(rows), list(rows.values()), color=[WAY_STYLE["sorted"][0], FAINT, WAY_STYLE["one-hot"][0]]
    )
    right.bar_label(bars, [f" {value / total:.1f}×" for value in rows.values()], fontsize=9)
    right.axvline(total, color="black", ls=":", lw=1)
    right.invert_yaxis()
    right.set(
        title=f"One-hot: {experts * num_tokens / total:.3g} times the rows",
        xlabel="rows to compute",
        xlim=(0, 1.25 * max(rows.values())),
    )
    return fig


def skew_explorer(plan: Plan, num_tokens: int = 64, num_experts: int = 8, top_k: int = 2) -> None:
    """A slider for the skew of the routing; counts come from the learner's `plan(idx_TK, num_experts)`."""
    panel = _Panel(lambda skew, experts: _skew_figure(plan, skew, num_tokens, experts, top_k))
    if panel.alive:
        from ipywidgets import FloatSlider, IntSlider

        panel.run(
            skew=FloatSlider(1.0, min=0, max=4, step=0.25, description="skew"),
            experts=IntSlider(num_experts, 2, 16, description="experts"),
        )
    else:
        panel.show(skew=1.0, experts=num_experts)


def _skew_figure(plan: Plan, skew: float, tokens: int, experts: int, top_k: int) -> tuple[Figure, str]:
    """The figure for a skew: the popularity of expert e is 1/(e + 1)^skew; all skews have the same random draws."""
    rng = torch.Generator().manual_seed(3)
    noise_TE = (
        -torch.rand(tokens, 16, generator=rng).log().neg().log()[:, :experts]
    )  # Gumbel: sampling by top-k
    logits_TE = noise_TE - skew * torch.arange(1, experts + 1).log()
    _, counts_E = plan(logits_TE.topk(top_k).indices, experts)
    longest, total = int(counts_E.max()), int(counts_E.sum())
    alt = (
        f"Skew {skew:g}: the busiest of {experts} experts has {longest} of {total} rows; "
        f"padded to that length they compute {experts * longest} rows"
    )
    return layout_rows(counts_E, tokens, top_k), alt


def dispatch_times(sweep: Any, flops: Mapping[int, int] | None = None) -> Figure:
    """The time of training steps by one size, relative to the first dispatch at the first value.

    Bars span the middle half. `flops`, at the same values and relative to the first of them, is a line of its own.
    """
    values, ways = list(sweep.times), sweep.ways
    first, reference = values[0], ways[0]
    unit = sweep.times[first][reference].median
    fig, ax = plt.subplots(figsize=(7, 3.4))
    for way in ways:
        _error_line(ax, sweep, way, unit)
    if flops is not None:
        ax.plot(
            values, [flops[v] / flops[first] for v in values], color=INK, ls=":", label="arithmetic (FLOPs)"
        )
    ax.set_xscale("log", base=2)
    ax.set_xticks(values, [str(value) for value in values])
    ax.set(
        xlabel=AXIS_LABELS.get(sweep.axis, sweep.axis),
        ylabel=f"times the {reference}'s at {first}",
        ylim=(0, None),
        title=_times_title(sweep, flops, values, ways),
    )
    ax.legend(fontsize=9)
    return fig


def _times_title(sweep: Any, flops: Mapping[int, int] | None, values: list[int], ways: list[str]) -> str:
    first, last = values[0], values[-1]
    if len(ways) > 1:
        shares = (f"{way} {sweep.ratio(way, last, (ways[0], last)):.0%}" for way in ways[1:])
        return f"At {last} {sweep.axis}, of the {ways[0]}'s time:\n{', '.join(shares)}"
    growth = sweep.ratio(ways[0], last, (ways[0], first))
    more = 1.0 if flops is None else flops[last] / flops[first]
    work = "the same arithmetic" if more == 1 else f"{more:.3g} times the arithmetic"
    return f"{last / first:.3g} times the {sweep.axis}: {work}, {growth:.0f} times the time"


def dispatch_winners(*sweeps: Any) -> Figure:
    """One panel for each sweep: a training step of each dispatch in milliseconds, with bars over the middle half."""
    fig, axes = plt.subplots(1, len(sweeps), figsize=(8, 3.4), squeeze=False, sharey=True)
    for ax, sweep in zip(axes[0], sweeps, strict=True):
        values = list(sweep.times)
        for way in sweep.ways:
            _error_line(ax, sweep, way, 1e-3)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(values, [str(value) for value in values])
        ax.minorticks_off()
        name = AXIS_LABELS.get(sweep.axis, sweep.axis)
        ends = [f"{v}: {sweep.fastest(v)}" for v in (values[0], values[-1])]
        ax.set_title(f"Fastest at {ends[0]},\nat {ends[1]}", fontsize=10)
        ax.set(xlabel=name)
    axes[0, 0].set(ylabel="training step, ms")
    axes[0, -1].legend(fontsize=8)
    return fig


def _error_line(ax: Axes, sweep: Any, way: str, unit: float) -> None:
    color, marker = WAY_STYLE.get(way, (FAINT, "o"))
    values = [value for value, row in sweep.times.items() if way in row]
    timings = [sweep.times[value][way] for value in values]
    middle = [timing.median / unit for timing in timings]
    low = [max(0.0, m - timing.quartiles[0] / unit) for m, timing in zip(middle, timings, strict=True)]
    high = [max(0.0, timing.quartiles[1] / unit - m) for m, timing in zip(middle, timings, strict=True)]
    ax.errorbar(values, middle, yerr=[low, high], color=color, marker=marker, ms=5, capsize=3, label=way)
