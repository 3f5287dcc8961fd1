"""What the right answers of notebook 10 are, computed slowly and obviously, independent of the library."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import torch


def expected_distinct_experts(num_experts: int, top_k: int, batch: int) -> float:
    """One token after another: of the experts that nobody has chosen yet, a share of K/E is chosen now."""
    unused = Fraction(num_experts)
    for _ in range(batch):
        unused -= unused * Fraction(top_k, num_experts)
    return float(num_experts - unused)


def decode_bytes(
    fixed_bytes: float,
    expert_bytes: float,
    num_layers: int,
    num_experts: int,
    top_k: int,
    batch: int,
    kv_bytes_per_sequence: float,
) -> float:
    """Layer by layer and sequence by sequence."""
    read = float(fixed_bytes)
    for _ in range(num_layers):
        read += expected_distinct_experts(num_experts, top_k, batch) * expert_bytes
    for _ in range(batch):
        read += kv_bytes_per_sequence
    return read


def decode_seconds(
    bytes_per_step: float, active_params: float, batch: int, bandwidth: float, peak_flops: float
) -> float:
    """Memory and arithmetic work at the same time, so the slower one decides."""
    reading = bytes_per_step / bandwidth
    computing = sum(2 * active_params for _ in range(batch)) / peak_flops
    return reading if reading > computing else computing


def simulate_expert_cache(trace: Sequence[int], capacity: int, policy: str) -> float:
    """The cache as a list, least recently used first, with the number of uses beside each expert."""
    cache: list[list[int]] = []
    hits = 0
    for expert in trace:
        entry = next((pair for pair in cache if pair[0] == expert), None)
        if entry:
            hits += 1
            cache.remove(entry)
        else:
            entry = [expert, 0]
            if len(cache) == capacity:
                fewest = min(uses for _, uses in cache)
                victim = cache[0] if policy == "lru" else next(p for p in cache if p[1] == fewest)
                cache.remove(victim)
        entry[1] += 1
        cache.append(entry)
    return hits / len(trace)


def max_load_law(probs: Sequence[float], num_ranks: int, tokens: int) -> dict[int, float]:
    """The probability of each largest rank load: every way to put the tokens on the ranks. Small cases only."""
    size, total = len(probs) // num_ranks, math.fsum(probs)
    rank = [math.fsum(probs[r * size : (r + 1) * size]) / total for r in range(num_ranks)]
    law: dict[int, float] = {}
    for ranks in itertools.product(range(num_ranks), repeat=tokens):
        largest = max(ranks.count(r) for r in range(num_ranks))
        law[largest] = law.get(largest, 0.0) + math.prod(rank[r] for r in ranks)
    return law


def plausible(count: int, rounds: int, p: float, doubt: float = 1e-9) -> bool:
    """Whether `count` of `rounds` can be chance, if each counts with probability p."""

    def between(first: int, last: int) -> float:
        ways = range(first, last + 1)
        return math.fsum(math.comb(rounds, k) * p**k * (1 - p) ** (rounds - k) for k in ways)

    return between(0, count) > doubt and between(count, rounds) > doubt


def scales(w_EDF: torch.Tensor) -> torch.Tensor:
    """max|w| / 127 of each expert and output column, in float64."""
    columns = [[max(abs(x) for x in column) / 127 for column in w.double().T.tolist()] for w in w_EDF]
    return torch.tensor(columns, dtype=torch.float64)


def dequantize_int8(q_EDF: torch.Tensor, scale_EF: torch.Tensor) -> torch.Tensor:
    """Entry by entry: q times the scale of its expert and column, in float64."""
    w_EDF = torch.zeros(q_EDF.shape, dtype=torch.float64)
    for e, d, f in itertools.product(*map(range, q_EDF.shape)):
        w_EDF[e, d, f] = q_EDF[e, d, f].item() * scale_EF[e, f].item()
    return w_EDF
