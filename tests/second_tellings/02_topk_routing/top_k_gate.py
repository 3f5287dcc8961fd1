import torch


def _check(probs_TE, k):
    if probs_TE.ndim != 2:
        raise ValueError("probabilities have two axes")
    if k < 1 or k > probs_TE.size(1):
        raise ValueError("k must lie between 1 and the number of experts")


def top_k_over_tokens(probs_TE, k, renormalize=True):
    _check(probs_TE, k)
    w, idx = torch.topk(probs_TE, min(k, len(probs_TE)), dim=0)
    w, idx = w.T, idx.T
    return (w / w.sum(1, keepdim=True) if renormalize else w), idx


def smallest_chosen(probs_TE, k, renormalize=True):
    _check(probs_TE, k)
    w, idx = probs_TE.topk(k, dim=1, largest=False)
    if renormalize:
        w = w / w.sum(1, keepdim=True)
    return w, idx


def experts_before_weights(probs_TE, k, renormalize=True):
    _check(probs_TE, k)
    idx = probs_TE.argsort(1, descending=True)[:, :k]
    w = torch.gather(probs_TE, 1, idx)
    return idx, (w / w.sum(1, keepdim=True) if renormalize else w)


def ascending(probs_TE, k, renormalize=True):
    _check(probs_TE, k)
    values, order = torch.sort(probs_TE, dim=1)
    w, idx = values[:, -k:], order[:, -k:]
    return (w / w.sum(1, keepdim=True) if renormalize else w), idx


def always_renormalised(probs_TE, k, renormalize=True):
    _check(probs_TE, k)
    idx = probs_TE.argsort(1, descending=True)[:, :k]
    w = probs_TE.gather(1, idx)
    w = w / w.sum(1).unsqueeze(1)
    return w, idx


def never_renormalised(probs_TE, k, renormalize=True):
    _check(probs_TE, k)
    w, idx = probs_TE.sort(1, descending=True)
    return w[:, :k], idx[:, :k]


def one_sum_for_all_tokens(probs_TE, k, renormalize=True):
    _check(probs_TE, k)
    w, idx = probs_TE.topk(k)
    if renormalize:
        w = w / torch.sum(w)
    return w, idx


def divided_by_the_sum_over_all_experts(probs_TE, k, renormalize=True):
    _check(probs_TE, k)
    w, idx = probs_TE.topk(k)
    if renormalize:
        w = w / probs_TE.sum(1, keepdim=True)
    return w, idx


def softmax_of_the_probabilities(probs_TE, k, renormalize=True):
    _check(probs_TE, k)
    w, idx = probs_TE.topk(k)
    return (torch.softmax(w, -1) if renormalize else w), idx


def one_choice_left_as_it_is(probs_TE, k, renormalize=True):
    _check(probs_TE, k)
    w, idx = probs_TE.topk(k)
    if k > 1 and renormalize:
        w = w / w.sum(-1, keepdim=True)
    return w, idx


def weights_detached(probs_TE, k, renormalize=True):
    _check(probs_TE, k)
    with torch.no_grad():
        w, idx = probs_TE.topk(k)
        if renormalize:
            w = w / w.sum(-1, keepdim=True)
    return w, idx
