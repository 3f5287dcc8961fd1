"""What the right answers of notebook 08 are, computed slowly and obviously, independent of the library."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence

import torch


def routing_counts(
    idx_TK: torch.Tensor, labels_T: torch.Tensor, num_labels: int, num_experts: int
) -> torch.Tensor:
    """One more for each choice of each token."""
    counts = [[0] * num_experts for _ in range(num_labels)]
    for chosen, label in zip(idx_TK.tolist(), labels_T.tolist(), strict=True):
        for expert in chosen:
            counts[label][expert] += 1
    return torch.tensor(counts)


def mutual_information(counts_GE: torch.Tensor) -> float:
    """H(label) + H(expert) − H(label and expert), bits."""
    return bits_of(counts_GE.double().tolist())


def bits_of(rows: Sequence[Sequence[float]]) -> float:
    """The same, of a table in lists."""
    columns = list(zip(*rows, strict=True))
    cells = [count for row in rows for count in row]
    return entropy([sum(row) for row in rows]) + entropy([sum(c) for c in columns]) - entropy(cells)


def entropy(counts: Sequence[float]) -> float:
    """Bits of the shares that the counts are of their sum; 0 · log 0 is 0."""
    total = math.fsum(counts)
    return -math.fsum(count / total * math.log2(count / total) for count in counts if count > 0)


def shuffles(
    idx_T: torch.Tensor, labels_T: torch.Tensor, groups_T: torch.Tensor
) -> tuple[float, list[float]]:
    """The observed bits, and those of every different way to give the labels out to the documents.

    All ways are equally likely. For a handful of documents only.
    """
    experts_of: dict[int, list[int]] = {}
    label_of = {}
    for expert, label, document in zip(idx_T.tolist(), labels_T.tolist(), groups_T.tolist(), strict=True):
        experts_of.setdefault(document, [0] * (int(idx_T.max()) + 1))[expert] += 1
        label_of[document] = label

    def bits(labels: Sequence[int]) -> float:
        table: dict[int, list[int]] = {}
        for counts, label in zip(experts_of.values(), labels, strict=True):
            table[label] = [a + b for a, b in zip(table.get(label, [0] * len(counts)), counts, strict=True)]
        return bits_of(list(table.values()))

    as_they_are = list(label_of.values())
    return bits(as_they_are), [bits(labels) for labels in ways(Counter(as_they_are))]


def ways(left: Counter[int]) -> Iterator[list[int]]:
    """Every different order of the labels that are left."""
    if not any(left.values()):
        yield []
    for label in list(left):
        if left[label]:
            left[label] -= 1
            yield from ([label, *rest] for rest in ways(left))
            left[label] += 1


def tails(idx_T: torch.Tensor, labels_T: torch.Tensor, groups_T: torch.Tensor) -> tuple[float, float]:
    """Share of the shuffles with more bits than observed, and with at least as many, to rounding."""
    observed, null = shuffles(idx_T, labels_T, groups_T)
    more, as_many = (sum(bits > observed + slack for bits in null) for slack in (1e-6, -1e-6))
    return more / len(null), as_many / len(null)


def plausible(count: int, rounds: int, least: float, most: float, doubt: float = 1e-9) -> bool:
    """Whether `count` of `rounds` can be chance, if each counts with a probability between `least` and `most`."""

    def between(first: int, last: int, p: float) -> float:
        return math.fsum(
            math.comb(rounds, k) * p**k * (1 - p) ** (rounds - k) for k in range(first, last + 1)
        )

    return between(0, count, least) > doubt and between(count, rounds, most) > doubt


def repeat_rate(idx_BS: torch.Tensor) -> float:
    """Walk along every sequence and look one token ahead."""
    pairs = [(a, b) for row in idx_BS.tolist() for a, b in itertools.pairwise(row)]
    return sum(a == b for a, b in pairs) / len(pairs)


def coactivation(idx_TK: torch.Tensor, num_experts: int) -> torch.Tensor:
    """For each pair of different experts: how many tokens have both among their choices?"""
    chosen = [set(row) for row in idx_TK.tolist()]
    return torch.tensor(
        [
            [sum(a != b and a in row and b in row for row in chosen) for b in range(num_experts)]
            for a in range(num_experts)
        ]
    )


def ablation_effect(base_G: torch.Tensor, ablated_GE: torch.Tensor) -> torch.Tensor:
    """Entry by entry: the loss without the expert, less the loss with it."""
    delta_GE = torch.empty_like(ablated_GE)
    for g in range(len(base_G)):
        for e in range(ablated_GE.shape[1]):
            delta_GE[g, e] = ablated_GE[g, e] - base_G[g]
    return delta_GE
