import torch


def bias_ignored(scores_TE, bias_E, k, scale=1.0):
    w, i = torch.sort(scores_TE, dim=1, descending=True)
    w, i = w[:, :k], i[:, :k]
    return scale * w / w.sum(1, keepdim=True), i


def bias_in_the_weights(scores_TE, bias_E, k, scale=1.0):
    s = scores_TE + bias_E[None, :]
    idx = s.argsort(dim=1, descending=True)[:, :k]
    w = torch.gather(s, 1, idx)
    return w / w.sum(-1, keepdim=True) * scale, idx


def bias_subtracted(scores_TE, bias_E, k, scale=1.0):
    idx = torch.argsort(bias_E - scores_TE, dim=-1)[:, :k]
    w = scores_TE.gather(1, idx)
    return w / w.sum(-1, keepdim=True) * scale, idx


def not_renormalised(scores_TE, bias_E, k, scale=1.0):
    idx = (scores_TE + bias_E).topk(k).indices
    return torch.take_along_dim(scores_TE, idx, 1) * scale, idx


def scale_ignored(scores_TE, bias_E, k, scale=1.0):
    _, idx = torch.topk(scores_TE + bias_E, k, dim=1, sorted=False)
    w = torch.stack([row[i] for row, i in zip(scores_TE, idx, strict=True)])
    return w / w.sum(1)[:, None], idx


def softmax_of_the_selected(scores_TE, bias_E, k, scale=1.0):
    idx = (scores_TE + bias_E).argsort(1, descending=True)[:, :k]
    e = scores_TE.gather(1, idx).exp()
    return scale * (e / e.sum(1, keepdim=True)), idx


def normalised_over_all_experts(scores_TE, bias_E, k, scale=1.0):
    share = scores_TE / scores_TE.sum(1, keepdim=True)
    idx = (scores_TE + bias_E).topk(k, -1)[1]
    return share.gather(1, idx) * scale, idx
