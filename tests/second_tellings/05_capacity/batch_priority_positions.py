import torch


def _queue(idx_TK, tokens, start=0):
    """Places in choice-major order: slot by slot, and within a slot the tokens in the given order."""
    seen, places = {}, torch.zeros_like(idx_TK)
    for slot in range(idx_TK.shape[1]):
        for t in tokens:
            e = int(idx_TK[t, slot])
            places[t, slot] = seen.get(e, start)
            seen[e] = seen.get(e, start) + 1
    return places


def in_token_order(idx_TK, weights_TK, num_experts):
    return _queue(idx_TK, range(len(idx_TK)))


def light_tokens_first(idx_TK, weights_TK, num_experts):
    return _queue(idx_TK, torch.argsort(weights_TK[:, 0]).tolist())


def left_in_sorted_order(idx_TK, weights_TK, num_experts):
    order = weights_TK[:, 0].sort(descending=True).indices
    return _queue(idx_TK, order.tolist())[order]


def counted_from_one(idx_TK, weights_TK, num_experts):
    return _queue(idx_TK, weights_TK[:, 0].argsort(descending=True).tolist(), start=1)


def rank_among_all_tokens(idx_TK, weights_TK, num_experts):
    w = weights_TK[:, 0]
    rank = (w[None, :] > w[:, None]).sum(1)
    return rank[:, None].expand_as(idx_TK).clone()


def token_major(idx_TK, weights_TK, num_experts):
    counts, places = [0] * num_experts, torch.zeros_like(idx_TK)
    for t in weights_TK[:, 0].argsort(descending=True).tolist():
        for slot, e in enumerate(idx_TK[t].tolist()):
            places[t, slot] = counts[e]
            counts[e] += 1
    return places


def a_queue_for_each_slot(idx_TK, weights_TK, num_experts):
    order = weights_TK[:, 0].argsort(descending=True).tolist()
    return torch.cat([_queue(idx_TK[:, s : s + 1], order) for s in range(idx_TK.shape[1])], dim=1)


def all_assignments_by_weight(idx_TK, weights_TK, num_experts):
    K = idx_TK.shape[1]
    counts, places = [0] * num_experts, torch.zeros_like(idx_TK)
    for n in weights_TK.flatten().argsort(descending=True).tolist():
        e = int(idx_TK[n // K, n % K])
        places[n // K, n % K] = counts[e]
        counts[e] += 1
    return places


def second_choices_in_token_order(idx_TK, weights_TK, num_experts):
    counts, places = [0] * num_experts, torch.zeros_like(idx_TK)
    first = weights_TK[:, 0].argsort(descending=True).tolist()
    for slot in range(idx_TK.shape[1]):
        for t in first if slot == 0 else range(len(idx_TK)):
            e = int(idx_TK[t, slot])
            places[t, slot] = counts[e]
            counts[e] += 1
    return places


def by_the_sum_of_the_weights(idx_TK, weights_TK, num_experts):
    return _queue(idx_TK, weights_TK.sum(1).argsort(descending=True, stable=True).tolist())


def each_slot_by_its_own_weight(idx_TK, weights_TK, num_experts):
    counts, places = [0] * num_experts, torch.zeros_like(idx_TK)
    for slot in range(idx_TK.shape[1]):
        for t in weights_TK[:, slot].argsort(descending=True).tolist():
            places[t, slot] = counts[idx_TK[t, slot]]
            counts[idx_TK[t, slot]] += 1
    return places


def by_the_last_weight(idx_TK, weights_TK, num_experts):
    return _queue(idx_TK, weights_TK[:, -1].argsort(descending=True).tolist())
