import torch


def gathered(scores_TE, bias_E, k):
    _, idx_TK = torch.topk(scores_TE + bias_E, k, dim=-1)
    weights_TK = torch.gather(scores_TE, 1, idx_TK)
    return weights_TK / weights_TK.sum(1, keepdim=True), idx_TK


def masked_and_sorted(scores_TE, bias_E, k):
    order_TE = (scores_TE.detach() + bias_E).argsort(dim=1, descending=True)
    mask_TE = torch.zeros_like(scores_TE).scatter(1, order_TE[:, :k], 1.0)
    gates_TE = torch.nn.functional.normalize(scores_TE * mask_TE, p=1, dim=1, eps=1e-30)
    idx_TK = order_TE[:, :k].sort(dim=1).values
    return gates_TE.gather(1, idx_TK), idx_TK


def row_by_row(scores_TE, bias_E, k):
    with torch.no_grad():
        picks = [sorted(range(len(row)), key=lambda e: -float(row[e]))[:k] for row in scores_TE + bias_E]
    idx_TK = torch.tensor(picks)
    parts = [s_E[i_K] / s_E[i_K].sum() for s_E, i_K in zip(scores_TE, idx_TK, strict=True)]
    return torch.stack(parts), idx_TK
