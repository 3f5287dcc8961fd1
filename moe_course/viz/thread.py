"""The figures of the tiny MoE, the same before and after each improvement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_course.viz.routing import routing_table
from moe_course.viz.style import EXPERT_COLORS, FAINT

_COLORS = ("#D55E00", "#0072B2", FAINT, *EXPERT_COLORS[4:])


def tiny_symptom(arms: Mapping[str, Sequence[Any]]) -> Figure:
    """Task loss and router gradient over training; {arm: runs over seeds}. Line: median; band: all seeds."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
    for n, ((name, runs), color) in enumerate(zip(arms.items(), _COLORS, strict=False)):
        width = 3.0 if n == 0 < len(arms) - 1 else 1.5  # seen also where another arm lies on it
        _band(left, [_smooth(run.loss) for run in runs], color, name, width)
        if any(any(run.router_gradient) for run in runs):
            _band(right, [_smooth(run.router_gradient) for run in runs], color, name, width)
    first, *others = arms
    title = f"The loss falls to {_final(arms[first]):.2f}"
    if others:
        title = f"Final loss: {others[0]} {_final(arms[others[0]]):.2f}, {first} {_final(arms[first]):.2f}"
    left.set(title=title, xlabel="step", ylabel="cross-entropy, nats", ylim=(0, None))
    sizes = {name: np.median([np.median(run.router_gradient) for run in runs]) for name, runs in arms.items()}
    right.set(
        title=_of_gradients({name: float(size) for name, size in sizes.items() if size}),
        xlabel="step",
        ylabel="norm of the router's gradient",
        yscale="log",
        ylim=(1e-10, 1),
    )
    left.legend(fontsize=9)
    for ax in (left, right):
        ax.title.set_fontsize(9.5)
    return fig


def _of_gradients(sizes: Mapping[str, float]) -> str:
    """What the panel of gradients shows: how small the smallest is, or whose are larger than rounding."""
    least = min(sizes.values(), default=0.0)
    if least >= 1e-6:
        return f"The router's gradient is about {least:.0e}"
    learning = [name for name, size in sizes.items() if size >= 1e-6]
    if not learning:
        return f"{least:.0e}: rounding, not learning"
    if len(learning) == 1:
        return f"Only the router of {learning[0]} learns"
    return f"{len(learning)} of {len(sizes)} routers learn"


def _final(runs: Sequence[Any]) -> float:
    return float(np.median([run.final_loss for run in runs]))


def _band(ax: Axes, curves: Sequence[np.ndarray], color: str, name: str, width: float = 1.5) -> None:
    stack = np.stack(curves)
    steps = np.arange(stack.shape[1])
    ax.plot(steps, np.median(stack, axis=0), color=color, label=name, lw=width)
    ax.fill_between(steps, stack.min(axis=0), stack.max(axis=0), color=color, alpha=0.2, lw=0)


def _smooth(curve: Sequence[float], width: int = 10) -> np.ndarray:
    return np.convolve(curve, np.ones(width) / width, mode="valid")


def label_tables(tables: Mapping[str, torch.Tensor], label: str = "dialect") -> Figure:
    """Tables of labels by experts side by side, {name: share of each label's words that went to each expert}.

    Each panel says which share of a label's words its most frequent expert gets, as a mean over labels.
    """
    rows, experts = next(iter(tables.values())).shape
    width, height = min(8.0, len(tables) * (0.9 + 0.45 * experts)), 1.1 + 0.3 * rows
    fig, axes = plt.subplots(1, len(tables), figsize=(width, height), sharey=True, squeeze=False)
    favourites = [float(table_GE.max(dim=1).values.mean()) for table_GE in tables.values()]
    for ax, (name, table_GE), share in zip(axes[0], tables.items(), favourites, strict=True):
        routing_table(table_GE, rows=label, title=f"{name}: {share:.0%}", ax=ax)
        ax.label_outer()
    fig.suptitle(
        f"A {label}'s favourite expert takes {favourites[-1]:.0%} of its words, not {favourites[0]:.0%}",
        x=0.01,
        ha="left",
        fontsize=11,
        weight="bold",
    )
    return fig
