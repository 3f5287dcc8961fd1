"""Which rank holds which expert, and who of them is held twice.

rank_E = place_experts(load_E, num_ranks)
copies_E = replicate_experts(load_E, num_slots)     # how many copies of each expert
"""

from __future__ import annotations

import torch
from torch import Tensor

from moe_course.shapes import check_axes


def place_experts(load_E: Tensor, num_ranks: int) -> Tensor:
    """A rank for each expert, rank_E, int64, E/R experts on each rank: greedy, the heaviest expert first.

    Each goes to the rank with the least load so far among those that have room; ties to the lower index. (Graham's
    rule of longest processing time first, SIAM J. Appl. Math. 17(2), 1969, with room for E/R.)
    Raises ValueError where experts do not divide into ranks.
    """
    check_axes(load_E=load_E)
    loads = [float(load) for load in load_E]
    if num_ranks < 1 or not loads or len(loads) % num_ranks:
        raise ValueError(f"{len(loads)} experts do not divide into {num_ranks} ranks")
    room = [len(loads) // num_ranks] * num_ranks
    total, rank_of = [0.0] * num_ranks, [0] * len(loads)
    for expert in sorted(
        range(len(loads)), key=lambda e: -loads[e]
    ):  # stable: of equals the lower index first
        rank = min((r for r in range(num_ranks) if room[r]), key=lambda r: total[r])
        rank_of[expert] = rank
        total[rank] += loads[expert]
        room[rank] -= 1
    return torch.tensor(rank_of, device=load_E.device)


def replicate_experts(load_E: Tensor, num_slots: int) -> Tensor:
    """How many copies each expert gets, copies_E, int64: one each, then one more for whoever has the largest share.

    A share is load / copies. Source: `replicate_experts` of deepseek-ai/EPLB, eplb.py. Raises ValueError for fewer
    slots than experts.
    """
    check_axes(load_E=load_E)
    loads = [float(load) for load in load_E]
    if num_slots < len(loads):
        raise ValueError(f"{num_slots} slots cannot hold {len(loads)} experts")
    copies = [1] * len(loads)
    for _ in range(num_slots - len(loads)):
        busiest = max(range(len(loads)), key=lambda e: loads[e] / copies[e])
        copies[busiest] += 1
    return torch.tensor(copies, device=load_E.device)


def rank_loads(load_E: Tensor, rank_E: Tensor, num_ranks: int) -> Tensor:
    """The load of each rank, load_R, for a placement; in the dtype of load_E."""
    check_axes(load_E=load_E, rank_E=rank_E)
    return load_E.new_zeros(num_ranks).index_add(0, rank_E, load_E)
