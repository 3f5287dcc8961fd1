"""Figures of notebook 07: a run during training, and the arms of the experiment side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from moe_course.viz.style import FAINT, INK, expert_color

if TYPE_CHECKING:
    from moe_course.lm.experiment.paired import Paired

ARM_COLORS = {"moe": "#D55E00", "dense-active": "#0072B2", "dense-total": "#009E73"}
_OTHERS = ("#CC79A7", "#E69F00", "#56B4E9", INK)

Result = Mapping[str, Any]


def progress(records: Sequence[Mapping[str, Any]], name: str, steps: int) -> Figure:
    """A run so far, from its log: the loss, and below it the load of each MoE layer by step (a band is an expert)."""
    loads_NLE = [record["load_LE"] for record in records if record.get("load_LE")]
    layers = len(loads_NLE[0]) if loads_NLE else 0
    fig, axes = plt.subplots(1, 1 + layers, figsize=(8, 2.6), width_ratios=[2, *[1] * layers], squeeze=False)
    ax = axes[0, 0]
    ax.plot([r["step"] for r in records], [r["ce"] for r in records], color=FAINT, lw=1, label="batch")
    held_out = [(r["step"], r["held_out_ce"]) for r in records if "held_out_ce" in r]
    if held_out:
        ax.plot(*zip(*held_out, strict=True), "o-", color=INK, ms=3, label="held out")
        ax.legend(fontsize=8)
    done = records[-1]["step"] + 1 if records else 0
    ax.set(
        xlim=(0, steps),
        xlabel="step",
        ylabel="CE, nats per token",
    )
    fig.suptitle(f"{name}: {_remaining(records, steps)}", x=0.01, ha="left", fontsize=11, fontweight="bold")
    at = [record["step"] for record in records if record.get("load_LE")]
    for layer in range(layers):
        ax = axes[0, 1 + layer]
        bands = np.array([load_LE[layer] for load_LE in loads_NLE]).T
        ax.stackplot(at, bands, colors=[expert_color(e) for e in range(len(bands))])
        for line in np.arange(1, len(bands)) / len(bands):
            ax.axhline(line, color="white", lw=0.5, ls=":")
        ax.set(xlim=(0, max(done, 1)), ylim=(0, 1), yticks=[], xticks=[])
        ax.set_title(f"load, layer {layer}", fontsize=9)
    return fig


def training_curves(results: Sequence[Result], seconds: bool = True) -> Figure:
    """Held-out CE of runs by steps, training FLOPs and processor seconds; runs with the same name have one colour.

    A line ends where its run ended. seconds: False leaves them out; they can be compared only between runs that
    were made on one machine under one load.
    """
    labels = ("steps", "training TFLOPs", "seconds of processor time")[: 3 if seconds else 2]
    fig, axes = plt.subplots(1, len(labels), figsize=(8, 3.1), sharey=True)
    names = list(dict.fromkeys(result["recipe"]["name"] for result in results))
    colors = _colors(names)
    for result in results:
        name = result["recipe"]["name"]
        for ax, xs in zip(axes, _axes_of(result)[: len(labels)], strict=True):
            ys = [point["held_out_ce"] for point in result["curve"]]
            ax.plot(xs, ys, color=colors[name], lw=1, alpha=0.85)
    last = [point for result in results for point in result["curve"][2:]]
    top = float(np.quantile([point["held_out_ce"] for point in last], 0.9)) if last else None
    for ax, label in zip(axes, labels, strict=True):
        ax.set(xlabel=label, ylim=(None, top))
    axes[0].set_ylabel("held-out CE, nats per token")
    handles = [plt.Line2D([], [], color=colors[name], label=name) for name in names]
    fig.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
    fig.suptitle(_ranking(results), x=0.01, ha="left", fontsize=11, fontweight="bold", wrap=True)
    return fig


def directions(matrices: Mapping[str, Tensor]) -> Figure:
    """The singular values of matrices, each divided by the largest of its matrix, in falling order."""
    fig, ax = plt.subplots(figsize=(7, 3))
    shares = {}
    for (name, matrix_RC), color in zip(matrices.items(), _OTHERS[::-1], strict=False):
        values = torch.linalg.svdvals(matrix_RC)
        ax.plot((values / values[0]).numpy(), "o-", ms=3, color=color, label=name)
        shares[name] = float(values.median() / values[0])
    ax.set(xlabel="direction, the strongest first", ylabel="length, share of the longest", ylim=(0, 1.05))
    ax.legend(fontsize=9)
    flattest = max(shares, key=shares.__getitem__)
    ax.set_title(f"{flattest}: the median direction is {shares[flattest]:.0%} as long as the longest")
    return fig


def paired_gaps(gaps: Mapping[str, Paired], label: str) -> Figure:
    """Differences by name, the first on top: a dot for each seed, and the mean with its 95 % interval.

    A name is in colour if its interval excludes 0 and all seeds agree, else it is grey.
    """
    fig, ax = plt.subplots(figsize=(7, 0.9 + 0.4 * len(gaps)))
    ax.axvline(0, color=INK, lw=0.8)
    for y, gap in enumerate(reversed(list(gaps.values()))):
        color = ARM_COLORS["moe"] if gap.decided else FAINT
        ax.errorbar(gap.mean, y, xerr=gap.half_width, fmt="|", color=color, capsize=4, lw=2, ms=12)
        ax.plot(gap.differences, [y + 0.2] * len(gap.differences), "o", color=INK, ms=3)
    ax.set_yticks(range(len(gaps)), list(reversed(list(gaps))))
    ax.set_ylim(-0.5, len(gaps) - 0.3)
    ax.set_xlabel(label)
    ax.set_title(f"{sum(gap.decided for gap in gaps.values())} of {len(gaps)} differences are decided")
    return fig


def domain_gaps(by_arm: Mapping[str, Sequence[Result]], reference: str = "dense-active") -> Figure:
    """The bits per byte that each arm saves over `reference` on the test split, by domain. Bar: mean; dots: seeds."""
    others = [arm for arm in by_arm if arm != reference]
    domains = list(by_arm[reference][0]["by_domain"])
    fig, ax = plt.subplots(figsize=(7, 3))
    width, sure = 0.8 / len(others), {}
    for place, arm in enumerate(others):
        pairs = list(zip(by_arm[reference], by_arm[arm], strict=True))
        gains_SG = np.array(
            [
                [base["by_domain"][d]["bpb"] - run["by_domain"][d]["bpb"] for d in domains]
                for base, run in pairs
            ]
        )
        xs = np.arange(len(domains)) + (place - (len(others) - 1) / 2) * width
        ax.bar(xs, gains_SG.mean(axis=0), width * 0.9, color=ARM_COLORS[arm], label=arm, alpha=0.75)
        for gains in gains_SG:
            ax.plot(xs, gains, "o", color=INK, ms=3)
        sure[arm] = [d for d, gains in zip(domains, gains_SG.T, strict=True) if gains.min() > 0]
    ax.axhline(0, color=INK, lw=0.8)
    ax.set_xticks(range(len(domains)), domains)
    ax.set_ylabel(f"bits per byte below {reference}")
    ax.set_title(f"{others[0]} gains on every seed: {', '.join(sure[others[0]]) or 'in no domain'}")
    ax.legend(fontsize=9)
    return fig


def _axes_of(result: Result) -> tuple[list[float], list[float], list[float]]:
    """The steps, TFLOPs and seconds of the points of a curve."""
    recipe = result["recipe"]
    per_step = recipe["batch_size"] * recipe["model"]["context"] * result["flops_per_token"] / 1e12
    steps = [point["step"] + 1 for point in result["curve"]]
    return steps, [step * per_step for step in steps], [point["cpu_seconds"] for point in result["curve"]]


def _colors(names: Sequence[str]) -> dict[str, str]:
    others = [name for name in names if name not in ARM_COLORS]
    return ARM_COLORS | {name: _OTHERS[i % len(_OTHERS)] for i, name in enumerate(others)}


def _ranking(results: Sequence[Result]) -> str:
    """The names from the lowest test loss to the highest, by the mean over seeds, of the runs that have ended."""
    losses: dict[str, list[float]] = {}
    for result in results:
        if result["ce"] is not None:
            losses.setdefault(result["recipe"]["name"], []).append(result["ce"])
    if not losses:
        return "No run has ended yet"
    order = sorted(losses, key=lambda name: float(np.mean(losses[name])))
    return "Test CE: " + ", ".join(f"{name} {np.mean(losses[name]):.3f}" for name in order)


def _remaining(records: Sequence[Mapping[str, Any]], steps: int) -> str:
    """How far a run is, and how long the rest will take at the same speed."""
    if not records:
        return "starting"
    done, seconds = records[-1]["step"] + 1, records[-1]["seconds"]
    if done >= steps:
        return f"done in {seconds:.0f} s"
    return f"step {done} of {steps}, {seconds / done * (steps - done):.0f} s to go"
