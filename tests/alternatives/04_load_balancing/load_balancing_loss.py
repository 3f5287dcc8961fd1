import torch
import torch.nn.functional as F


def masked_rows_deleted(probs_TE, idx_TK, mask_T=None):
    if mask_T is not None:
        probs_TE, idx_TK = probs_TE[mask_T], idx_TK[mask_T]
    experts = probs_TE.size(-1)
    f_E = torch.bincount(idx_TK.reshape(-1), minlength=experts).double() / idx_TK.numel()
    return experts * torch.dot(f_E, probs_TE.double().mean(0))


def weighted_means(probs_TE, idx_TK, mask_T=None):
    weight_T = torch.ones(len(probs_TE)) if mask_T is None else mask_T.float()
    weight_T = weight_T / weight_T.sum()
    f_E = torch.einsum("t,tke->e", weight_T, F.one_hot(idx_TK, probs_TE.shape[1]).float()) / idx_TK.shape[1]
    return probs_TE.shape[1] * (f_E * (weight_T @ probs_TE.float())).sum()


def in_the_way_of_megatron(probs_TE, idx_TK, mask_T=None):
    """E / (T·T·K) times the sum over experts of assignments times summed probabilities."""
    rows = range(len(probs_TE)) if mask_T is None else mask_T.nonzero().flatten().tolist()
    total = 0.0
    for e in range(probs_TE.shape[1]):
        assigned = sum(int((idx_TK[t] == e).sum()) for t in rows)
        total = total + assigned * probs_TE[list(rows), e].float().sum()
    return total * probs_TE.shape[1] / (len(rows) ** 2 * idx_TK.shape[1])
