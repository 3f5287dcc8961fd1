"""Figures of notebook 04: loads over training, the arms of the collapse lab side by side, and the balancing loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_course.viz.interact import _Panel
from moe_course.viz.style import FAINT, INK, expert_color

_ARM_COLORS = (INK, "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def load_over_training(panels: Mapping[str, torch.Tensor], columns: int = 4) -> Figure:
    """One panel for each load, {title: load by step and expert}; each band is an expert, the lines are fair shares.

    The number after each title says how many experts have less than a tenth of the fair load over the last 25 steps.
    """
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    fig, axes = plt.subplots(
        rows, columns, figsize=(8, 0.5 + 1.75 * rows), sharex=True, sharey=True, squeeze=False
    )
    dead = {}
    for ax, (name, load) in zip(axes.flat, panels.items(), strict=False):
        experts = load.shape[1]
        dead[name] = int((load[-25:].mean(dim=0) < 0.1 / experts).sum())
        _stack(ax, load)
        ax.set_title(f"{name}: {dead[name]} dead", fontsize=9)
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    for place, ax in enumerate(axes.flat):
        if len(panels) - columns <= place < len(panels):  # the lowest panel of its column
            ax.set_xlabel("step")
            ax.tick_params(labelbottom=True)
    for ax in axes[:, 0]:
        ax.set_ylabel("share of the load")
    most = max(dead, key=lambda name: dead[name])
    with_dead = sum(number > 0 for number in dead.values())
    claim = f"{with_dead} of {len(dead)} end with dead experts; {most} with {dead[most]}"
    if not with_dead:
        claim = "No expert is dead in the end"
    _headline(fig, claim)
    return fig


def collapse_curves(arms: Mapping[str, Any]) -> Figure:
    """Four statistics of the collapse lab's arms over training; line: median over seeds; band: all seeds."""
    fig, axes = plt.subplots(2, 2, figsize=(8, 5.4), sharex=True)
    experts = next(iter(arms.values())).load.shape[-1]
    for (name, runs), color in zip(arms.items(), _ARM_COLORS, strict=False):
        values = (runs.task_loss, runs.violation, runs.entropy, runs.dead_by_step.float())
        for ax, value in zip(axes.flat, values, strict=True):
            _band(ax, value, color, name)
    first = next(iter(arms))
    loss = {name: float(runs.final_loss.median()) for name, runs in arms.items()}
    best = min(loss, key=lambda name: loss[name])
    even = {name: float(runs.final_violation.max()) for name, runs in arms.items()}
    sure = {name: float(runs.final_entropy.median()) for name, runs in arms.items()}
    dead = {name: int(runs.dead.max()) for name, runs in arms.items()}
    surest, worst = min(sure, key=lambda name: sure[name]), max(dead, key=lambda name: dead[name])
    lowest = f"{best} {loss[best]:.3f}" if best != first else "the lowest of all"
    axes[0, 0].set(
        title=f"Task loss: {first} {loss[first]:.3f}, {lowest}",
        ylabel="error / target",
        yscale="log",
    )
    axes[0, 1].set(title=f"{sum(v < 0.6 for v in even.values())} of {len(even)} end below 0.6 on every seed")
    axes[0, 1].set(ylabel="max violation", ylim=(0, experts - 1))
    axes[0, 1].axhline(0.6, color=FAINT, ls=":")
    axes[1, 0].set(title=f"{_capital(surest)} is surest of its choice", xlabel="step", ylabel="entropy, nats")
    axes[1, 0].axhline(math.log(experts), color=FAINT, ls=":")
    axes[1, 0].set_ylim(0, None)
    nobody = "No arm has dead experts in the end"
    axes[1, 1].set(title=f"{_capital(worst)} loses {dead[worst]} experts" if dead[worst] else nobody)
    axes[1, 1].set(xlabel="step", ylabel=f"dead experts of {experts}", ylim=(-0.2, experts))
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    return fig


def arm_scores(arms: Mapping[str, Any], reference: str) -> Figure:
    """Task loss and max violation after training, one dot for each seed; hollow dots have dead experts.

    The line is the median of the arm `reference`; the title compares with it.
    """
    order = sorted(arms, key=lambda name: float(arms[name].final_loss.median()), reverse=True)
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 0.9 + 0.34 * len(order)), sharey=True)
    for y, name in enumerate(order):
        runs = arms[name]
        for loss, violation, dead in zip(runs.final_loss, runs.final_violation, runs.dead, strict=True):
            color = "#D55E00" if dead else "#0072B2"
            style = {"color": color, "mfc": "white" if dead else color, "ms": 7, "mew": 1.6}
            left.plot(float(loss), y, "o", **style)
            right.plot(float(violation), y, "o", **style)
    line = float(arms[reference].final_loss.median())
    better = sum(
        float(runs.final_loss.max()) < float(arms[reference].final_loss.min()) for runs in arms.values()
    )
    left.axvline(line, color=FAINT, ls=":")
    left.set_yticks(range(len(order)), order)
    left.set(
        title=f"{better} of {len(order) - 1} beat {reference} on every seed",
        xlabel="task loss, error / target (logarithmic)",
        xscale="log",
    )
    dead_arms = sum(bool(runs.dead.any()) for runs in arms.values())
    right.set(title=f"{dead_arms} have dead experts (hollow)", xlabel="max violation, 0 is even")
    right.axvline(0, color=FAINT, ls=":")
    return fig


def loss_against_load(shares: Sequence[float], losses: Mapping[str, Sequence[float]]) -> Figure:
    """The balancing loss of two experts by the share f of the first; {how P depends on f: loss at each share}."""
    fig, ax = plt.subplots(figsize=(6, 3))
    for (name, values), color in zip(losses.items(), _ARM_COLORS[1:], strict=False):
        ax.plot(shares, values, color=color, label=name)
    least = min(min(values) for values in losses.values())
    ax.axhline(1, color=FAINT, ls=":")
    ax.axvline(0.5, color=FAINT, ls=":")
    ax.set(
        title=f"Uniform routing gives 1, and {least:.2f} is possible",
        xlabel="share of the assignments that go to expert 0",
        ylabel="load-balancing loss",
    )
    ax.legend(fontsize=9)
    return fig


def tiny_loads(arms: Mapping[str, Sequence[Any]]) -> Figure:
    """Load of the tiny MoE over training, a row for each arm, a column for each seed; the numbers are of the end."""
    columns = len(next(iter(arms.values())))
    fig, axes = plt.subplots(
        len(arms), columns, figsize=(8, 0.6 + 1.65 * len(arms)), sharex=True, sharey=True, squeeze=False
    )
    worst = {}
    for row, (name, runs) in zip(axes, arms.items(), strict=True):
        violations = [float(run.load_E.max() * len(run.load_E) - 1) for run in runs]
        worst[name] = max(violations)
        for ax, run, violation in zip(row, runs, violations, strict=True):
            _stack(ax, torch.stack(run.load))
            ax.set_title(f"seed {run.seed}: violation {violation:.2f}, loss {run.final_loss:.2f}", fontsize=9)
        row[0].set_ylabel(f"{name}\nshare of the words", fontsize=9)
    for ax in axes[-1]:
        ax.set_xlabel("step")
    claims = [f"{name} {value:.2f}" for name, value in worst.items()]
    _headline(fig, f"Largest max violation: {', '.join(claims)}")
    return fig


RATES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
WEIGHTS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def balance_explorer(train: Callable[[float, float], Any]) -> None:
    """Sliders for the rate of the bias and the weight of the loss; they call `train(rate, weight)`, which trains one.

    Each setting is trained only once. The static figure shows a rate of 0.01 without the loss.
    """
    done: dict[tuple[float, float], Any] = {}

    def runs_of(rate: float, weight: float) -> Any:
        if (rate, weight) not in done:
            done[rate, weight] = train(rate, weight)
        return done[rate, weight]

    panel = _Panel(
        lambda rate, weight: _explorer_figure(runs_of(0.0, 0.0), runs_of(rate, weight), rate, weight)
    )
    if panel.alive:
        from ipywidgets import SelectionSlider

        panel.run(
            rate=SelectionSlider(options=RATES, value=0.01, description="bias rate", continuous_update=False),
            weight=SelectionSlider(
                options=WEIGHTS, value=0.0, description="loss weight", continuous_update=False
            ),
        )
    else:
        panel.show(rate=0.01, weight=0.0)


def _explorer_figure(plain: Any, helped: Any, rate: float, weight: float) -> tuple[Figure, str]:
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
    _stack(left, helped.load[0])
    violation, loss = float(helped.final_violation[0]), float(helped.final_loss[0])
    left.set(
        title=f"Max violation {violation:.2f}, {int(helped.dead[0])} dead",
        xlabel="step",
        ylabel="share of the load",
    )
    _band(right, plain.task_loss[:1], FAINT, "no help")
    _band(right, helped.task_loss[:1], "#0072B2", f"rate {rate:g}, weight {weight:g}")
    right.set(
        title=f"Task loss {loss:.3f}, without help {float(plain.final_loss[0]):.3f}",
        xlabel="step",
        ylabel="error / target",
        yscale="log",
    )
    right.legend(fontsize=9)
    return fig, f"Load and task loss for a bias rate of {rate:g} and a loss weight of {weight:g}"


OFFSETS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)


def offset_explorer(train: Callable[[float], tuple[Any, Any]]) -> None:
    """A slider for what all points of the collapse lab have in common.

    `train(offset)` gives the runs without help and those that route by a hash. Settings that were tried stay in the
    figure, which begins with 0 and 1.
    """
    done = {offset: train(offset) for offset in (0.0, 1.0)}

    def figure(offset: float) -> tuple[Figure, str]:
        if offset not in done:
            done[offset] = train(offset)
        return _offset_figure(done, offset)

    panel = _Panel(figure)
    if panel.alive:
        from ipywidgets import SelectionSlider

        panel.run(
            offset=SelectionSlider(options=OFFSETS, value=1.0, description="offset", continuous_update=False)
        )
    else:
        panel.show(offset=1.0)


def _offset_figure(done: Mapping[float, tuple[Any, Any]], offset: float) -> tuple[Figure, str]:
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3))
    for value, (alone, by_hash) in sorted(done.items()):
        places = [value + 0.015 * (n - (len(alone.seeds) - 1) / 2) for n in range(len(alone.seeds))]
        left.plot(places, alone.dead, "o", color="#0072B2")
        right.plot(places, alone.final_loss, "o", color="#0072B2", label="no help")
        right.plot(places, by_hash.final_loss, "x", color=INK, label="hash")
    alone, by_hash = done[offset]
    experts, seeds = alone.load.shape[-1], len(alone.seeds)
    mean, wins = float(alone.dead.float().mean()), int((alone.final_loss < by_hash.final_loss).sum())
    left.set(
        title=f"Offset {offset:g}: {mean:.1f} of {experts} experts dead",
        xlabel="offset",
        ylabel="dead experts, a dot a seed",
        ylim=(-0.3, experts + 0.3),
    )
    right.set(
        title=f"The router beats a hash on {wins} of {seeds} seeds",
        xlabel="offset",
        ylabel="task loss: error / target",
        ylim=(0, None),
    )
    handles, labels = right.get_legend_handles_labels()
    right.legend(handles[:2], labels[:2], fontsize=9)
    return fig, f"Dead experts and task loss of {seeds} seeds by the size of the common offset"


def _smooth(values: torch.Tensor, width: int = 10) -> tuple[list[float], torch.Tensor]:
    """Means over `width` neighbouring steps (the first axis), and their steps; at most about 100 of them."""
    width = min(width, len(values))
    stride = max(1, len(values) // 100)
    means = values.float().unfold(0, width, stride).mean(dim=-1)
    return [(width - 1) / 2 + stride * n for n in range(len(means))], means


def _stack(ax: Axes, load: torch.Tensor) -> None:
    """The load by step and expert as a stack of bands, with white lines at the fair shares."""
    experts = load.shape[1]
    steps, means = _smooth(load)
    ax.stackplot(steps, means.T.numpy(), colors=[expert_color(e) for e in range(experts)], lw=0)
    for share in range(1, experts):
        ax.axhline(share / experts, color="white", lw=0.6, ls=":")
    ax.set(xlim=(steps[0], max(steps[-1], steps[0] + 1)), ylim=(0, 1))


def _band(ax: Axes, values: torch.Tensor, color: str, name: str) -> None:
    """Values by run and step: the median over the runs as a line, and all of them as a band."""
    steps, means = _smooth(values.T)
    ax.plot(steps, means.median(dim=1).values, color=color, label=name, lw=1.4)
    low, high = means.amin(dim=1).numpy(), means.amax(dim=1).numpy()
    ax.fill_between(steps, low, high, color=color, alpha=0.18, lw=0)


def _headline(fig: Figure, text: str) -> None:
    fig.suptitle(text, x=0.01, ha="left", fontsize=11, weight="bold")


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"
