"""Figures of notebook 08 that compare bits, rates and effects with what chance alone would give."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from moe_course.viz.specialization import capital, headline
from moe_course.viz.style import EXPERT_COLORS, FAINT, INK

TRAINED, UNTRAINED = "#0072B2", "#D55E00"


def bits_bars(panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]) -> Figure:
    """The bits that each label shares with the expert, {panel: {label: (bits, bits of shuffled tokens) by layer}}."""
    fig, axes = plt.subplots(1, len(panels), figsize=(8, 3.1), sharey=True, squeeze=False)
    for ax, (name, labels) in zip(axes[0], panels.items(), strict=True):
        width = 0.8 / len(labels)
        for n, (label, layers) in enumerate(labels.items()):
            places = [layer + (n - (len(labels) - 1) / 2) * width for layer in range(len(layers))]
            ax.bar(places, [bits for bits, _ in layers], width * 0.92, color=EXPERT_COLORS[n], label=label)
            ax.hlines(
                [shuffled for _, shuffled in layers],
                [x - width / 2 for x in places],
                [x + width / 2 for x in places],
                color="black",
                lw=1.6,
                label="tokens shuffled" if n == len(labels) - 1 else None,
            )
        most = max(labels, key=lambda label: sum(bits - shuffled for bits, shuffled in labels[label]))
        bits, shuffled = labels[most][-1]
        ax.set_title(f"{capital(name)}: {most}, {max(bits - shuffled, 0):.2f} bits above chance", fontsize=10)
        ax.set(xlabel="layer", xticks=range(len(labels[most])))
    axes[0, 0].set_ylabel("bits shared with the first choice")
    axes[0, 0].set_ylim(
        0, 1.02 * max(b for p in panels.values() for lay in p.values() for pair in lay for b in pair)
    )
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=9)
    headline(fig, "What tells most about the expert, and how much in the last layer")
    return fig


def false_alarms(p_values: Mapping[str, Sequence[float]], level: float = 0.05) -> Figure:
    """Sorted p-values of labels without meaning: a fair test follows the diagonal. {what is shuffled: p-values}"""
    fig, ax = plt.subplots(figsize=(7, 3.4))
    found = {name: sum(p <= level for p in values) / len(values) for name, values in p_values.items()}
    for (name, values), color in zip(p_values.items(), (UNTRAINED, TRAINED), strict=False):
        n = len(values)
        ax.step(
            [0, *sorted(values), 1],
            [0, *(k / n for k in range(1, n + 1)), 1],
            where="post",
            color=color,
            label=name,
        )
    ax.plot([0, 1], [0, 1], color=FAINT, ls=":", label="a fair test")
    ax.axvline(level, color="black", lw=0.8)
    ax.annotate(f"{level:g}", (level, 0.02), (4, 0), textcoords="offset points", fontsize=9)
    claims = ", ".join(f"{share:.0%} with shuffled {name}" for name, share in found.items())
    ax.set(
        title=f"Coins found: {claims}",
        xlabel="p-value",
        ylabel="share of labels with a smaller one",
        xlim=(0, 1),
        ylim=(0, 1.01),
    )
    ax.title.set_fontsize(10)
    ax.legend(fontsize=9, loc="lower right")
    return fig


def evidence(panels: Mapping[str, Sequence[tuple[float, Tensor]]], columns: int = 2) -> Figure:
    """Observed bits and those of shuffled documents, {panel: (observed, null_R) by layer}.

    Bar: all shuffles; line in it: their median; dot: the observed value, filled if it exceeds every shuffle.
    """
    rows = math.ceil(len(panels) / columns)
    fig, axes = plt.subplots(
        rows, columns, figsize=(8, 0.5 + 2.1 * rows), sharex=True, sharey="col", squeeze=False
    )
    for n, (name, layers) in enumerate(panels.items()):
        ax = axes.flat[n]
        above = 0
        for layer, (observed, null_R) in enumerate(layers):
            low, middle, high = float(null_R.min()), float(null_R.median()), float(null_R.max())
            ax.bar(layer, high - low, 0.5, bottom=low, color="#d0d7de", edgecolor=FAINT)
            ax.hlines(middle, layer - 0.25, layer + 0.25, color=INK, lw=1)
            above += observed > high
            ax.plot(
                layer,
                observed,
                "o",
                color=TRAINED,
                mfc=TRAINED if observed > high else "white",
                ms=7,
                mew=1.6,
            )
        ax.set_title(f"{capital(name)}: {above} of {len(layers)}", fontsize=10)
        ax.set_xticks(range(len(layers)))
        if n >= len(panels) - columns:
            ax.set_xlabel("layer")
    for ax in axes[0]:
        ax.set_ylim(0, None)  # the legend of the whole column
    for ax in axes[:, 0]:
        ax.set_ylabel("bits")
    headline(fig, "Layers in which the label tells more than every shuffle of the documents")
    return fig


def repeat_rates(
    rates: Mapping[str, Sequence[tuple[float, float]]],
    published: Mapping[str, Sequence[float]],
    published_layers: Sequence[int],
    published_chance: float,
) -> Figure:
    """The share of neighbours with the same first choice, {model: (rate, chance) by layer}, and published values."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.1), sharey=True)
    for (name, layers), color in zip(rates.items(), (TRAINED, UNTRAINED), strict=False):
        left.plot([rate for rate, _ in layers], "o-", color=color, label=name)
        left.plot([chance for _, chance in layers], color=color, ls=":", label=f"{name}, chance Σ p²")
    means = {name: sum(rate for rate, _ in layers) / len(layers) for name, layers in rates.items()}
    depth = len(next(iter(rates.values())))
    left.set(
        title="Same expert: " + ", ".join(f"{name} {mean:.0%}" for name, mean in means.items()),
        xlabel="layer",
        ylabel="neighbours with the same expert",
        xticks=range(0, depth, math.ceil(depth / 8)),
        ylim=(0, None),
    )
    left.legend(fontsize=7.5, ncols=2, loc="lower left")
    for n, (name, values) in enumerate(published.items()):
        right.plot(range(len(values)), values, "o-", color=EXPERT_COLORS[n % 8], ms=4, lw=1, label=name)
    right.axhline(published_chance, color="black", ls=":", label="balanced load, 1/8")
    low, high = (f(v[-1] for v in published.values()) for f in (min, max))
    right.set(title=f"Mixtral: {low:.0%} to {high:.0%} in the last", xlabel="layer")
    right.set_xticks(range(len(published_layers)), [str(layer) for layer in published_layers])
    right.legend(fontsize=7, ncols=2, frameon=True, framealpha=1, edgecolor="white")  # over the line of 1/8
    return fig


def saturation_curves(steps: Sequence[int], shares: Sequence[Sequence[float]], chance: float) -> Figure:
    """The share of a token's experts that are already its final ones, by step and layer."""
    fig, ax = plt.subplots(figsize=(6, 3.1))
    for layer, curve in enumerate(zip(*shares, strict=True)):
        ax.plot(steps, curve, "o-", color=EXPERT_COLORS[layer % 8], label=f"layer {layer}", ms=4)
    ax.axhline(chance, color="black", ls=":", label="unrelated routers, K/E")
    half = next(
        (step for step, row in zip(steps, shares, strict=True) if sum(row) / len(row) >= 0.5), steps[-1]
    )
    ax.set(
        title=f"Half of the routing is final by step {half} of {steps[-1]}",
        xlabel="step (logarithmic)",
        ylabel="experts shared with the final model",
        ylim=(0, 1.02),
    )
    if len(steps) > 1:
        ax.set_xscale("log")
        ax.set_xticks(steps, [str(step) for step in steps])
        ax.minorticks_off()
    ax.legend(fontsize=9)
    return fig


def ablation_checks(share: Tensor, halves: tuple[Tensor, Tensor]) -> Figure:
    """Does the effect follow from the share of tokens, and is it the same in the other half of the documents?

    share: each row's share of choices, by layer, row and expert. halves: the rise of the loss in each half, in the
    same form.
    """
    effect = (halves[0] + halves[1]) / 2
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.1))
    left.plot(100 * share.flatten(), effect.flatten(), "o", color=TRAINED, ms=4, alpha=0.6)
    left.set(
        title=f"Share and need: rank correlation {_rank_correlation(share, effect):.2f}",
        xlabel="share of the domain's choices, %",
        ylabel="rise of its loss, nats",
    )
    right.plot(halves[0].flatten(), halves[1].flatten(), "o", color=TRAINED, ms=4, alpha=0.6)
    right.set(
        title=f"Both halves: rank correlation {_rank_correlation(*halves):.2f}",
        xlabel="rise in one half of the documents, nats",
        ylabel="rise in the other",
    )
    for ax in (left, right):
        ax.axhline(0, color=FAINT, ls=":")
        ax.title.set_fontsize(10)
    right.axvline(0, color=FAINT, ls=":")
    return fig


def equal_load(points: Sequence[tuple[float, Sequence[float]]]) -> Figure:
    """Favourites against other sets with the same share: (rise without the favourite, rises without such sets).

    One point for each favourite: across, the mean of its sets, the bar from the least to the greatest of them; up,
    the favourite. On the diagonal it is needed as much as its share says. All in nats.
    """
    fig, ax = plt.subplots(figsize=(6, 3.6))
    more = 0
    for favourite, sets in points:
        mean = sum(sets) / len(sets)
        more += favourite > mean
        ax.hlines(favourite, min(sets), max(sets), color=FAINT, lw=1)
        ax.plot(mean, favourite, "o", color=TRAINED, ms=5)
    values = [0.0, *(f for f, _ in points), *(value for _, sets in points for value in sets)]
    ax.plot([min(values), max(values)], [min(values), max(values)], color=FAINT, ls=":")
    ax.set(
        title=f"Favourites cost more than equal sets in {more} of {len(points)} cases",
        xlabel="rise of the loss without such a set, nats a token",
        ylabel="without the favourite",
    )
    ax.title.set_fontsize(10)
    return fig


def _rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's rank correlation of all values of two tensors."""
    ranks = torch.stack([_ranks(values.flatten().tolist()) for values in (first, second)])
    return float(torch.corrcoef(ranks)[0, 1])


def _ranks(values: Sequence[float]) -> Tensor:
    """The ranks of the values in ascending order; equal values get the mean of their ranks."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = torch.zeros(len(values), dtype=torch.float64)
    edges = [n for n in range(1, len(order)) if values[order[n]] != values[order[n - 1]]]
    for start, end in pairwise([0, *edges, len(order)]):
        ranks[order[start:end]] = (start + end - 1) / 2
    return ranks
