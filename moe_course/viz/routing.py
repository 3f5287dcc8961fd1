"""Figures of routing: which tokens go to which experts, the experts' loads, and the gradient of the router."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_course.viz.style import INK, expert_color


def routing_table(
    probs_TE: torch.Tensor, rows: str = "token", title: str | None = None, ax: Axes | None = None
) -> Figure:
    """A table of rows by experts as a heat map; tables up to 8 × 8 show their numbers."""
    tokens, experts = probs_TE.shape
    if ax is None:
        fig, ax = plt.subplots(figsize=(1.4 + 0.75 * experts, 0.9 + 0.42 * tokens))
    else:
        fig = ax.figure  # type: ignore[assignment]
    ax.imshow(probs_TE.detach().numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if max(tokens, experts) <= 8:
        for t in range(tokens):
            for e in range(experts):
                dark = probs_TE[t, e] > 0.55
                ax.text(
                    e,
                    t,
                    f"{probs_TE[t, e]:.2f}",
                    ha="center",
                    va="center",
                    color="white" if dark else "black",
                )
    best = int(probs_TE.max(dim=1).values.argmax())
    share, expert = probs_TE[best].max(), int(probs_TE[best].argmax())
    claim = f"{rows.capitalize()} {best} is surest: {share:.0%} for expert {expert}"
    ax.set_xticks(range(experts), [str(e) for e in range(experts)])
    ax.set_yticks(range(tokens), [str(t) for t in range(tokens)])
    ax.set(title=title or claim, xlabel="expert", ylabel=rows)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return fig


def load_bars(load_E: torch.Tensor, ax: Axes | None = None) -> Figure:
    """Each expert's share of the assignments, with a line at the fair share."""
    experts = len(load_E)
    if ax is None:
        fig, ax = plt.subplots(figsize=(5, 2.6))
    else:
        fig = ax.figure  # type: ignore[assignment]
    ax.bar(range(experts), (100 * load_E).tolist(), color=[expert_color(e) for e in range(experts)])
    ax.axhline(100 / experts, color="black", ls=":", label="fair share")
    busiest = int(load_E.argmax())
    ax.set_xticks(range(experts))
    ax.set(
        title=f"Expert {busiest} takes {load_E[busiest]:.0%} of the load",
        xlabel="expert",
        ylabel="load, % of assignments",
        ylim=(0, 100 * max(float(load_E.max()), 1.5 / experts) * 1.1),
    )
    ax.legend()
    return fig


def gradient_bars(dlogits_E: torch.Tensor, chosen: Sequence[int] | torch.Tensor) -> Figure:
    """The gradient of each expert's logit; experts that were not chosen are hatched."""
    picked = {int(e) for e in chosen}
    fig, ax = plt.subplots(figsize=(5, 2.6))
    for e, value in enumerate(dlogits_E.tolist()):
        mine = e in picked
        ax.bar(
            e,
            value,
            color=expert_color(e) if mine else "white",
            edgecolor=expert_color(e),
            hatch="" if mine else "///",
        )
        ax.annotate(
            "chosen" if mine else "not chosen",
            (e, 0),
            (0, -3 if value >= 0 else 3),
            textcoords="offset points",
            ha="center",
            va="top" if value >= 0 else "bottom",
            fontsize=8,
            color=INK,
        )
    ax.axhline(0, color="black", lw=0.8)
    ax.set_xticks(range(len(dlogits_E)))
    ax.set(
        title="Unchosen experts only follow the others",
        xlabel="expert",
        ylabel="gradient on the logit",
    )
    return fig
