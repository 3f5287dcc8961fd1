import torch


def upcast_first(x_TD, router_DE, k):
    logits_TE = torch.matmul(x_TD.float(), router_DE.float())
    top_TK, idx_TK = logits_TE.topk(k, dim=-1)
    return torch.softmax(top_TK, -1).bfloat16(), idx_TK


def in_float64(x_TD, router_DE, k):
    probs_TE = (x_TD.double() @ router_DE.double()).softmax(1)
    order_TE = probs_TE.argsort(dim=1, descending=True)[:, :k]
    top_TK = probs_TE.gather(1, order_TE)
    return (top_TK / top_TK.sum(1, keepdim=True)).type_as(x_TD), order_TE


def einsum_without_autocast(x_TD, router_DE, k):
    with torch.autocast("cpu", enabled=False):
        probs_TE = torch.einsum("td,de->te", x_TD.to(torch.float32), router_DE.to(torch.float32)).softmax(-1)
    top_TK, idx_TK = torch.topk(probs_TE, k, sorted=True)
    return top_TK.div(top_TK.sum(-1, keepdim=True)).to(x_TD.dtype), idx_TK
