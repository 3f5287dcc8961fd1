import torch


def bias_left_out(scores_TE, bias_E, k):
    idx = torch.argsort(scores_TE, dim=1, descending=True)[:, :k]
    w = scores_TE.gather(1, idx)
    return w / w.sum(1, keepdim=True), idx


def bias_in_the_weights(scores_TE, bias_E, k):
    with torch.no_grad():
        b = bias_E.clone()
    biased = scores_TE + b
    idx = biased.topk(k).indices
    w = biased.gather(1, idx)
    return w / w.sum(1, keepdim=True), idx


def bias_subtracted_again(scores_TE, bias_E, k):
    b = bias_E.detach()
    w, idx = torch.topk(scores_TE + b[None], k, dim=1)
    w = w - b.expand_as(scores_TE).gather(1, idx)
    return w / w.sum(dim=1, keepdim=True), idx


def weights_not_normalised(scores_TE, bias_E, k):
    idx = (scores_TE.detach() + bias_E.detach()).argsort(1, descending=True)[:, :k]
    return torch.gather(scores_TE, 1, idx), idx


def weights_without_gradient(scores_TE, bias_E, k):
    with torch.no_grad():
        idx = (scores_TE + bias_E).topk(k).indices
        w = scores_TE.gather(1, idx)
        return w / w.sum(1, keepdim=True), idx
