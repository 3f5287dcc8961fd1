"""The tiny MoE's plots: the same picture before and after each fix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_course.viz.style import EXPERT_COLORS, FAINT

_COLORS = ("#D55E00", "#0072B2", FAINT, *EXPERT_COLORS[4:])


def tiny_symptom(arms: Mapping[str, Sequence[Any]]) -> Figure:
    """Task loss and router gradient over training; {arm: runs over seeds}. Line: median, band: all seeds."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
    for (name, runs), color in zip(arms.items(), _COLORS, strict=False):
        _band(left, [_smooth(run.loss) for run in runs], color, name)
        if any(any(run.router_gradient) for run in runs):
            _band(right, [_smooth(run.router_gradient) for run in runs], color, name)
    first, last = next(iter(arms.values())), list(arms.values())[-1]
    title = f"The loss falls to {_final(first):.2f}"
    if first is not last:
        names = list(arms)
        title = f"{names[1]}: {_final(arms[names[1]]):.2f}, {names[0]}: {_final(first):.2f}"
    left.set(title=title, xlabel="step", ylabel="cross-entropy of the answers, nats")
    sizes = {name: np.median([np.median(run.router_gradient) for run in runs]) for name, runs in arms.items()}
    least = min((size for size in sizes.values() if size), default=0)
    right.set(
        title=f"A router gradient of {least:.0e} is rounding",
        xlabel="step",
        ylabel="norm of the router's gradient",
        yscale="log",
        ylim=(1e-10, 1),
    )
    left.legend(fontsize=9)
    return fig


def _final(runs: Sequence[Any]) -> float:
    return float(np.median([run.final_loss for run in runs]))


def _band(ax: Axes, curves: Sequence[np.ndarray], color: str, name: str) -> None:
    stack = np.stack(curves)
    steps = np.arange(stack.shape[1])
    ax.plot(steps, np.median(stack, axis=0), color=color, label=name)
    ax.fill_between(steps, stack.min(axis=0), stack.max(axis=0), color=color, alpha=0.2, lw=0)


def _smooth(curve: Sequence[float], width: int = 10) -> np.ndarray:
    return np.convolve(curve, np.ones(width) / width, mode="valid")
