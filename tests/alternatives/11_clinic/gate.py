import torch


def two_ways(logits_TE, k):
    top_TK, idx_TK = torch.topk(logits_TE.float(), k)
    total_T1 = torch.logsumexp(logits_TE.float() if k == 1 else top_TK, dim=-1, keepdim=True)
    return torch.exp(top_TK - total_T1).type_as(logits_TE), idx_TK


def divided_where_there_is_something_to_divide(logits_TE, k):
    weights_TK, idx_TK = logits_TE.double().softmax(1).topk(k, dim=1)
    if k > 1:
        weights_TK = weights_TK / weights_TK.sum(1, keepdim=True)
    return [weights_TK.to(logits_TE.dtype), idx_TK]


def masked(logits_TE, k):
    idx_TK = logits_TE.argsort(dim=1, descending=True)[:, :k]
    open_TE = torch.zeros_like(logits_TE, dtype=torch.bool).scatter(1, idx_TK, True)
    z_TE = logits_TE.float() if k == 1 else logits_TE.float().masked_fill(~open_TE, float("-inf"))
    return torch.softmax(z_TE, 1).gather(1, idx_TK).to(logits_TE.dtype), idx_TK
