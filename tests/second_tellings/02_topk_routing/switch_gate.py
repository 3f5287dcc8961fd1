import torch


def tokens_chosen_by_experts(logits_TE):
    p = torch.softmax(logits_TE, dim=1)
    best = p.max(dim=0)
    return best.values, best.indices


def slot_axis_kept(logits_TE):
    p = torch.softmax(logits_TE.float(), -1).to(logits_TE.dtype)
    w, i = torch.topk(p, k=1, dim=-1)
    return w, i


def logit_as_weight(logits_TE):
    idx = logits_TE.argmax(dim=1)
    return logits_TE[torch.arange(len(idx)), idx], idx


def renormalised(logits_TE):
    w, i = logits_TE.softmax(1).topk(1, dim=1)
    w = w / w.sum(1, keepdim=True)
    return w.squeeze(1), i.squeeze(1)


def weight_of_one(logits_TE):
    idx = torch.argmax(logits_TE, -1)
    return torch.ones(len(idx), dtype=logits_TE.dtype), idx


def weight_detached(logits_TE):
    with torch.no_grad():
        p = torch.softmax(logits_TE, dim=-1)
    idx = p.argmax(-1)
    return p.gather(1, idx.unsqueeze(1)).squeeze(1), idx


def softmax_over_tokens(logits_TE):
    e = torch.exp(logits_TE - logits_TE.amax(0))
    p = e / e.sum(0)
    idx = logits_TE.argmax(1)
    return p[range(len(idx)), idx], idx
