import heapq

import torch


def a_heap_of_ranks(load_E, num_ranks):
    ranks = [(0.0, rank, len(load_E) // num_ranks) for rank in range(num_ranks)]
    rank_E = torch.empty(len(load_E), dtype=torch.int32)
    for expert in torch.argsort(load_E.double(), descending=True, stable=True).tolist():
        total, rank, room = heapq.heappop(ranks)
        rank_E[expert] = rank
        if room > 1:
            heapq.heappush(ranks, (total + float(load_E[expert]), rank, room - 1))
    return rank_E


def full_ranks_weigh_infinitely_much(load_E, num_ranks):
    total_R = torch.zeros(num_ranks, dtype=torch.float64)
    held_R = torch.zeros(num_ranks, dtype=torch.int64)
    rank_E = torch.zeros_like(load_E, dtype=torch.int64)
    for expert in sorted(range(len(load_E)), key=lambda e: (-float(load_E[e]), e)):
        closed_R = held_R == len(load_E) // num_ranks
        rank = int(total_R.masked_fill(closed_R, float("inf")).argmin())
        rank_E[expert] = rank
        total_R[rank] += float(load_E[expert])
        held_R[rank] += 1
    return rank_E
