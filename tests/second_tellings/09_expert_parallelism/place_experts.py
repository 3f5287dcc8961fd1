import torch


def _down(load_E):
    return torch.argsort(load_E.double(), descending=True, stable=True).tolist()


def blocks_as_before(load_E, num_ranks):
    return torch.arange(num_ranks).repeat_interleave(len(load_E) // num_ranks)


def dealt_like_cards(load_E, num_ranks):
    rank_E = torch.zeros(len(load_E), dtype=torch.int64)
    for place, expert in enumerate(_down(load_E)):
        rank_E[expert] = place % num_ranks
    return rank_E


def back_and_forth(load_E, num_ranks):
    way = [*range(num_ranks), *reversed(range(num_ranks))]
    rank_E = torch.zeros(len(load_E), dtype=torch.int64)
    for place, expert in enumerate(_down(load_E)):
        rank_E[expert] = way[place % (2 * num_ranks)]
    return rank_E


def _greedy(load_E, num_ranks, order):
    sums, held = [0.0] * num_ranks, [[] for _ in range(num_ranks)]
    for expert in order:
        free = [r for r in range(num_ranks) if len(held[r]) * num_ranks < len(load_E)]
        rank = min(free, key=sums.__getitem__)
        held[rank].append(expert)
        sums[rank] += load_E[expert].item()
    return torch.tensor([next(r for r in range(num_ranks) if e in held[r]) for e in range(len(load_E))])


def lightest_first(load_E, num_ranks):
    return _greedy(load_E, num_ranks, torch.argsort(load_E.double(), stable=True).tolist())


def in_the_order_they_come(load_E, num_ranks):
    return _greedy(load_E, num_ranks, list(range(load_E.numel())))


def loads_never_added(load_E, num_ranks):
    rank_E = torch.zeros(len(load_E), dtype=torch.int64)
    for place, expert in enumerate(_down(load_E)):
        rank_E[expert] = place // (len(load_E) // num_ranks)
    return rank_E


def no_room_limit(load_E, num_ranks):
    sums_R, rank_E = torch.zeros(num_ranks, dtype=torch.float64), torch.zeros(len(load_E), dtype=torch.int64)
    for expert in _down(load_E):
        rank_E[expert] = sums_R.argmin()
        sums_R[rank_E[expert]] += load_E[expert]
    return rank_E


def later_experts_first(load_E, num_ranks):
    backwards = [len(load_E) - 1 - e for e in _down(load_E.flip(0))]
    return _greedy(load_E, num_ranks, backwards)


def a_list(load_E, num_ranks):
    return [int(r) for r in _greedy(load_E, num_ranks, _down(load_E))]
