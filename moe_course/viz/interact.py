"""Figures with sliders. Each shows a static figure as well, for those who only read."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import torch
from IPython.display import publish_display_data
from matplotlib.figure import Figure

from moe_course.moe.counts import expert_counts
from moe_course.viz.routing import load_bars, routing_table
from moe_course.viz.style import as_html, expert_color, ink_on, show

Gate = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def gate_explorer(gate: Gate, logits_TE: torch.Tensor) -> None:
    """Sliders for k, temperature and renormalisation; they call the learner's `gate(probs_TE, k, renormalize)`."""
    experts = logits_TE.shape[1]
    panel = _Panel(
        lambda k, temperature, renormalize: _gate_figure(gate, logits_TE, k, temperature, renormalize)
    )
    if panel.alive:
        from ipywidgets import Checkbox, FloatLogSlider, IntSlider

        panel.run(
            k=IntSlider(2, 1, experts, description="k"),
            temperature=FloatLogSlider(1.0, base=10, min=-1, max=1, step=0.05, description="temperature"),
            renormalize=Checkbox(True, description="renormalise"),
        )
    else:
        panel.show(k=2, temperature=1.0, renormalize=True)


def _gate_figure(
    gate: Gate, logits_TE: torch.Tensor, k: int, temperature: float, renormalize: bool
) -> tuple[Figure, str]:
    weights_TK, idx_TK = gate(torch.softmax(logits_TE / temperature, dim=-1), k, renormalize)
    gates_TE = torch.zeros_like(logits_TE).scatter(1, idx_TK, weights_TK)
    load_E = expert_counts(idx_TK, logits_TE.shape[1]) / idx_TK.numel()
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.1), width_ratios=(1.2, 1))
    kept = gates_TE.sum(dim=1).mean()
    routing_table(
        gates_TE, title=f"k = {k}, temperature {temperature:.2g}: weights sum to {kept:.2f}", ax=left
    )
    load_bars(load_E, ax=right)
    return (
        fig,
        f"Gates of {len(logits_TE)} tokens for k = {k} at temperature {temperature:.2g}, and the load of each expert",
    )


WORDS = ("if", "(", "Paris", "x", ")", "Rhine", "for", ":")
EXPERTS = ("syntax", "names", "maths", "verbs")
_BEST = (0, 0, 1, 2, 0, 1, 0, 0)  # the expert that suits each word best
ROOM = 3


def you_are_the_router() -> None:
    """Eight tokens, four experts with room for three tokens each: send every token somewhere."""
    panel = _Panel(lambda **choice: _router_figure([choice[f"token{n}"] for n in range(len(WORDS))]))
    if panel.alive:
        from ipywidgets import Dropdown

        options = [(name, e) for e, name in enumerate(EXPERTS)]
        panel.run(
            **{
                f"token{n}": Dropdown(options=options, value=_BEST[n], description=word)
                for n, word in enumerate(WORDS)
            }
        )
    else:
        panel.show(**{f"token{n}": e for n, e in enumerate(_BEST)})


def _router_figure(choice: list[int]) -> tuple[Figure, str]:
    counts = [choice.count(e) for e in range(len(EXPERTS))]
    suited = sum(mine == best for mine, best in zip(choice, _BEST, strict=True))
    dropped = sum(max(0, count - ROOM) for count in counts)
    fig, ax = plt.subplots(figsize=(6.5, 2.8))
    for n, e in enumerate(choice):
        level = choice[:n].count(e)
        over = level >= ROOM
        ax.bar(
            e,
            0.94,
            bottom=level,
            color="white" if over else expert_color(e),
            edgecolor=expert_color(e),
            hatch="///" if over else "",
        )
        ax.text(
            e,
            level + 0.47,
            WORDS[n],
            ha="center",
            va="center",
            color="black" if over else ink_on(expert_color(e)),
            weight="bold",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5} if over else None,
        )
    ax.axhline(ROOM, color="black", ls=":")
    ax.annotate(
        "room for three",
        (len(EXPERTS) - 0.5, ROOM),
        (0, 3),
        textcoords="offset points",
        ha="right",
        fontsize=9,
    )
    ax.set_xticks(range(len(EXPERTS)), EXPERTS)
    ax.set(
        title=f"{suited} of {len(WORDS)} tokens at the expert that suits them, {dropped} without room",
        ylabel="tokens",
        xlim=(-0.6, len(EXPERTS) - 0.4),
        ylim=(0, max(*counts, 4) + 0.4),
    )
    return fig, f"{dropped} tokens overflow; loads {counts} for {', '.join(EXPERTS)}"


class _Panel:
    """A figure below its controls. If the front end cannot show controls, only the figure is shown."""

    def __init__(self, draw: Callable[..., tuple[Figure, str]]):
        self.draw = draw
        # nbclient and nbgrader run notebooks with nobody there to move a slider
        self.alive = "MOE_COURSE_STATIC" not in os.environ and "NBGRADER_EXECUTION" not in os.environ

    def show(self, **values: object) -> None:
        show(*self.draw(**values))

    def run(self, **controls: Any) -> None:
        from ipywidgets import HBox, Layout, VBox, interactive_output

        output = interactive_output(self.show, controls)
        box = HBox(list(controls.values()), layout=Layout(flex_flow="row wrap"))
        figure, alt = self.draw(**{name: control.value for name, control in controls.items()})
        # a front end shows the first form that it understands: the panel, or the figure for the first values
        panel = VBox([box, output])._repr_mimebundle_()
        publish_display_data({**panel, "text/html": as_html(figure, alt), "text/plain": alt})
