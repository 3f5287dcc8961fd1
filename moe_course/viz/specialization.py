"""Figures of notebook 08: tables of which labels go to which experts, and of the losses without one expert."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from moe_course.viz.style import ink_on

MOST_NUMBERED = 12
"""With more experts, cells show colours alone, and not every expert has its number on the axis."""


def share_tables(tables: Mapping[str, Tensor], rows: Sequence[str]) -> Figure:
    """Tables of rows by experts, {name: share_GE of each row's choices}, in %; the title names the largest gap.

    A row without choices, all 0, stays blank and is no end of a gap.
    """
    filled = {
        name: share_GE.where(share_GE.sum(dim=1, keepdim=True) > 0, math.nan)
        for name, share_GE in tables.items()
    }
    few = next(iter(tables.values())).shape[1] <= MOST_NUMBERED
    most = 70 if few else 100 * max(float(share_GE.nan_to_num(0).max()) for share_GE in filled.values())
    fig = _tables(
        {name: 100 * share_GE for name, share_GE in filled.items()}, rows, cmap="Blues", vmin=0, vmax=most
    )
    name = max(filled, key=lambda name: float(_gaps(filled[name]).max()))
    share_GE = filled[name]
    expert = int(_gaps(share_GE).argmax())
    high = int(share_GE[:, expert].nan_to_num(-1).argmax())
    low = int(share_GE[:, expert].nan_to_num(2).argmin())
    headline(
        fig,
        f"{capital(name)}: expert {expert} takes {share_GE[high, expert]:.0%} of {rows[high]}, "
        f"{share_GE[low, expert]:.0%} of {rows[low]}",
    )
    return fig


def token_accounts(
    shares: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    before: Mapping[str, float],
    rows: Sequence[str],
) -> Figure:
    """Where each row's tokens go, minus where the same tokens go in the other rows, in percentage points.

    shares, expected: {name: share_GE}. before: {name: the distance of the rows from the other rows}, 0..1, which
    each panel's title compares with the distance that is left (half the sum of absolute differences, mean of rows).
    """
    left = {name: float((shares[name] - expected[name]).abs().sum(dim=1).nanmean() / 2) for name in shares}
    points = {
        f"{name}: {100 * left[name]:.0f} of {100 * before[name]:.0f} points": 100
        * (shares[name] - expected[name])
        for name in shares
    }
    most = max(5.0, max(float(table.nan_to_num(0).abs().max()) for table in points.values()))
    fig = _tables(points, rows, cmap="PuOr", vmin=-most, vmax=most)
    *_, last = left
    headline(
        fig,
        f"With the token taken off, {100 * left[last]:.0f} of {100 * before[last]:.0f} points are left in {last}",
    )
    return fig


def pair_tables(ratios: Mapping[str, Tensor], enough: Mapping[str, Tensor]) -> Figure:
    """How often two experts are chosen together, divided by what their loads alone would give; {name: ratio_EE}.

    enough: {name: True for the pairs with enough tokens}; the other cells stay empty.
    """
    tables = {
        name: torch.where(enough[name], ratio_EE.clamp(min=1e-3).log2(), math.nan)
        for name, ratio_EE in ratios.items()
    }
    experts = [str(e) for e in range(len(next(iter(ratios.values()))))]
    labels = {name: ratio_EE.where(enough[name], torch.nan) for name, ratio_EE in ratios.items()}
    fig = _tables(
        tables, experts, cmap="PuOr", vmin=-2.5, vmax=2.5, labels=labels, form="{:.1f}", what="expert"
    )
    claims = []
    for name, ratio_EE in labels.items():
        best = ratio_EE.nan_to_num(0)
        if not best.max() > 0:
            claims.append(f"{name}: no pair has enough tokens")
            continue
        row, column = divmod(int(best.argmax()), len(best))
        pair = f"{min(row, column)} and {max(row, column)}"
        claims.append(f"{name}: {pair} meet {best.max():.1f} times as often as by load")
    headline(fig, capital("; ".join(claims)))
    return fig


def ablation_tables(deltas: Mapping[str, Tensor], rows: Sequence[str]) -> Figure:
    """How much each row's loss rises without an expert, {name: delta_GE} in nats; shown in thousandths of a nat."""
    thousandths = {name: 1000 * delta_GE for name, delta_GE in deltas.items()}
    most = max(1.0, max(float(table.nan_to_num(0).abs().max()) for table in thousandths.values()))
    fig = _tables(thousandths, rows, cmap="PuOr_r", vmin=-most, vmax=most)
    known = {name: table.nan_to_num(-math.inf) for name, table in thousandths.items()}
    name = max(known, key=lambda name: float(known[name].max()))
    row, expert = divmod(int(known[name].argmax()), known[name].shape[1])
    rise = f"{known[name].max():.0f} thousandths of a nat"
    headline(fig, f"{capital(name)}: without expert {expert}, the loss of {rows[row]} rises by {rise}")
    for ax in fig.axes:
        if ax.get_xlabel():
            ax.set_xlabel("expert (cells: thousandths of a nat a token)")
    return fig


def _tables(
    tables: Mapping[str, Tensor],
    rows: Sequence[str],
    cmap: str,
    vmin: float,
    vmax: float,
    labels: Mapping[str, Tensor] | None = None,
    form: str = "{:.0f}",
    what: str | None = None,
) -> Figure:
    """Heat maps side by side, two in a row; they show their numbers if there is room."""
    columns = min(2, len(tables))
    height = 0.75 + 0.27 * len(rows)
    lines = math.ceil(len(tables) / columns)
    fig, axes = plt.subplots(
        lines, columns, figsize=(4 * columns, 0.4 + height * lines), sharey=True, squeeze=False
    )
    for ax, (name, table) in zip(axes.flat, tables.items(), strict=False):
        _table(ax, table, (labels or tables)[name], cmap, vmin, vmax, form)
        ax.set_title(capital(name), fontsize=10)
        ax.set_yticks(range(len(rows)), rows)
    for ax in list(axes.flat)[len(tables) :]:
        ax.set_visible(False)
    for ax in list(axes.flat)[max(0, len(tables) - columns) : len(tables)]:
        ax.set_xlabel("expert")
    if what:
        for ax in axes[:, 0]:
            ax.set_ylabel(what)
    return fig


def _table(ax: Axes, table: Tensor, labels: Tensor, cmap: str, vmin: float, vmax: float, form: str) -> None:
    image = ax.imshow(table.numpy(), cmap=cmap, vmin=vmin, vmax=vmax, aspect="auto")
    experts = table.shape[1]
    if experts <= MOST_NUMBERED:
        for row, values in enumerate(labels.tolist()):
            for e, value in enumerate(values):
                if math.isnan(value):
                    continue
                ink = ink_on(image.cmap(image.norm(float(table[row, e])))[:3])  # type: ignore[arg-type]
                text = form.format(value)
                ax.text(
                    e, row, "0" if text == "-0" else text, ha="center", va="center", color=ink, fontsize=8
                )
    shown = range(0, experts, 1 if experts <= MOST_NUMBERED else math.ceil(experts / 8))
    ax.set_xticks(shown, [str(e) for e in shown])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


def _gaps(share_GE: Tensor) -> Tensor:
    return share_GE.nan_to_num(-1).max(dim=0).values - share_GE.nan_to_num(2).min(dim=0).values


def headline(fig: Figure, text: str) -> None:
    fig.suptitle(text, x=0.01, ha="left", fontsize=11, weight="bold", wrap=True)


def capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"
