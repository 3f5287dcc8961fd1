import torch
import torch.nn.functional as F


def two_variables(x_TD, router_DE, k):
    logits_TE = F.linear(x_TD.float(), router_DE.float().T)
    probs_TE = torch.softmax(logits_TE, dim=-1)
    top_TK, idx_TK = torch.topk(probs_TE, k)
    f_E = torch.bincount(idx_TK.flatten(), minlength=router_DE.shape[1]) / idx_TK.numel()
    return (top_TK / top_TK.sum(-1, keepdim=True)).to(x_TD), idx_TK, (f_E @ probs_TE.mean(0)) * len(f_E)


def the_logarithm_undoes_a_softmax(x_TD, router_DE, k):
    probs_TE = (x_TD.float() @ router_DE.float()).softmax(-1)
    weights_TK, idx_TK = probs_TE.topk(k)
    again_TE = probs_TE.log().softmax(-1)
    f_TE = F.one_hot(idx_TK, again_TE.shape[1]).sum(1) / k
    loss = router_DE.shape[1] * (f_TE.float().mean(0) * again_TE.mean(0)).sum()
    return (weights_TK / weights_TK.sum(-1, keepdim=True)).to(x_TD.dtype), idx_TK, loss


def softmax_over_the_chosen_logits(x_TD, router_DE, k):
    logits_TE = x_TD.float() @ router_DE.float()
    top_TK, idx_TK = logits_TE.topk(k, dim=1)
    counts_E = torch.zeros(logits_TE.shape[1]).index_add(0, idx_TK.flatten(), torch.ones(idx_TK.numel()))
    loss = (counts_E / counts_E.mean() * logits_TE.softmax(1).mean(0)).sum()
    return top_TK.softmax(1).to(x_TD.dtype), idx_TK, loss
