"""Figures of notebook 10: experts of a step, times and bounds, caches, tails, and requests that share a machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_course.viz.interact import _Panel
from moe_course.viz.style import ACTIVE, FAINT, INK, TOTAL

LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = "osDv^<>"


def _lines(
    ax: Axes, x: Sequence[float], curves: Mapping[str, Sequence[float]], dashed: Sequence[str] = ()
) -> None:
    """One line for each curve, told apart by colour and mark; those in `dashed` have no marks."""
    for n, (name, y) in enumerate(curves.items()):
        style: dict[str, Any] = (
            {"ls": "--", "lw": 1.2} if name in dashed else {"marker": MARKS[n % len(MARKS)], "ms": 4}
        )
        ax.plot(x, y, color=LINES[n % len(LINES)], label=name, **style)
    ax.legend(fontsize=8)


def _doubling(ax: Axes, batches: Sequence[int]) -> None:
    ax.set_xscale("log", base=2)
    shown = batches[:: 2 if len(batches) > 10 else 1]  # labels need room
    ax.set_xticks(shown, [f"{b}" for b in shown])
    ax.minorticks_off()


def distinct_curves(
    batches: Sequence[int],
    curves: Mapping[str, Sequence[float]],
    num_experts: int,
    dashed: Sequence[str] = (),
) -> Figure:
    """Experts of a layer that a step uses, by batch, {name: a number for each batch}.

    The title compares the first curve with the last where they are furthest apart.
    """
    fig, ax = plt.subplots(figsize=(7, 3.4))
    _lines(ax, batches, curves, dashed)
    (first, above), *_, (last, below) = curves.items()
    gaps = [a - b for a, b in zip(above, below, strict=True)]
    at = max(range(len(gaps)), key=lambda n: gaps[n])
    ax.axhline(num_experts, color=FAINT, ls=":")
    _doubling(ax, batches)
    ax.set(
        title=f"Batch {batches[at]}: {first} {above[at]:.1f}, {last} {below[at]:.1f}",
        xlabel="tokens of a step (batch)",
        ylabel=f"different experts, of {num_experts}",
        ylim=(0, num_experts * 1.08),
    )
    return fig


def step_times(
    batches: Sequence[int], reading: Sequence[float], computing: Sequence[float], name: str
) -> Figure:
    """Seconds of a step by batch: reading and computing, and their maximum. The title says where they cross."""
    fig, ax = plt.subplots(figsize=(7, 3.4))
    ax.fill_between(
        batches, [1e3 * max(p) for p in zip(reading, computing, strict=True)], color=TOTAL, alpha=0.5
    )
    ax.plot(batches, [1e3 * s for s in reading], color=ACTIVE, marker="o", ms=4, label="reading bytes")
    ax.plot(batches, [1e3 * s for s in computing], color="#D55E00", marker="s", ms=4, label="arithmetic")
    later = [b for b, r, c in zip(batches, reading, computing, strict=True) if c > r]
    crossing = (
        f"arithmetic takes longer from batch {min(later)} on" if later else "reading always takes longer"
    )
    _doubling(ax, batches)
    ax.set_yscale("log")
    ax.legend(fontsize=8)
    ax.set(title=f"{name}: {crossing}", xlabel="sequences decoded together", ylabel="ms of a step")
    return fig


def equal_dense(
    batches: Sequence[int],
    sizes: Mapping[str, Sequence[float]],
    rivals: Mapping[str, float],
    active: float,
    total: float,
) -> Figure:
    """Parameters of the dense model whose step takes as long, by batch, a line for each GPU; dotted: dense rivals.

    The title says up to how many parameters a dense model is always cheaper, and from how many it never is.
    """
    fig, ax = plt.subplots(figsize=(7.5, 3.6))
    _lines(ax, batches, {name: [p / 1e9 for p in params] for name, params in sizes.items()})
    for name, params in rivals.items():
        ax.axhline(params / 1e9, color=FAINT, ls=":")
        ax.annotate(name, (batches[0], params / 1e9), (2, 3), textcoords="offset points", fontsize=8)
    most = max(p for params in sizes.values() for p in params)
    _doubling(ax, batches)
    ax.set(
        title=f"Serves like {active / 1e9:.0f}B dense at first, like {most / 1e9:.0f}B at worst",
        xlabel="sequences decoded together",
        ylabel="billion parameters",
        ylim=(0, 1.15 * max(total, *rivals.values(), most) / 1e9),
    )
    return fig


def bound_bars(rows: Sequence[tuple[str, float]]) -> Figure:
    """[(label, share of the bound)]: how much of what the bytes allow was measured."""
    fig, ax = plt.subplots(figsize=(7.5, 0.9 + 0.3 * len(rows)))
    shares = [100 * share for _, share in rows]
    ax.barh(range(len(rows)), shares, color=ACTIVE, height=0.65)
    ax.barh(range(len(rows)), [100 - s for s in shares], left=shares, color="#DDE3E8", height=0.65)
    for n, share in enumerate(shares):
        ax.text(share + 1, n, f"{share:.0f} %", va="center", fontsize=9)
    ax.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=8)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set(
        title=f"Single streams reach {min(shares):.0f} to {max(shares):.0f} % of the bound",
        xlabel="% of the speed that the bytes allow",
    )
    return fig


def decode_speeds(
    batches: Sequence[int], speeds: Mapping[str, Sequence[float]], of: str = "dense-active"
) -> Figure:
    """Tokens per second by batch for several models, and each one's speed as a share of the model `of`."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.3))
    _lines(left, batches, speeds)
    _doubling(left, batches)
    left.set_yscale("log")
    shares = {name: [a / b for a, b in zip(y, speeds[of], strict=True)] for name, y in speeds.items()}
    _lines(right, batches, shares)
    _doubling(right, batches)
    fastest = max(speeds, key=lambda name: speeds[name][-1])
    left.set(title=f"Batch {batches[-1]}: {fastest} leads", xlabel="batch", ylabel="tokens per second")
    right.set(title=f"The same, relative to {of}", xlabel="batch", ylabel="share", ylim=(0, None))
    return fig


def hit_rates(
    slots: Sequence[int], curves: Mapping[str, Sequence[float]], chance: Sequence[float], top_k: int
) -> Figure:
    """Hit rates of caches by slots per layer; the dotted line is that of independent uniform choices."""
    fig, ax = plt.subplots(figsize=(7, 3.4))
    _lines(ax, slots, {name: [100 * rate for rate in y] for name, y in curves.items()})
    ax.plot(slots, [100 * c for c in chance], color=FAINT, ls=":")
    ax.annotate("uniform choices", (slots[-1], 100 * chance[-1]), (-4, -12), textcoords="offset points",
                ha="right", fontsize=8, color=INK)  # fmt: skip
    rates = [100 * rate for y in curves.values() for rate in y]
    ax.set_xticks(slots, [f"{s}\n{s / top_k:g} K" for s in slots])
    ax.set(
        title=f"One model, and hit rates from {min(rates):.0f} to {max(rates):.0f} %",
        xlabel="slots of a layer's cache",
        ylabel="hits, %",
        ylim=(0, 100),
    )
    return fig


def tails(
    ranks: Sequence[int], times: Mapping[str, Sequence[Sequence[float]]], even: Sequence[float]
) -> Figure:
    """{name: [median, 99th percentile] for each number of ranks}: a layer's time relative to an even split."""
    fig, ax = plt.subplots(figsize=(7, 3.4))
    worst = 0.0
    for n, (name, pairs) in enumerate(times.items()):
        middle = [pair[0] / e for pair, e in zip(pairs, even, strict=True)]
        late = [pair[1] / e for pair, e in zip(pairs, even, strict=True)]
        ax.plot(ranks, middle, color=LINES[n], marker=MARKS[n], ms=4, label=f"{name}, median")
        ax.plot(ranks, late, color=LINES[n], marker=MARKS[n], ms=4, ls="--", label=f"{name}, 99th percentile")
        worst = max(worst, *late)
    ax.axhline(1, color=FAINT, ls=":")
    _doubling(ax, ranks)
    ax.legend(fontsize=8)
    ax.set(
        title=f"The slowest of {ranks[-1]} ranks takes up to {worst:.1f} times an even share",
        xlabel="ranks",
        ylabel="time / even share",
        ylim=(0, None),
    )
    return fig


def served(rows: Mapping[str, tuple[float, float, float]]) -> Figure:
    """{way of batching: (tokens per second, median latency, 95th percentile)}, side by side."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 1.2 + 0.5 * len(rows)), sharey=True)
    places = range(len(rows))
    left.barh(places, [row[0] for row in rows.values()], color=ACTIVE, height=0.6)
    right.barh(places, [row[2] for row in rows.values()], color=TOTAL, height=0.6, label="95th percentile")
    right.barh(places, [row[1] for row in rows.values()], color=ACTIVE, height=0.6, label="median")
    left.set_yticks(places, list(rows))
    left.set_ylim(len(rows) - 0.4, -0.6)
    best = max(rows, key=lambda name: rows[name][0])
    left.set(title=f"{best}: most tokens", xlabel="tokens per second")
    quickest = min(rows, key=lambda name: rows[name][1])
    right.set(title=f"{quickest}: shortest wait", xlabel="seconds from arrival to last token")
    right.legend(fontsize=8)
    return fig


def speculation(drafted: Sequence[int], curves: Mapping[str, Sequence[float]]) -> Figure:
    """Speed-up of speculative decoding by the number of drafted tokens, {name: a factor for each}."""
    fig, ax = plt.subplots(figsize=(7, 3.2))
    _lines(ax, drafted, curves)
    ax.axhline(1, color=FAINT, ls=":")
    best = {name: max(y) for name, y in curves.items()}
    top = max(best, key=lambda name: best[name])
    ax.set_xticks(drafted)
    ax.set(
        title=f"At best {best[top]:.2f} times as fast: {top}",
        xlabel="tokens drafted before each check",
        ylabel="tokens per second, relative",
        ylim=(0, None),
    )
    return fig


def serving_explorer(
    step: Callable[..., tuple[float, float, float]], top_k: int, num_experts: int, batch: int = 16
) -> None:
    """Sliders for batch, K and bandwidth; they call step(batch, top_k, bandwidth): (distinct, reading, computing)."""
    panel = _Panel(lambda batch, top_k, terabytes: _step_figure(step, batch, top_k, terabytes, num_experts))
    if panel.alive:
        from ipywidgets import FloatSlider, IntSlider, SelectionSlider

        panel.run(
            batch=SelectionSlider(options=[2**n for n in range(14)], value=batch, description="batch"),
            top_k=IntSlider(top_k, 1, num_experts // 2, description="K"),
            terabytes=FloatSlider(3.35, min=0.05, max=8.0, step=0.05, description="TB/s"),
        )
    else:
        panel.show(batch=batch, top_k=top_k, terabytes=3.35)


def _step_figure(
    step: Callable[..., tuple[float, float, float]],
    batch: int,
    top_k: int,
    terabytes: float,
    num_experts: int,
) -> tuple[Figure, str]:
    distinct, reading, computing = step(batch, top_k, terabytes * 1e12)
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 2.4), width_ratios=(1, 1.4))
    left.barh([0], [num_experts], color="#DDE3E8")
    left.barh([0], [distinct], color=ACTIVE)
    left.set_yticks([])
    left.set(title=f"{distinct:.0f} of {num_experts} experts are read", xlabel="experts of a layer")
    right.barh([0, 1], [1e3 * reading, 1e3 * computing], color=[ACTIVE, "#D55E00"])
    right.set_yticks([0, 1], ["reading", "arithmetic"])
    seconds = max(reading, computing)
    right.set(title=f"{batch / seconds:,.0f} tokens/s, each reader {1 / seconds:,.0f}", xlabel="ms of a step")
    times = f"{1e3 * reading:.2f} ms reading, {1e3 * computing:.2f} ms arithmetic"
    return fig, f"{distinct:.0f} of {num_experts} experts, {times}"
