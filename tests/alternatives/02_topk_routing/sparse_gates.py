import torch


def masked_with_minus_infinity(logits_TE, k):
    kept_TE = torch.zeros_like(logits_TE, dtype=torch.bool).scatter(1, logits_TE.topk(k).indices, True)
    return torch.where(kept_TE, logits_TE, -torch.inf).softmax(-1)


def full_softmax_renormalised(logits_TE, k):
    weights_TK, idx_TK = logits_TE.float().softmax(1).topk(k)
    weights_TK = (weights_TK / weights_TK.sum(1, keepdim=True)).to(logits_TE.dtype)
    return torch.zeros_like(logits_TE).scatter(1, idx_TK, weights_TK)


def with_one_hot(logits_TE, k):
    top_TK, idx_TK = logits_TE.sort(dim=-1, descending=True)
    hot_TKE = torch.nn.functional.one_hot(idx_TK[:, :k], logits_TE.shape[1]).to(logits_TE.dtype)
    return torch.einsum("tk,tke->te", torch.softmax(top_TK[:, :k], 1), hot_TKE)


def row_by_row(logits_TE, k):
    rows = []
    for logits_E in logits_TE:
        top = logits_E.topk(k)
        rows.append(torch.zeros_like(logits_E).index_put((top.indices,), top.values.softmax(0)))
    return torch.stack(rows)
