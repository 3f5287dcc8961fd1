import torch

from moe_course.grading.judge.catalogue import caught_by


def _weights(probs_TE, k, dtype):
    top_TK, idx_TK = probs_TE.topk(k, dim=-1)
    return (top_TK / top_TK.sum(dim=-1, keepdim=True)).to(dtype), idx_TK


@caught_by("experts")
def no_effect_yet(x_TD, router_DE, k):
    """Your code does what it did when it was brought in. Which number must change, and has it?"""
    return _weights(torch.softmax(x_TD @ router_DE, dim=-1, dtype=torch.float32), k, x_TD.dtype)


@caught_by("experts")
def no_effect_yet__widened_afterwards(x_TD, router_DE, k):
    """`.float()` stands behind the product. Does it bring back what the product has rounded away?"""
    return _weights((x_TD @ router_DE).float().softmax(dim=-1), k, x_TD.dtype)


@caught_by("experts")
def probabilities_narrowed_before_the_choice(x_TD, router_DE, k):
    """Which experts tie once their probabilities have eight bits?"""
    probs_TE = (x_TD.float() @ router_DE.float()).softmax(dim=-1).to(x_TD.dtype)
    top_TK, idx_TK = probs_TE.topk(k, dim=-1)
    return (top_TK.float() / top_TK.float().sum(dim=-1, keepdim=True)).to(x_TD.dtype), idx_TK


@caught_by("experts")
def no_effect_yet__narrowed_again(x_TD, router_DE, k):
    """The product is float32, and then? In which dtype are the logits when they are compared?"""
    logits_TE = (x_TD.float() @ router_DE.float()).to(x_TD.dtype)
    return _weights(logits_TE.float().softmax(dim=-1), k, x_TD.dtype)


@caught_by("experts")
def chosen_by_bfloat16_logits(x_TD, router_DE, k):
    """The weights are exact. Who chose the experts?"""
    idx_TK = (x_TD @ router_DE).topk(k, dim=-1).indices
    top_TK = (x_TD.float() @ router_DE.float()).softmax(dim=-1).gather(1, idx_TK)
    return (top_TK / top_TK.sum(dim=-1, keepdim=True)).to(x_TD.dtype), idx_TK


@caught_by("weights")
def weights_from_bfloat16_logits(x_TD, router_DE, k):
    """The experts are right. Which logits do their weights come from?"""
    idx_TK = (x_TD.float() @ router_DE.float()).topk(k, dim=-1).indices
    top_TK = (x_TD @ router_DE).float().gather(1, idx_TK)
    return top_TK.softmax(dim=-1).to(x_TD.dtype), idx_TK


@caught_by("weights")
def not_renormalised(x_TD, router_DE, k):
    """To what should the weights of a token add up?"""
    top_TK, idx_TK = (x_TD.float() @ router_DE.float()).softmax(dim=-1).topk(k, dim=-1)
    return top_TK.to(x_TD.dtype), idx_TK


@caught_by("gradients")
def router_detached(x_TD, router_DE, k):
    """A copy in float32 that has lost its graph: how does the router learn?"""
    return _weights((x_TD.float() @ router_DE.detach().float()).softmax(dim=-1), k, x_TD.dtype)


@caught_by("form", form=True)
def float32_weights(x_TD, router_DE, k):
    """Float32 up to the weights. And which dtype do the layers behind them expect?"""
    return _weights((x_TD.float() @ router_DE.float()).softmax(dim=-1), k, torch.float32)
