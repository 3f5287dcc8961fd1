"""Figures of notebook 06: how published layers changed over time, routing in groups, and other designs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from moe_course.viz.interact import _Panel
from moe_course.viz.style import ACTIVE, EXPERT_COLORS, FAINT, INK, expert_color

_ARMS = ("#0072B2", "#D55E00", "#009E73", FAINT, *EXPERT_COLORS[4:])


def split_symptom(runs: Mapping[str, Any], losses: Mapping[str, Sequence[float]]) -> Figure:
    """One run of each arm over training, {arm: run}, and the final losses of many seeds, {arm: one for each seed}.

    A grey line joins the runs of a seed. The right title compares the last arm with the one above it, by seed.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.3), width_ratios=(1.05, 1))
    for (name, run), color in zip(runs.items(), _ARMS, strict=False):
        left.plot(np.convolve(run.loss, np.ones(20) / 20, mode="valid"), color=color, label=name)
    left.set(title="One seed", xlabel="step", ylabel="cross-entropy, nats", yscale="log")
    left.legend(fontsize=9)
    for of_seed in zip(*losses.values(), strict=True):
        right.plot(of_seed, range(len(of_seed)), color=FAINT, lw=0.7, alpha=0.7, zorder=0)
    for row, (values, color) in enumerate(zip(losses.values(), _ARMS, strict=False)):
        right.plot(values, [row] * len(values), "o", color=color, alpha=0.8, ms=5)
    *_, before, last = losses
    seeds = len(losses[last])
    higher = sum(one > two for one, two in zip(losses[last], losses[before], strict=True))
    where, count = ("Higher", higher) if 2 * higher >= seeds else ("Lower", seeds - higher)
    right.set(
        title=f"{where} than above: {count} of {seeds}",
        xlabel=f"final loss of {seeds} seeds, nats",
        xlim=(0, None),
        ylim=(len(losses) - 0.5, -0.5),
    )
    right.set_yticks(range(len(losses)), [name.replace(" and ", "\nand ") for name in losses])
    return fig


def frozen_twins(losses: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Final losses with a router that learns and with its frozen twin, {arm: {"learned": …, "frozen": …}} by seed.

    Each short line is a seed, from the frozen run (open) to the one that learned to route (filled).
    """
    fig, ax = plt.subplots(figsize=(8, 0.9 + 0.65 * len(losses)))
    lower = []
    for row, ((_, twins), color) in enumerate(zip(losses.items(), _ARMS, strict=False)):
        pairs = list(zip(twins["learned"], twins["frozen"], strict=True))
        places = row + np.linspace(-0.32, 0.32, len(pairs))
        for y, (learned, frozen) in zip(places, pairs, strict=True):
            ax.plot([frozen, learned], [y, y], color=color, lw=1, alpha=0.6)
        ax.plot([frozen for _, frozen in pairs], places, "o", color=color, mfc="white", ms=4)
        ax.plot([learned for learned, _ in pairs], places, "o", color=color, ms=4)
        lower.append(sum(learned < frozen for learned, frozen in pairs))
    seeds = len(next(iter(losses.values()))["learned"])
    ax.set(
        title=f"Learning to route lowers the loss with {', '.join(map(str, lower))} of {seeds} seeds",
        xlabel="final loss, nats (open: frozen router; filled: router that learned)",
        xlim=(0, None),
        ylim=(len(losses) - 0.5, -0.5),
    )
    ax.set_yticks(range(len(losses)), list(losses))
    return fig


def timeline(releases: Iterable[Any]) -> Figure:
    """Published models in the order of their release: experts in a layer, and the width of one in model widths."""
    ordered = list(releases)
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 0.9 + 0.26 * len(ordered)), sharey=True)
    counts = [release.sizes.num_experts for release in ordered]
    widths = [release.sizes.width for release in ordered]
    for ax, values in ((left, counts), (right, widths)):
        ax.plot(values, range(len(values)), color=FAINT, lw=0.8, ls=":", zorder=0)
        for row, (release, value) in enumerate(zip(ordered, values, strict=True)):
            fill = ACTIVE if release.sizes.shared else "white"
            ax.plot(value, row, "o", ms=8, color=ACTIVE, mfc=fill, mew=2)
        ax.set(xscale="log", ylim=(len(ordered) - 0.4, -0.6))
    dots = [left.plot([], [], "o", color=ACTIVE, mfc=fill, mew=2)[0] for fill in (ACTIVE, "white")]
    left.legend(dots, ["with a shared expert", "without"], loc="lower left", fontsize=9)
    left.set_yticks(range(len(ordered)), [f"{release.name}, {release.month}" for release in ordered])
    left.set(title=f"From {counts[0]} experts to {max(counts)}", xlabel="experts in a layer")
    left.set_xticks([8, 16, 32, 64, 128, 256, 512], ["8", "16", "32", "64", "128", "256", "512"], minor=False)
    title = f"From {widths[0]:.1f} model widths to {min(widths):.2g}"
    right.set(title=title, xlabel="width of one expert, in model widths")
    right.set_xticks([0.25, 0.5, 1, 2, 4], ["1/4", "1/2", "1", "2", "4"])
    for ax in (left, right):
        ax.minorticks_off()
    return fig


def group_choice(
    biased_E: torch.Tensor, free_K: torch.Tensor, limited_K: torch.Tensor, num_groups: int
) -> Figure:
    """One token's biased scores by group: the experts chosen among all, and those chosen within the best groups."""
    experts = len(biased_E)
    size = experts // num_groups
    free, limited = ({int(e) for e in idx} for idx in (free_K, limited_K))
    fig, ax = plt.subplots(figsize=(8, 2.8))
    for e, score in enumerate(biased_E.tolist()):
        color = expert_color(e // size)
        ax.bar(e, score, color=color if e in limited else "white", edgecolor=color)
        if e in free:
            ax.plot(e, score + 0.05, "v", color=INK, ms=5)
    for g in range(1, num_groups):
        ax.axvline(g * size - 0.5, color=FAINT, lw=0.8, ls=":")
    nodes = [len({e // size for e in chosen}) for chosen in (free, limited)]
    ax.set(
        title=f"{len(free - limited)} of {len(free)} experts change: {nodes[1]} groups instead of {nodes[0]}",
        xlabel="expert, in groups of neighbours (triangle: chosen without the limit; filled: chosen with it)",
        ylabel="biased score",
        xlim=(-0.7, experts - 0.3),
    )
    ax.set_xticks(
        [g * size + (size - 1) / 2 for g in range(num_groups)], [f"group {g}" for g in range(num_groups)]
    )
    ax.tick_params(axis="x", length=0)
    return fig


def group_explorer(
    choose: Callable[..., torch.Tensor], scores_E: torch.Tensor, bias_E: torch.Tensor, num_groups: int, k: int
) -> None:
    """A slider for the number of open groups; it calls `choose`, the learner's group_limited_top_k."""

    def draw(top_groups: int) -> tuple[Figure, str]:
        free_K, limited_K = (
            choose(scores_E[None], bias_E, num_groups, groups, k)[0] for groups in (num_groups, top_groups)
        )
        figure = group_choice(scores_E + bias_E, free_K, limited_K, num_groups)
        return (
            figure,
            f"Biased scores of one token by group, and its {k} experts from {top_groups} open groups",
        )

    panel = _Panel(draw)
    if panel.alive:
        from ipywidgets import IntSlider

        least = -(-k * num_groups // len(bias_E))  # the smallest number of groups that have k experts
        panel.run(top_groups=IntSlider(max(3, least), least, num_groups, description="open groups"))
    else:
        panel.show(top_groups=3)


def design_map(weights: Mapping[str, torch.Tensor]) -> Figure:
    """Which experts compute which tokens under each rule, {rule: weights_TE}: tables of tokens by experts."""
    fig, axes = plt.subplots(1, len(weights), figsize=(8, 3.0), sharey=True)
    for ax, (name, weights_TE) in zip(axes, weights.items(), strict=True):
        tokens, experts = weights_TE.shape
        ax.imshow(weights_TE, cmap="Blues", vmin=0, vmax=float(weights_TE.max()), aspect="auto")
        used_T = (weights_TE > 0).sum(dim=1)
        low, high = int(used_T.min()), int(used_T.max())
        span = f"{low}" if low == high else f"{low} to {high}"
        ax.set_title(f"{name}\n{span} a token", fontsize=9.5)
        ax.set_xticks(range(experts), [str(e) for e in range(experts)])
        ax.set_yticks(range(tokens), [str(t) for t in range(tokens)])
        ax.set(xlabel="expert")
        ax.tick_params(length=0)
    axes[0].set_ylabel("token")
    fig.suptitle(
        "How many experts work for a token, and who decides", x=0.01, ha="left", fontsize=11, weight="bold"
    )
    return fig
