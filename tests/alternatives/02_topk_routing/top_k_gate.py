import torch


def topk_returned_as_it_is(probs_TE, k, renormalize=True):
    if probs_TE.ndim != 2 or k < 1 or k > probs_TE.size(1):
        raise ValueError(f"{k=}, {probs_TE.shape=}")
    top = torch.topk(probs_TE, k)
    if not renormalize:
        return top
    return [top.values / top.values.sum(1, keepdim=True), top.indices]


def sorted_and_cut(probs_TE, k, renormalize=True):
    tokens, experts = probs_TE.shape if probs_TE.dim() == 2 else (0, 0)
    if k not in range(1, experts + 1):
        raise ValueError(f"k = {k} of {experts} experts")
    idx_TK = torch.argsort(probs_TE, dim=1, descending=True)[:, :k]
    weights_TK = torch.take_along_dim(probs_TE, idx_TK, dim=1)
    scale_T = weights_TK.sum(1) if renormalize else torch.ones(tokens, dtype=probs_TE.dtype)
    return (weights_TK.T / scale_T).T, idx_TK


def largest_crossed_out(probs_TE, k, renormalize=True):
    if len(probs_TE.shape) != 2:
        raise ValueError(f"shape {tuple(probs_TE.shape)}")
    if k < 1 or k > len(probs_TE[0]):
        raise ValueError(f"k = {k}")
    rest_TE, chosen = probs_TE.detach().clone(), []
    for _ in range(k):
        chosen.append(rest_TE.argmax(1))
        rest_TE[torch.arange(len(rest_TE)), chosen[-1]] = -1
    idx_TK = torch.stack(chosen, 1)
    weights_TK = probs_TE.gather(1, idx_TK)
    # A softmax over logarithms of probabilities divides by their sum.
    return (weights_TK.log().softmax(1) if renormalize else weights_TK), idx_TK
