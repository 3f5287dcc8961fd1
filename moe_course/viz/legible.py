"""Can a figure be read? What is cut off, what lies over what, and which panel has no title.

Titles of neighbouring panels that come too near shrink a little before a figure is shown (`make_room`).
With MOE_COURSE_LEGIBLE in the environment every figure that is shown must pass; tests that run notebooks set it.
"""

from __future__ import annotations

import os
from itertools import combinations
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

EDGE = 3.0  # pixels by which a text may leave its figure: rounding, and the space inside a text's box
OVERLAP = 0.2  # part of the smaller of two texts that the other may cover
GAP = 6.0  # points between two titles side by side, about two spaces: else they read as one sentence
SMALLEST = 0.75  # of its size that is left of a title which makes room for its neighbour


def make_room(figure: Figure) -> None:
    """Make the titles of a figure smaller, all alike, where one comes too near to that of the next panel."""
    if len(_titles(figure)) < 2:
        return
    figure.draw_without_rendering()
    gap, share = GAP * figure.dpi / 72, 1.0
    for (_, left), (_, right) in _side_by_side(figure):
        if right.x0 - left.x1 < gap:
            share = min(share, 0.98 * (right.x0 - gap - left.x0) / left.width)
    if share < 1:
        for title in _titles(figure):
            title.set_fontsize(float(title.get_fontsize()) * max(share, SMALLEST))


def demand(figure: Figure) -> None:
    """Raises ValueError with what is wrong with the figure, if the environment asks for it."""
    if "MOE_COURSE_LEGIBLE" in os.environ and (found := faults(figure)):
        raise ValueError("a figure cannot be read: " + "; ".join(found))


def faults(figure: Figure) -> list[str]:
    """What is wrong with a figure, in words; empty if nothing is.

    Cut off: a text outside the figure. Covered: a text over another one. Touching: titles of two panels side by side
    with hardly a gap between them. Untitled: a figure without any title, or a panel without one where the figure has
    none of its own.
    """
    figure.draw_without_rendering()  # places everything, and leaves the layout as a saved figure has it
    page: Any = figure.bbox
    texts = [(text, box) for text in _texts(figure) if (box := _box(text)).width > 1]
    return [
        *(f"cut off: {_said(text)}" for text, box in texts if not _inside(box, page)),
        *(
            f"{_said(first)} lies over {_said(second)}"
            for (first, one), (second, two) in combinations(texts, 2)
            if _covered(one, two) > OVERLAP
        ),
        *(
            f"{_said(first)} touches {_said(second)}"
            for (first, one), (second, two) in _side_by_side(figure)
            if two.x0 - one.x1 < GAP * figure.dpi / 72 and _covered(one, two) <= OVERLAP
        ),
        *(f"no title over panel {n}" for n, ax in enumerate(figure.axes) if _untitled(figure, ax)),
    ]


def _texts(figure: Figure) -> list[Text]:
    """All texts that are drawn: titles, labels, tick labels, legends, annotations."""
    hidden = {id(text) for ax in figure.axes if not ax.get_visible() for text in ax.findobj(Text)}
    ticks = [_off(ax) for ax in figure.axes]
    off = set().union(*ticks)
    found = {
        id(text): text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and id(text) not in hidden | off
    }
    return list(found.values())


def _titles(figure: Figure) -> list[Text]:
    """The titles of the panels."""
    return [
        child
        for ax in figure.axes
        if ax.get_visible()
        and (said := {ax.get_title(loc=loc) for loc in ("left", "center", "right")} - {""})
        for child in ax.get_children()
        if isinstance(child, Text) and child.get_text() in said
    ]


def _side_by_side(figure: Figure) -> list[tuple[tuple[Text, Bbox], tuple[Text, Bbox]]]:
    """Pairs of titles of different panels on the same height, with their boxes, the left one first."""
    titles = sorted(((title, _box(title)) for title in _titles(figure)), key=lambda found: found[1].x0)
    return [
        (first, second)
        for first, second in combinations(titles, 2)
        if first[0].axes is not second[0].axes
        and min(first[1].y1, second[1].y1) > max(first[1].y0, second[1].y0)
    ]


def _off(ax: Axes) -> set[int]:
    """The texts of an axes that are not drawn: tick labels beyond its limits or switched off, all if it is off."""
    drawn = set()
    for axis in (ax.xaxis, ax.yaxis):
        scale = axis.get_transform().transform  # on a logarithmic axis, places are logarithms
        low, high = sorted(scale(axis.get_view_interval()))
        room = 1e-6 * (high - low)
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            if ax.axison and low - room <= scale([tick.get_loc()])[0] <= high + room:
                drawn |= {id(label) for label in (tick.label1, tick.label2) if label.get_visible()}
        if ax.axison:
            drawn |= {id(axis.label), id(axis.offsetText)}
    everything = {id(text) for axis in (ax.xaxis, ax.yaxis) for text in axis.findobj(Text)}
    return everything - drawn


def _box(text: Text) -> Bbox:
    return text.get_window_extent()


def _inside(box: Bbox, page: Bbox) -> bool:
    return bool(
        box.x0 >= page.x0 - EDGE
        and box.x1 <= page.x1 + EDGE
        and box.y0 >= page.y0 - EDGE
        and box.y1 <= page.y1 + EDGE
    )


def _covered(one: Bbox, two: Bbox) -> float:
    """The part of the smaller box that the two have in common."""
    both = Bbox.intersection(one, two)
    return 0.0 if both is None else both.width * both.height / max(1.0, min(_area(one), _area(two)))


def _area(box: Bbox) -> float:
    return float(box.width * box.height)


def _untitled(figure: Figure, ax: Axes) -> bool:
    titled = figure.get_suptitle() or any(ax.get_title(loc=loc) for loc in ("left", "center", "right"))
    return bool(ax.get_visible() and not titled and ax.get_label() != "<colorbar>")


def _said(text: Text) -> str:
    return f"“{' '.join(text.get_text().split())[:60]}”"
