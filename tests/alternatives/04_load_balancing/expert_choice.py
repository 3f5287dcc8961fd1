import torch


def topk_returned_as_it_is(probs_TE, capacity):
    tokens, _ = probs_TE.shape if probs_TE.ndim == 2 else (0, 0)
    if capacity not in range(1, tokens + 1):
        raise ValueError(f"capacity {capacity} for probabilities of shape {tuple(probs_TE.shape)}")
    return torch.topk(probs_TE.mT, capacity)


def sorted_columns(probs_TE, capacity):
    if probs_TE.ndim != 2:
        raise ValueError(f"{probs_TE.ndim} axes")
    if capacity < 1 or capacity > probs_TE.size(0):
        raise ValueError(f"{capacity = }")
    idx_TE = torch.argsort(probs_TE, dim=0, descending=True)
    weights_TE = torch.take_along_dim(probs_TE, idx_TE, dim=0)
    return [weights_TE[:capacity].T, idx_TE[:capacity].T.int()]


def expert_by_expert(probs_TE, capacity):
    if probs_TE.dim() != 2 or not 0 < capacity <= len(probs_TE):
        raise ValueError((capacity, probs_TE.shape))
    chosen = [
        torch.tensor(sorted(range(len(column)), key=column.tolist().__getitem__, reverse=True)[:capacity])
        for column in probs_TE.unbind(dim=1)
    ]
    weights = [column[idx_C] for column, idx_C in zip(probs_TE.unbind(dim=1), chosen, strict=True)]
    return torch.stack(weights), torch.stack(chosen)
