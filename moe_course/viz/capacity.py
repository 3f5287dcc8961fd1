"""Figures of capacity: queues with a limit, which tokens are dropped, what capacity costs, and which layers leak."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_course.moe.counts import expert_counts
from moe_course.viz.interact import _Panel
from moe_course.viz.style import EXPERT_COLORS, FAINT, INK, expert_color, ink_on
from moe_course.viz.thread import _band, _smooth

_ARMS = (FAINT, "#D55E00", "#0072B2", "#009E73")
_FILLS = ("#0072B2", "#E69F00", "#009E73")


def queues(
    pos_TK: torch.Tensor, idx_TK: torch.Tensor, capacity: int, num_experts: int, title: str = ""
) -> Figure:
    """The queue of each expert, from bottom to top: token and choice in each place. Dropped ones are hatched."""
    height = 1.3 + 0.33 * (int(pos_TK.max()) + 1)
    fig, ax = plt.subplots(figsize=(1.2 + 1.1 * num_experts, height))
    for (t, k), place in np.ndenumerate(pos_TK.numpy()):
        expert, late = int(idx_TK[t, k]), place >= capacity
        color = expert_color(expert)
        fill, hatch, ink = ("white", "///", INK) if late else (color, "", ink_on(color))
        ax.bar(expert, 0.92, bottom=place, color=fill, edgecolor=color, hatch=hatch)
        patch = {"facecolor": "white", "edgecolor": "none", "pad": 1.5} if late else None
        ax.text(
            expert, place + 0.46, f"{t} · {'1st' if k == 0 else '2nd'}", ha="center", va="center", color=ink,
            fontsize=9, bbox=patch,
        )  # fmt: skip
    ax.axhline(capacity - 0.04, color="black", ls=":", label=f"capacity {capacity}")
    dropped = int((pos_TK >= capacity).sum())
    ax.set_xticks(range(num_experts))
    ax.set_yticks(range(int(pos_TK.max()) + 1))
    ax.set(
        title=f"{title}{': ' if title else ''}{dropped} of {pos_TK.numel()} dropped",
        xlabel="expert",
        ylabel="place in the queue",
        xlim=(-0.6, num_experts - 0.4),
    )
    ax.legend(fontsize=9)
    return fig


def capacity_symptom(
    arms: Mapping[str, Sequence[Any]], focus: str | None = None, tokens_per_line: int = 6
) -> Figure:
    """The loss, and the drop rate by line of the batch; {arm: runs over seeds}. Line: median; band: all seeds.

    The titles compare the arm `focus` (by default the last one) with the first arm.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.3))
    first, focus = next(iter(arms)), focus or list(arms)[-1]
    by_line = {name: [_lines(run.dropped_T, tokens_per_line) for run in runs] for name, runs in arms.items()}
    for (name, runs), color in zip(arms.items(), _ARMS, strict=False):
        _band(left, [_smooth(run.loss) for run in runs], color, name)
        _band(right, by_line[name], color, name)
    ends = {name: float(np.median([run.final_loss for run in runs])) for name, runs in arms.items()}
    rates, quarter = np.median(by_line[focus], axis=0), len(by_line[focus][0]) // 4
    left.set(
        title=f"Final loss {ends[focus]:.2f} with {focus},\n{ends[first]:.2f} with {first}",
        xlabel="step",
        ylabel="cross-entropy, nats",
        ylim=(0, None),
    )
    right.set(
        title=f"With {focus}: {rates[:quarter].mean():.0f}% of the\n"
        f"first lines are dropped, {rates[-quarter:].mean():.0f}% of the last",
        xlabel="line of the batch",
        ylabel="assignments dropped, %",
        ylim=(-2, 100),
    )
    left.legend(fontsize=9)
    for ax in (left, right):
        ax.title.set_fontsize(10)
    return fig


def _lines(dropped_T: torch.Tensor, tokens_per_line: int) -> np.ndarray:
    return 100 * dropped_T.view(-1, tokens_per_line).mean(dim=1).numpy()


def loss_against_drops(arms: Mapping[str, Sequence[Any]]) -> Figure:
    """The final loss by the share of assignments dropped, one dot for each run."""
    fig, ax = plt.subplots(figsize=(5.5, 3))
    for (name, runs), color, marker in zip(arms.items(), _ARMS, "osD^", strict=False):
        xs, ys = [100 * run.drop_rate for run in runs], [run.final_loss for run in runs]
        ax.plot(
            xs, ys, marker, color=color, mfc="none", mew=1.5, label=name
        )  # hollow: equal runs stay visible
    dots = [(run.drop_rate, run.final_loss) for runs in arms.values() for run in runs]
    r = float(np.corrcoef(np.array(dots).T)[0, 1])
    ax.set(
        title=f"Loss and drops correlate by {r:.2f} over {len(dots)} runs",
        xlabel="assignments dropped, %",
        ylabel="final loss, nats",
    )
    ax.legend(fontsize=9)
    return fig


def dropped_by(
    groups: Mapping[str, Mapping[str, Sequence[float]]], labels: Mapping[str, Sequence[str]]
) -> Figure:
    """Which tokens are dropped, one panel for each grouping: {grouping: {fill: drop rate of each group}}."""
    fig, axes = plt.subplots(1, len(groups), figsize=(8, 3.1), sharey=True)
    for ax, (grouping, rates) in zip(np.atleast_1d(axes), groups.items(), strict=True):
        _grouped_bars(ax, rates, labels[grouping])
        worst = max(rates, key=lambda fill: max(rates[fill]) - min(rates[fill]))
        low, high = min(rates[worst]), max(rates[worst])
        ax.set(title=f"{worst}:\n{low:.0%} to {high:.0%} dropped", xlabel=grouping)
        ax.title.set_fontsize(10)
        ax.label_outer()
    np.atleast_1d(axes)[0].set_ylabel("assignments dropped, %")
    np.atleast_1d(axes)[-1].legend(fontsize=8)
    return fig


def _grouped_bars(ax: Axes, rates: Mapping[str, Sequence[float]], labels: Sequence[str]) -> None:
    width = 0.8 / len(rates)
    for n, ((fill, values), color) in enumerate(zip(rates.items(), _FILLS, strict=False)):
        xs = [i + (n - (len(rates) - 1) / 2) * width for i in range(len(values))]
        ax.bar(xs, [100 * value for value in values], width, color=color, label=fill)
    ax.set_xticks(range(len(labels)), labels)


def overflow_curves(
    factors: Sequence[float],
    measured: Mapping[str, Mapping[str, torch.Tensor]],
    exact: Mapping[str, Sequence[float]],
    law: Mapping[str, float],
) -> Figure:
    """Drops and padding by the factor: {K: {"dropped" or "empty": (rounds, factors)}}; the lines are exact values.

    Crosses mark the values of the `law` at factor 1.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.3))
    at_one = min(range(len(factors)), key=lambda i: abs(factors[i] - 1))
    for (name, parts), color in zip(measured.items(), EXPERT_COLORS, strict=False):
        left.plot(factors, [100 * value for value in exact[name]], color=color, lw=1)
        left.plot(1, 100 * law[name], "x", color="black", ms=9, zorder=3)
        for ax, part in ((left, "dropped"), (right, "empty")):
            values = 100 * parts[part]
            ax.errorbar(
                factors,
                values.mean(0),
                values.std(0, correction=0),
                fmt="o",
                ms=4,
                capsize=2,
                color=color,
                label=name,
            )
    shares = [f"{float(parts['dropped'][:, at_one].mean()):.2%}" for parts in measured.values()]
    waste = [f"{float(parts['empty'][:, -1].mean()):.0%}" for parts in measured.values()]
    left.set(
        title=f"Even routing, factor {factors[at_one]:g}:\n{' and '.join(shares)} dropped",
        ylabel="assignments dropped, %",
    )
    right.set(
        title=f"Factor {factors[-1]:g}:\n{' and '.join(waste)} of the slots empty", ylabel="slots empty, %"
    )
    for ax in (left, right):
        ax.axvline(1, color="black", ls=":", lw=1)
        ax.set_xlabel("capacity factor")
        ax.set_ylim(0, None)
        ax.title.set_fontsize(10)
    left.legend(
        fontsize=9, title="dots measured, lines exact,\ncrosses the law at factor 1", title_fontsize=8
    )
    return fig


def leak_table(found: Mapping[str, Mapping[str, bool]]) -> Figure:
    """A table of layers by questions; a cell is filled if the layer leaks."""
    rows, columns = list(found), list(next(iter(found.values())))
    fig, ax = plt.subplots(figsize=(2.3 + 1.5 * len(columns), 1.0 + 0.36 * len(rows)))
    values = np.array([[found[row][column] for column in columns] for row in rows], dtype=float)
    ax.imshow(values, cmap="Oranges", vmin=0, vmax=1.6, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        ax.text(column, row, "leaks" if value else "no", ha="center", va="center")
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    sums = ", ".join(str(int(total)) for total in values.sum(0))
    ax.set(title=f"{sums} of {len(rows)} layers leak", xlabel="question")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return fig


def capacity_explorer(
    expert_capacity: Callable[..., int],
    drop_and_waste: Callable[..., tuple[float, float]],
    tokens: int = 256,
    experts: int = 8,
) -> None:
    """Sliders for factor, K and skew; they call the learner's two functions."""

    def draw(factor: float, k: int, skew: float) -> tuple[Figure, str]:
        rng = torch.Generator().manual_seed(5)
        popularity_E = torch.exp(-skew * torch.arange(experts) / experts)
        idx_TK = torch.multinomial(popularity_E.expand(tokens, -1), k, generator=rng)
        room = expert_capacity(tokens, experts, k, factor)
        return _room_figure(idx_TK, experts, room, factor, drop_and_waste(idx_TK, experts, room))

    panel = _Panel(draw)
    if panel.alive:
        from ipywidgets import FloatSlider, IntSlider

        panel.run(
            factor=FloatSlider(1.0, min=0.25, max=3.0, step=0.05, description="factor"),
            k=IntSlider(2, 1, 4, description="K"),
            skew=FloatSlider(1.0, min=0.0, max=4.0, step=0.25, description="skew"),
        )
    else:
        panel.show(factor=1.0, k=2, skew=1.0)


def _room_figure(
    idx_TK: torch.Tensor, experts: int, room: int, factor: float, shares: tuple[float, float]
) -> tuple[Figure, str]:
    counts = expert_counts(idx_TK, experts).tolist()
    fig, ax = plt.subplots(figsize=(6.5, 3))
    for e, count in enumerate(counts):
        color = expert_color(e)
        ax.bar(e, min(count, room), color=color, edgecolor=color)
        ax.bar(e, max(0, count - room), bottom=room, color="white", edgecolor=color, hatch="///")
        ax.bar(e, max(0, room - count), bottom=count, color="white", edgecolor=FAINT, ls=":")
    ax.axhline(room, color="black", ls="--", lw=1, label=f"capacity {room}")
    ax.axhline(idx_TK.numel() / experts, color="black", ls=":", lw=1, label="fair share")
    ax.set_xticks(range(experts))
    ax.set(
        title=f"Factor {factor:g}: {shares[0]:.0%} of the assignments dropped, {shares[1]:.0%} of the slots empty",
        xlabel="expert",
        ylabel="assignments",
        ylim=(0, 1.12 * max(room, *counts)),
    )
    ax.legend(fontsize=9, ncols=2, loc="upper right")
    return fig, (
        f"Experts chosen {counts} times, each with room for {room}: above the line hatched, dropped; below it empty"
    )
