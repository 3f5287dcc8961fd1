"""What travels between ranks, in bytes, and how long a step takes with it.

Sizes: T tokens, K experts per token, D model width, R ranks. Bytes are those of one rank in one direction, forward.
"""

from __future__ import annotations

import torch
from torch import Tensor

from moe_course.shapes import check_axes


def all_to_all_bytes(
    tokens_per_rank: int, top_k: int, d_model: int, bytes_per_value: float, num_ranks: int
) -> float:
    """Bytes that leave a rank in one exchange, uniform routing: (R − 1)/R of its T·K copies of D values.

    Raises ValueError for sizes below 1 and for values without bytes.
    """
    _positive(tokens_per_rank=tokens_per_rank, top_k=top_k, d_model=d_model, num_ranks=num_ranks)
    _positive(bytes_per_value=bytes_per_value)
    return tokens_per_rank * top_k * d_model * bytes_per_value * (num_ranks - 1) / num_ranks


def distinct_nodes(idx_TK: Tensor, num_experts: int, num_nodes: int) -> Tensor:
    """How many nodes each token visits, nodes_T, int64; node m holds experts m·E/M to (m+1)·E/M − 1.

    That many copies of a token must travel if each node gets it once and passes it on inside. Source: DeepSeek-V3
    technical report, arXiv 2412.19437, section 3.2.2, where group-limited routing bounds it by 4.
    Raises ValueError where experts do not divide into nodes.
    """
    check_axes(idx_TK=idx_TK)
    if num_nodes < 1 or num_experts < 1 or num_experts % num_nodes:
        raise ValueError(f"{num_experts} experts do not divide into {num_nodes} nodes")
    visits_TM = torch.zeros(len(idx_TK), num_nodes, dtype=torch.int64, device=idx_TK.device)
    visits_TM.scatter_(1, idx_TK.long() // (num_experts // num_nodes), 1)
    return visits_TM.sum(dim=1)


def expected_distinct_nodes(num_experts: int, top_k: int, num_nodes: int) -> float:
    """The mean of `distinct_nodes` where each token draws K different experts uniformly: M·(1 − C(E−E/M, K)/C(E, K)).

    A node is missed if all K experts lie among the E − E/M others.
    """
    per_node = num_experts // num_nodes
    missed = 1.0
    for k in range(top_k):
        missed *= max(0, num_experts - per_node - k) / (num_experts - k)
    return num_nodes * (1 - missed)


def tensor_parallel_bytes(
    tokens_per_rank: int, d_model: int, bytes_per_value: float, num_ranks: int
) -> float:
    """Bytes that leave a rank, forward, where every expert is cut over all R ranks and partial results are added up.

    One ring all-reduce of the R·T tokens of all ranks: 2·(R − 1)/R of R·T·D values (Megatron-LM, arXiv 1909.08053,
    section 3; another one backward). Compare with two exchanges of expert parallelism, 2 · all_to_all_bytes: their
    ratio is K to R.
    """
    _positive(tokens_per_rank=tokens_per_rank, d_model=d_model, num_ranks=num_ranks)
    return 2 * (num_ranks - 1) * tokens_per_rank * d_model * bytes_per_value


def step_time(
    load_R: Tensor, seconds_per_token: float, bytes_out: float, bandwidth: float, latency: float
) -> float:
    """Seconds of one layer's forward pass: max load · seconds per token + 2 · (latency + bytes / bandwidth).

    load_R: rows that each rank's experts compute; all wait for the largest. Two exchanges forward, four in training.
    Raises ValueError for loads or times below 0 and for a bandwidth that is not positive.
    """
    check_axes(load_R=load_R)
    _positive(bandwidth=bandwidth)
    if len(load_R) == 0 or float(load_R.min()) < 0 or min(seconds_per_token, bytes_out, latency) < 0:
        raise ValueError(
            f"nothing takes less than no time: loads {load_R.tolist()}, {seconds_per_token} s per token, "
            f"{bytes_out} bytes, latency {latency} s"
        )
    return float(load_R.max()) * seconds_per_token + 2 * (latency + bytes_out / bandwidth)


def _positive(**sizes: float) -> None:
    for name, size in sizes.items():
        if not size > 0:
            raise ValueError(f"{name} must be positive, got {size}")
