import torch
import torch.nn.functional as F


def no_effect_yet(x_TD, router_DE, k):
    logits = x_TD @ router_DE
    probs = F.softmax(logits, dim=1, dtype=torch.float)
    w, i = torch.topk(probs, k, dim=1)
    return w.div(w.sum(1, keepdim=True)).bfloat16(), i


def probabilities_narrowed_before_the_choice(x_TD, router_DE, k):
    probs = torch.softmax(torch.matmul(x_TD.float(), router_DE.float()), 1).bfloat16()
    w, i = probs.topk(k)
    w = w.float()
    return (w / w.sum(1, keepdim=True)).bfloat16(), i


def not_renormalised(x_TD, router_DE, k):
    p = torch.softmax(x_TD.float().matmul(router_DE.float()), dim=1)
    i = p.argsort(dim=1, descending=True)[:, :k]
    return p.gather(1, i).to(x_TD.dtype), i


def router_detached(x_TD, router_DE, k):
    with torch.no_grad():
        r = router_DE.float()
    z, i = (x_TD.float() @ r).topk(k)
    return F.softmax(z, dim=1).to(x_TD.dtype), i
