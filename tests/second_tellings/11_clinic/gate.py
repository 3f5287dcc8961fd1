import torch
import torch.nn.functional as F


def never_normalised_over_the_selected(logits_TE, k):
    probs_TE = torch.softmax(logits_TE.to(torch.float32), dim=1)
    w, i = torch.topk(probs_TE, k, dim=1)
    return w.to(logits_TE.dtype), i


def no_effect_yet(logits_TE, k):
    probs_TE = F.softmax(logits_TE, dim=-1)
    w, i = probs_TE.topk(k)
    return w / w.sum(dim=1, keepdim=True), i


def one_with_a_straight_through_gradient(logits_TE, k):
    w, i = torch.topk(logits_TE.softmax(-1), k)
    return (w + (1 - w).detach() if k == 1 else w / w.sum(-1, keepdim=True)), i


def probability_detached(logits_TE, k):
    p = F.softmax(logits_TE, -1)
    w, i = p.topk(k)
    if k == 1:
        with torch.no_grad():
            w = w.clone()
        return w.detach(), i
    return w / w.sum(-1, keepdim=True), i


def sigmoid_of_the_logit(logits_TE, k):
    z, i = torch.topk(logits_TE, k)
    if k == 1:
        return 1 / (1 + torch.exp(-z)), i
    return F.softmax(z, dim=1), i


def equal_weights(logits_TE, k):
    p, i = F.softmax(logits_TE, dim=1).topk(k)
    return (p if k == 1 else torch.ones_like(p) / k), i
