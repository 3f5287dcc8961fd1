"""Drawings: an MoE layer, of which one part at a time is lit, and the tiny model that runs through the notebooks."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from moe_course.viz.style import ACTIVE, INK, expert_color, ink_on

PARTS = {
    "": "A token visits two of eight experts",
    "router": "The router scores eight experts and keeps two of them",
    "dispatch": "Dispatch brings each token to its experts, and their answers back",
    "load": "The load: how many tokens of a batch each expert gets",
    "capacity": "Capacity: room for three tokens at each expert, one assignment is dropped",
    "shared": "A shared expert works for every token, and no router chooses it",
}
"""{part that can be lit: title}; "" lights everything but what later notebooks add."""

_CHOSEN = {2: 0.6, 5: 0.4}  # expert: weight
_LOAD = (2, 1, 4, 2, 0, 3, 2, 2)  # of a batch of eight such tokens: 16 assignments
_OFF = "#d0d7de"
_BESIDE = {"arrowstyle": "-|>", "mutation_scale": 9, "shrinkA": 0, "shrinkB": 0}


def moe_layer(highlight: str = "") -> Figure:
    """An MoE layer as one token sees it: router, two of eight experts, weighted sum, residual.

    highlight: one of PARTS; the others turn grey. Raises ValueError for another name.
    """
    if highlight not in PARTS:
        raise ValueError(f"no part {highlight!r} of the layer; there are {', '.join(map(repr, PARTS))}")
    fig, ax = _canvas(8, 3.9, (0, 10), (-1.1 if highlight == "shared" else -0.3, 5.0))

    def ink(part: str, color: str = INK) -> str:
        return color if highlight in ("", part) else _OFF

    _box(ax, 0.5, 2, 0.8, 0.7, "token\nx", INK)
    _box(ax, 2.3, 2, 1.2, 0.9, "router", ink("router", ACTIVE), filled=True)
    _arrow(ax, (0.9, 2), (1.7, 2), ink("router"))
    for expert in range(8):
        y = 4.0 - 4.0 * expert / 7
        chosen, color = expert in _CHOSEN, expert_color(expert)
        lit = highlight in ("", "dispatch") or (highlight == "router" and chosen)
        if chosen:
            _arrow(ax, (2.9, 2), (4.35, y), ink("dispatch", color), 2)
        if chosen and highlight not in ("load", "capacity"):  # these two need the place behind the experts
            _arrow(ax, (5.85, y), (7.35, 2), ink("dispatch", color), 2)
            weight = f"{_CHOSEN[expert]:.1f}"
            ax.text(
                6.75, (y + 2) / 2 + 0.28, weight, ha="center", va="center", color=ink("router"), fontsize=9
            )
        if not chosen:
            ax.plot([2.9, 4.35], [2, y], color=ink("router", _OFF), lw=0.7, ls=":", zorder=0)
        _box(ax, 5.1, y, 1.5, 0.42, f"expert {expert}", color if lit else _OFF, filled=chosen and lit)
        if highlight == "load":
            ax.barh(y, 0.3 * _LOAD[expert], 0.3, left=5.95, color=color)
            ax.text(6.05 + 0.3 * _LOAD[expert], y, str(_LOAD[expert]), va="center", fontsize=9)
        if highlight == "capacity":
            _slots(ax, y, _LOAD[expert], color)
    _box(ax, 7.65, 2, 0.6, 0.6, "Σ", ink("dispatch"))
    _arrow(ax, (7.95, 2), (8.6, 2), ink("dispatch"))
    _box(ax, 8.85, 2, 0.5, 0.5, "+", ink(""))
    _arrow(ax, (9.1, 2), (9.6, 2), ink(""))
    ax.text(9.8, 2, "y", ha="center", va="center", color=INK)
    ax.plot([0.5, 0.5, 8.85], [2.35, 4.7, 4.7], color=ink(""), lw=1.2)
    _arrow(ax, (8.85, 4.7), (8.85, 2.25), ink(""))
    ax.text(1.9, 4.78, "residual", ha="center", va="bottom", color=ink(""), fontsize=9)
    if highlight == "shared":
        ax.plot([0.5, 0.5], [1.65, -0.8], color=ACTIVE, lw=2)
        _arrow(ax, (0.5, -0.8), (4.35, -0.8), ACTIVE, 2)
        _box(ax, 5.1, -0.8, 1.5, 0.42, "shared", ACTIVE, filled=True)
        _arrow(ax, (5.85, -0.8), (7.6, 1.7), ACTIVE, 2)
    ax.set_title(PARTS[highlight])
    return fig


def tiny_model() -> Figure:
    """The tiny model of notebooks 02 to 10: what is drawn once and stays (white), and what learns (filled)."""
    fig, ax = _canvas(8, 2.1, (0, 12.4), (-0.1, 3.0))
    for x, label in ((1.5, "embedding"), (3.8, "attention")):
        _box(ax, x, 1.2, 1.9, 0.8, label, INK)
    _box(ax, 6.1, 1.2, 1.4, 0.8, "router", ACTIVE, filled=True)
    for expert in range(4):
        y = 2.25 - 0.7 * expert
        _box(ax, 8.3, y, 1.4, 0.5, f"expert {expert}", expert_color(expert), filled=True)
        ax.plot([6.8, 7.6], [1.2, y], color=_OFF, lw=1, zorder=0)
        ax.plot([9.0, 9.75], [y, 1.2], color=_OFF, lw=1, zorder=0)
    _box(ax, 10.3, 1.2, 1.1, 0.8, "head", ACTIVE, filled=True)
    for start, end in ((0.15, 0.55), (2.45, 2.85), (4.75, 5.4), (10.85, 11.3)):
        _arrow(ax, (start, 1.2), (end, 1.2), INK)
    ax.plot([5.0, 5.0, 9.6], [1.2, 2.85, 2.85], color=INK, lw=1)
    _arrow(ax, (9.6, 2.85), (9.6, 1.4), INK)
    ax.text(0.3, 0.35, "mark, word,\n…, word", ha="left", va="center", fontsize=9)
    ax.text(11.85, 1.2, "trans-\nlation", ha="center", va="center", fontsize=9)
    ax.set_title("The tiny model: the filled parts learn, the white ones stay as they were drawn")
    return fig


def _canvas(
    width: float, height: float, xlim: tuple[float, float], ylim: tuple[float, float]
) -> tuple[Figure, Axes]:
    fig, ax = plt.subplots(figsize=(width, height))
    ax.set(xlim=xlim, ylim=ylim)
    ax.axis("off")
    return fig, ax


def _box(
    ax: Axes, x: float, y: float, width: float, height: float, label: str, color: str, filled: bool = False
) -> None:
    place, style = (x - width / 2, y - height / 2), "round,pad=0,rounding_size=0.1"
    face = color if filled else "white"
    ax.add_patch(FancyBboxPatch(place, width, height, boxstyle=style, ec=color, fc=face, lw=1.3, zorder=2))
    ink = ink_on(color) if filled else _OFF if color == _OFF else INK
    ax.text(x, y, label, ha="center", va="center", color=ink, fontsize=9, zorder=3)


def _arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str, width: float = 1.2
) -> None:
    ax.annotate("", end, start, arrowprops={**_BESIDE, "color": color, "lw": width}, zorder=1)


def _slots(ax: Axes, y: float, tokens: int, color: str) -> None:
    """Three places behind an expert, filled as far as its tokens reach; a cross for each token without a place."""
    for slot in range(3):
        _box(ax, 6.15 + 0.36 * slot, y, 0.3, 0.3, "", color, filled=slot < tokens)
    for late in range(3, tokens):
        ax.text(6.15 + 0.36 * late, y, "✕", ha="center", va="center", color=INK, fontsize=10)
