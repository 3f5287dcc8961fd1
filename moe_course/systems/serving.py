"""What serving a mixture of experts costs: experts and bytes per step, the roofline, a cache, latency, int8 weights.

In decoding every sequence of a batch gets one new token per step, so a batch of B sequences is B tokens. A step must
read every weight that one of them needs, and it reads it once, however many need it.

    bytes_per_step = decode_bytes(fixed, expert, num_layers=48, num_experts=128, top_k=8, batch=16, ...)
    decode_seconds(bytes_per_step, active_params, batch=16, bandwidth=3.35e12, peak_flops=989e12)

Times here are lower bounds, and speeds upper ones: what a machine reaches has to be measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from moe_course.shapes import check_axes


def expected_distinct_experts(num_experts: int, top_k: int, batch: int) -> float:
    """How many of a layer's E experts a step of B tokens uses on average: E · (1 − (1 − K/E)^B).

    A token misses an expert with probability 1 − K/E, and all B tokens with the B-th power of that, if each chooses
    its K experts independently and all are equally likely. If some experts are likelier than others, fewer are used.
    Raises ValueError for top_k outside 1..num_experts or a batch that is not positive.
    """
    _need_choice(num_experts, top_k)
    _need_positive(batch=batch)
    return num_experts * (1 - (1 - top_k / num_experts) ** batch)


def decode_bytes(
    fixed_bytes: float,
    expert_bytes: float,
    num_layers: int,
    num_experts: int,
    top_k: int,
    batch: int,
    kv_bytes_per_sequence: float,
) -> float:
    """Bytes that one decoding step reads: fixed + L · (distinct experts) · expert + B · kv.

    fixed_bytes: every weight that each token uses (attention, norms, routers, shared experts, dense layers, the
    output embedding). expert_bytes: one expert of one layer; num_layers counts layers with experts, 0 for a dense
    model. Each sequence reads its own keys and values. Raises ValueError for negative bytes and as
    `expected_distinct_experts`.
    """
    if min(fixed_bytes, expert_bytes, num_layers, kv_bytes_per_sequence) < 0:
        raise ValueError(
            "bytes and layers must not be negative, got "
            f"{(fixed_bytes, expert_bytes, num_layers, kv_bytes_per_sequence)}"
        )
    distinct = expected_distinct_experts(num_experts, top_k, batch)
    return float(fixed_bytes + num_layers * distinct * expert_bytes + batch * kv_bytes_per_sequence)


def decode_seconds(
    bytes_per_step: float, active_params: float, batch: int, bandwidth: float, peak_flops: float
) -> float:
    """The least time of a decoding step: the longer of reading its bytes and doing 2 · active · B FLOPs.

    active_params: parameters that one token multiplies with, so without the input embedding, which is a look-up.
    bandwidth: bytes per second. Source: the roofline model, Williams et al. 2009, doi 10.1145/1498765.1498785.
    Raises ValueError for a batch, bandwidth or peak that is not positive.
    """
    _need_positive(batch=batch, bandwidth=bandwidth, peak_flops=peak_flops)
    return max(bytes_per_step / bandwidth, 2 * active_params * batch / peak_flops)


def simulate_expert_cache(trace: Iterable[int], capacity: int, policy: str) -> float:
    """The share of uses that find their expert in a cache of `capacity` experts, which is empty at first.

    trace: the experts in the order of their use, for K > 1 the K of the first token, then those of the second. On a
    miss the expert is loaded; if the cache is full, one expert leaves it. "lru": the one that was not used for the
    longest time. "lfu": the one with the fewest uses since it was loaded; of equals the less recently used. Raises
    ValueError for an empty trace, a capacity below 1 or another policy.
    """
    uses = [int(expert) for expert in trace]
    if policy not in ("lru", "lfu"):
        raise ValueError(f'policy must be "lru" or "lfu", got {policy!r}')
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, got {capacity}")
    if not uses:
        raise ValueError("the trace is empty: it has no hit rate")
    cached: dict[int, tuple[int, int]] = {}  # expert: (uses that count, time of the last one)
    hits = 0
    for now, expert in enumerate(uses):
        count = 0
        if expert in cached:
            hits += 1
            count = cached[expert][0]
        elif len(cached) == capacity:
            del cached[min(cached, key=cached.__getitem__)]
        cached[expert] = (count + 1 if policy == "lfu" else 0, now)
    return hits / len(uses)


def tail_latency(
    probs_E: Tensor,
    num_ranks: int,
    tokens: int,
    seconds_per_token: float,
    percentiles: Sequence[float],
    rounds: int,
    generator: torch.Generator,
) -> list[float]:
    """Percentiles of a layer's time on R ranks, by Monte Carlo: in each round the slowest rank decides.

    A round draws one expert for each of the tokens from probs_E (E/R neighbouring experts lie on each rank); its time
    is the largest number of tokens on a rank, times seconds_per_token. percentiles: from 0 to 100, answered in their
    order, with linear interpolation between rounds. Raises ValueError for sizes that are not positive, ranks that do
    not divide the experts, or a percentile outside 0..100.
    """
    num_experts = check_axes(probs_E=probs_E)["E"]
    _need_positive(num_ranks=num_ranks, tokens=tokens, rounds=rounds)
    if num_experts % num_ranks:
        raise ValueError(f"{num_experts} experts do not divide into {num_ranks} ranks")
    if not all(0 <= p <= 100 for p in percentiles):
        raise ValueError(f"percentiles must be in 0..100, got {list(percentiles)}")
    probs_E = probs_E.to(generator.device)
    seconds = []
    for _ in range(rounds):
        expert_T = torch.multinomial(probs_E, tokens, replacement=True, generator=generator)
        load_R = torch.bincount(expert_T // (num_experts // num_ranks), minlength=num_ranks)
        seconds.append(load_R.max().item() * seconds_per_token)
    wanted = torch.tensor([p / 100 for p in percentiles], dtype=torch.float64)
    return [float(time) for time in torch.tensor(seconds, dtype=torch.float64).quantile(wanted)]


def quantize_int8(w_EDF: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric 8-bit weights: (q_EDF int8 within ±127, scale_EF in the dtype of w_EDF), with w ≈ q · scale.

    Each expert and output column has a scale of its own, max|w| / 127 over the D inputs; a column of zeros has
    scale 1. The scheme of LLM.int8 (Dettmers et al. 2022, arXiv 2208.07339, section 2.1, "absmax", by column).
    """
    check_axes(w_EDF=w_EDF)
    exact = torch.promote_types(w_EDF.dtype, torch.float32)
    scale_EF = (w_EDF.abs().amax(dim=1).to(exact) / 127).to(w_EDF.dtype)
    scale_EF = torch.where(scale_EF == 0, 1, scale_EF)
    q_EDF = (w_EDF.to(exact) / scale_EF[:, None].to(exact)).round()
    return q_EDF.clamp(-127, 127).to(torch.int8), scale_EF  # very small scales are rounded far


def dequantize_int8(q_EDF: Tensor, scale_EF: Tensor) -> Tensor:
    """The weights that `quantize_int8` stored, to within half a scale; in the dtype of the scales."""
    check_axes(q_EDF=q_EDF, scale_EF=scale_EF)
    return q_EDF.to(scale_EF.dtype) * scale_EF[:, None]


def critical_batch(
    bandwidth: float, peak_flops: float, bytes_per_value: float = 2, num_experts: int = 1, top_k: int = 1
) -> float:
    """From how many tokens on arithmetic takes longer than reading the weights: peak · bytes / (2 · bandwidth).

    That is for a dense model. An expert gets only B · K/E of B tokens, so for the experts of a mixture it is E/K
    times as many. Weights alone are counted, no keys and values. Raises ValueError as the functions above.
    """
    _need_choice(num_experts, top_k)
    _need_positive(bandwidth=bandwidth, peak_flops=peak_flops, bytes_per_value=bytes_per_value)
    return peak_flops * bytes_per_value / (2 * bandwidth) * num_experts / top_k


def _need_choice(num_experts: int, top_k: int) -> None:
    _need_positive(num_experts=num_experts)
    if not 1 <= top_k <= num_experts:
        raise ValueError(f"top_k must be in 1..{num_experts}, the number of experts, got {top_k}")


def _need_positive(**sizes: float) -> None:
    for name, size in sizes.items():
        if not 0 < size < math.inf:
            raise ValueError(f"{name} must be positive, got {size}")
