import torch


def slots_by_number(scores_TE, bias_E, k, scale=1.0):
    idx_TK = (scores_TE + bias_E).topk(k).indices.sort(dim=-1).values
    weights_TK = torch.take_along_dim(scores_TE, idx_TK, dim=-1)
    return (weights_TK * (scale / weights_TK.sum(-1, keepdim=True))).to(scores_TE.dtype), idx_TK


def masked_scores(scores_TE, bias_E, k, scale=1.0):
    _, idx_TK = torch.topk(scores_TE.detach() + bias_E.detach(), k, dim=1, sorted=False)
    kept_TE = torch.zeros_like(scores_TE).scatter(1, idx_TK, 1.0)
    gates_TE = torch.nn.functional.normalize(scores_TE * kept_TE, p=1, dim=1) * scale
    return [gates_TE.gather(1, idx_TK), idx_TK.int()]


def weakest_first(scores_TE, bias_E, k, scale=1.0):
    experts = scores_TE.shape[1]
    idx_TK = torch.argsort(scores_TE + bias_E[None], dim=1)[:, experts - k :]
    rows_T1 = torch.arange(len(scores_TE))[:, None]
    chosen_TK = scores_TE[rows_T1, idx_TK]
    # A softmax over logarithms of positive scores divides by their sum.
    return (chosen_TK.log().softmax(1) * scale).to(scores_TE.dtype), idx_TK
