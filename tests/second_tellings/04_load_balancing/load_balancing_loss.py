import torch
import torch.nn.functional as F


def _f(idx_TK, E):
    return F.one_hot(idx_TK, E).float().mean((0, 1))


def like_hugging_face(probs_TE, idx_TK, mask_T=None):
    E = probs_TE.shape[1]
    if mask_T is not None:
        probs_TE, idx_TK = probs_TE[mask_T], idx_TK[mask_T]
    per_token = F.one_hot(idx_TK, E).sum(1).float()
    return E * (per_token.mean(0) * probs_TE.mean(0)).sum()


def without_the_number_of_experts(probs_TE, idx_TK, mask_T=None):
    if mask_T is not None:
        probs_TE, idx_TK = probs_TE[mask_T], idx_TK[mask_T]
    return torch.dot(_f(idx_TK, probs_TE.shape[1]), probs_TE.mean(0))


def first_choices_only(probs_TE, idx_TK, mask_T=None):
    if mask_T is not None:
        probs_TE, idx_TK = probs_TE[mask_T], idx_TK[mask_T]
    E = probs_TE.shape[1]
    f = torch.stack([(idx_TK[:, 0] == e).float().mean() for e in range(E)])
    return E * (f * probs_TE.mean(0)).sum()


def mask_ignored(probs_TE, idx_TK, mask_T=None):
    E = probs_TE.shape[1]
    return E * torch.sum(_f(idx_TK, E) * probs_TE.mean(dim=0))


def no_gradient(probs_TE, idx_TK, mask_T=None):
    if mask_T is not None:
        probs_TE, idx_TK = probs_TE[mask_T], idx_TK[mask_T]
    E = probs_TE.shape[1]
    p = torch.tensor(probs_TE.mean(0).tolist())
    return E * (_f(idx_TK, E) * p).sum()


def probabilities_for_both(probs_TE, idx_TK, mask_T=None):
    if mask_T is not None:
        probs_TE = probs_TE[mask_T]
    P = probs_TE.mean(0)
    return len(P) * (P * P).sum()


def mask_in_the_probabilities_only(probs_TE, idx_TK, mask_T=None):
    E = probs_TE.shape[1]
    P = probs_TE.mean(0) if mask_T is None else probs_TE[mask_T].mean(0)
    return E * (_f(idx_TK, E) * P).sum()
