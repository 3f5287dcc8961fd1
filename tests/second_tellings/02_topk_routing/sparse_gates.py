import torch
import torch.nn.functional as F


def nothing_masked(logits_TE, k):
    return F.softmax(logits_TE, dim=1)


def zeros_among_the_logits(logits_TE, k):
    keep = torch.zeros_like(logits_TE, dtype=torch.bool)
    keep.scatter_(1, logits_TE.topk(k).indices, True)
    return F.softmax(torch.where(keep, logits_TE, 0.0), dim=1)


def gates_of_the_chosen_only(logits_TE, k):
    best = torch.sort(logits_TE, dim=1, descending=True).values[:, :k]
    return torch.softmax(best, dim=1)


def softmax_before_the_mask(logits_TE, k):
    p = logits_TE.softmax(-1)
    mask = torch.zeros_like(p)
    for t in range(p.shape[0]):
        for j in p[t].argsort(descending=True)[:k]:
            mask[t, j] = 1
    return p * mask


def experts_choose_tokens(logits_TE, k):
    chosen = logits_TE.topk(min(k, len(logits_TE)), dim=0).indices
    masked = torch.full_like(logits_TE, -float("inf"))
    masked = masked.scatter(0, chosen, logits_TE.gather(0, chosen))
    return torch.softmax(masked, -1).nan_to_num(0)


def logits_overwritten(logits_TE, k):
    smallest = logits_TE.topk(k, dim=-1).values[:, -1:]
    logits_TE[logits_TE < smallest] = float("-inf")
    return logits_TE.softmax(dim=-1)


def exp_by_hand(logits_TE, k):
    val, idx = logits_TE.topk(k)
    val = torch.exp(val)
    return torch.zeros_like(logits_TE).scatter(1, idx, val / val.sum(-1, keepdim=True))
