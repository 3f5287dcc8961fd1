import torch


def _check(probs_TE, capacity):
    if probs_TE.dim() != 2 or not 0 < capacity <= probs_TE.shape[0]:
        raise ValueError(f"capacity {capacity}")


def tokens_choose(probs_TE, capacity):
    _check(probs_TE, capacity)
    top = torch.topk(probs_TE, min(capacity, probs_TE.shape[1]), dim=1)
    return top.values, top.indices


def a_column_for_each_expert(probs_TE, capacity):
    _check(probs_TE, capacity)
    w, i = probs_TE.sort(dim=0, descending=True)
    return w[:capacity], i[:capacity]


def renormalised(probs_TE, capacity):
    _check(probs_TE, capacity)
    idx = probs_TE.T.argsort(1, descending=True)[:, :capacity]
    w = probs_TE.T.gather(1, idx)
    return w / w.sum(1)[:, None], idx


def each_token_only_once(probs_TE, capacity):
    _check(probs_TE, capacity)
    _T, E = probs_TE.shape
    taken, rows = set(), []
    for e in range(E):
        free = [t for t in probs_TE[:, e].argsort(descending=True).tolist() if t not in taken]
        free += [t for t in probs_TE[:, e].argsort(descending=True).tolist() if t in taken]
        rows.append(free[:capacity])
        taken.update(free[:capacity])
    idx = torch.tensor(rows)
    return probs_TE.T.gather(1, idx), idx


def nothing_checked(probs_TE, capacity):
    idx = torch.argsort(probs_TE.mT, dim=-1, descending=True)[..., :capacity]
    return probs_TE.mT.gather(-1, idx), idx


def ascending(probs_TE, capacity):
    _check(probs_TE, capacity)
    idx = probs_TE.T.argsort(dim=1)[:, -capacity:]
    return probs_TE.T.gather(1, idx), idx


def weights_of_one(probs_TE, capacity):
    _check(probs_TE, capacity)
    idx = probs_TE.T.argsort(dim=1, descending=True)[:, :capacity]
    return torch.ones(idx.shape, dtype=probs_TE.dtype), idx
