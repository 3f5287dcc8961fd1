"""Figures of notebook 07: curves of small language models, what a block depends on, schedules, and sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from moe_course.viz.interact import _Panel
from moe_course.viz.style import ACTIVE, FAINT, INK

_CURVES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
DRAWS = 300


def loss_curves(curves: Mapping[str, Sequence[float]], what: str) -> Figure:
    """Losses by step, {name: one number for each step}, smoothed over a tenth of the run; `what` names the axis.

    The title compares the ends of the last curve and the first.
    """
    fig, ax = plt.subplots()
    ends = {}
    for (name, losses), color in zip(curves.items(), _CURVES, strict=False):
        window = max(1, len(losses) // 10)
        smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
        ends[name] = float(smooth[-1])
        ax.plot(range(len(losses)), losses, color=color, alpha=0.25, lw=0.8)
        ax.plot(np.arange(len(smooth)) + window - 1, smooth, color=color, label=name)
    first, last = next(iter(ends)), list(ends)[-1]
    gap = ends[last] - ends[first]
    ax.set(
        title=f"{last} ends {abs(gap):.2f} {'above' if gap > 0 else 'below'} {first}",
        xlabel="step",
        ylabel=what,
    )
    ax.legend(fontsize=9)
    return fig


def influence(reach_SS: torch.Tensor) -> Figure:
    """Which outputs change when one token changes: rows are tokens, columns outputs; a change fills a cell."""
    length = len(reach_SS)
    changed = reach_SS > 0
    leaks = int(changed.tril(-1).sum())
    fig, ax = plt.subplots(figsize=(4.2, 3.6))
    ax.imshow(changed.T.numpy(), cmap="Blues", vmin=0, vmax=1.4)
    ax.set_xticks(range(length))
    ax.set_yticks(range(length))
    ax.tick_params(length=0)
    claim = "No output hears of a later token" if not leaks else f"{leaks} outputs hear of a later token"
    ax.set(title=claim, xlabel="position of the token that is changed", ylabel="position of the output")
    return fig


def schedules(plans: Mapping[str, Sequence[float]]) -> Figure:
    """Learning rates by step, {name: one number for each step}; a dot marks the highest rate of each."""
    fig, ax = plt.subplots()
    peaks = []
    for (name, rates), color in zip(plans.items(), _CURVES, strict=False):
        peaks.append(int(np.argmax(rates)))
        ax.plot(rates, color=color, label=name)
        ax.plot(peaks[-1], rates[peaks[-1]], "o", color=color)
    first = next(iter(plans.values()))
    ax.set(
        title=f"Up for {peaks[0] + 1} steps, then down to {first[-1] / max(first):.0%} of the peak",
        xlabel="step",
        ylabel="learning rate",
        ylim=(0, None),
    )
    ax.legend(fontsize=9)
    return fig


def tokenizer_bars(rows: Mapping[str, tuple[float, float]], reference: float) -> Figure:
    """{tokenizer: (nats per token, bits per byte)} of a model, side by side; the line is that of a zip program."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 1.2 + 0.45 * len(rows)), sharey=True)
    places = range(len(rows))
    for ax, part, color in ((left, 0, FAINT), (right, 1, ACTIVE)):
        ax.barh(places, [row[part] for row in rows.values()], color=color, height=0.6)
        ax.set_ylim(len(rows) - 0.4, -0.6)
    left.set_yticks(places, list(rows))
    worst = max(rows, key=lambda name: rows[name][0])
    best = min(rows, key=lambda name: rows[name][1])
    left.set(title=f"{worst}: most nats a token", xlabel="nats per token")
    right.axvline(reference, color=INK, ls=":")
    right.annotate("zlib", (reference, len(rows) - 0.45), (3, 2), textcoords="offset points", fontsize=9)
    right.set(title=f"{best}: fewest bits a byte", xlabel="bits per byte")
    return fig


def nucleus(
    sample: Callable[..., int], words: Sequence[str], logits_V: torch.Tensor, temperature: float, top_p: float
) -> Figure:
    """The probabilities of the next token at a temperature, and how often `sample` draws each."""
    generator = torch.Generator().manual_seed(0)
    drawn = [sample(logits_V, temperature, top_p, generator) for _ in range(DRAWS)]
    share_V = torch.bincount(torch.tensor(drawn), minlength=len(words)) / DRAWS
    heat = max(temperature, 1e-6)
    probs_V = torch.softmax((logits_V - logits_V.max()).double() / heat, dim=-1)
    order = probs_V.argsort(descending=True).tolist()
    fig, ax = plt.subplots(figsize=(7.5, 3.0))
    colors = [ACTIVE if share_V[v] > 0 else "#DDE3E8" for v in order]
    ax.bar(range(len(order)), [float(probs_V[v]) for v in order], color=colors, width=0.7)
    ax.plot(range(len(order)), [float(share_V[v]) for v in order], "o", color="#D55E00", ms=5, label="drawn")
    inside = int((share_V > 0).sum())
    ax.set(
        title=f"temperature {temperature:.2g}, top_p {top_p:.2f}: {inside} of {len(words)} tokens are drawn",
        ylabel="probability",
        ylim=(0, 1.05),
    )
    ax.set_xticks(range(len(order)), [words[v] for v in order], rotation=40, ha="right")
    ax.legend(fontsize=9)
    return fig


def nucleus_explorer(sample: Callable[..., int], words: Sequence[str], logits_V: torch.Tensor) -> None:
    """Sliders for temperature and top_p; they call `sample`, the learner's sample_next."""

    def draw(temperature: float, top_p: float) -> tuple[Figure, str]:
        figure = nucleus(sample, words, logits_V, temperature, top_p)
        return figure, (
            f"Probabilities of {len(words)} next tokens at temperature {temperature:.2g}, and the shares of "
            f"{DRAWS} draws with top_p {top_p:.2f}"
        )

    panel = _Panel(draw)
    if panel.alive:
        from ipywidgets import FloatSlider

        sliders: dict[str, Any] = {
            "temperature": FloatSlider(1.0, min=0.0, max=2.5, step=0.1, description="temperature"),
            "top_p": FloatSlider(0.85, min=0.0, max=1.0, step=0.05, description="top_p"),
        }
        panel.run(**sliders)
    else:
        panel.show(temperature=1.0, top_p=0.85)


def budget_curves(dense: Sequence[Any], moe: Sequence[Any]) -> Figure:
    """The loss by training FLOPs: the best dense plans, and the best MoE plans with their granularities."""
    fig, ax = plt.subplots()
    for plans, color, name in ((dense, FAINT, "dense"), (moe, ACTIVE, "MoE, 64 times the FFN")):
        ax.plot([plan.flops for plan in plans], [plan.loss for plan in plans], "o-", color=color, label=name)
    for plan in moe:
        ax.annotate(
            f"G = {plan.granularity}",
            (plan.flops, plan.loss),
            (0, -14),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    grows = moe[0].granularity < moe[-1].granularity
    ax.set(
        title=f"The best granularity {'grows' if grows else 'does not grow'} with the budget",
        xscale="log",
        xlabel="training FLOPs",
        ylabel="loss by the law, nats per token",
        ylim=(min(plan.loss for plan in moe) - 0.25, None),
    )
    ax.legend(fontsize=9)
    return fig
