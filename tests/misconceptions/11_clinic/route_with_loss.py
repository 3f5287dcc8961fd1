import torch
import torch.nn.functional as F

from moe_course.grading.judge.catalogue import caught_by


def _routed(x_TD, router_DE, k):
    probs_TE = (x_TD.float() @ router_DE.float()).softmax(dim=-1)
    top_TK, idx_TK = probs_TE.topk(k, dim=-1)
    return probs_TE, (top_TK / top_TK.sum(dim=-1, keepdim=True)).to(x_TD.dtype), idx_TK


def _loss(values_TE, idx_TK):
    load_E = F.one_hot(idx_TK, values_TE.shape[1]).float().mean(dim=(0, 1))
    return values_TE.shape[1] * (load_E * values_TE.mean(dim=0)).sum()


@caught_by("loss")
def no_effect_yet(x_TD, router_DE, k):
    """Your code does what it did when it was brought in. Which number must change, and has it?"""
    probs_TE, weights_TK, idx_TK = _routed(x_TD, router_DE, k)
    return weights_TK, idx_TK, _loss(probs_TE.softmax(dim=-1), idx_TK)


@caught_by("loss")
def coefficient_raised(x_TD, router_DE, k):
    """A factor makes the loss larger. Does it make the loss of 8 experts right, and that of 64?"""
    probs_TE, weights_TK, idx_TK = _routed(x_TD, router_DE, k)
    return weights_TK, idx_TK, 5 * _loss(probs_TE.softmax(dim=-1), idx_TK)


@caught_by("loss")
def distance_from_one_stretched(x_TD, router_DE, k):
    """You stretch the distance from 1 until 8 experts fit. Is the gap the same factor for every E?"""
    probs_TE, weights_TK, idx_TK = _routed(x_TD, router_DE, k)
    return weights_TK, idx_TK, 1 + 5.3 * (_loss(probs_TE.softmax(dim=-1), idx_TK) - 1)


@caught_by("weights")
def weights_from_logits(x_TD, router_DE, k):
    """The loss has its one softmax now. What are the weights made of?"""
    logits_TE = x_TD.float() @ router_DE.float()
    top_TK, idx_TK = logits_TE.topk(k, dim=-1)
    weights_TK = top_TK / top_TK.sum(dim=-1, keepdim=True)
    return weights_TK.to(x_TD.dtype), idx_TK, _loss(logits_TE.softmax(dim=-1), idx_TK)


@caught_by("weights")
def weights_from_a_second_softmax(x_TD, router_DE, k):
    """The loss is right. Which values do the weights come from: probabilities, or a softmax of them?"""
    probs_TE, _, idx_TK = _routed(x_TD, router_DE, k)
    top_TK = probs_TE.softmax(dim=-1).gather(1, idx_TK)
    return (top_TK / top_TK.sum(dim=-1, keepdim=True)).to(x_TD.dtype), idx_TK, _loss(probs_TE, idx_TK)


@caught_by("loss")
def loss_of_logits(x_TD, router_DE, k):
    """P is the mean probability of an expert. Can a probability be negative?"""
    _, weights_TK, idx_TK = _routed(x_TD, router_DE, k)
    return weights_TK, idx_TK, _loss(x_TD.float() @ router_DE.float(), idx_TK)


@caught_by("loss")
def uniform_gives_k(x_TD, router_DE, k):
    """f is the share of assignments, which add up to 1. To what do yours add up for k = 2?"""
    probs_TE, weights_TK, idx_TK = _routed(x_TD, router_DE, k)
    return weights_TK, idx_TK, k * _loss(probs_TE, idx_TK)


@caught_by("loss")
def probabilities_of_the_selected_only(x_TD, router_DE, k):
    """P is the mean over all tokens. Does a token that chose another expert count for it?"""
    probs_TE, weights_TK, idx_TK = _routed(x_TD, router_DE, k)
    chosen_TE = torch.zeros_like(probs_TE).scatter(1, idx_TK, 1.0)
    return weights_TK, idx_TK, _loss(probs_TE * chosen_TE, idx_TK)


@caught_by("gradients")
def loss_detached(x_TD, router_DE, k):
    """The value is right. Whom does a loss without a gradient move?"""
    probs_TE, weights_TK, idx_TK = _routed(x_TD, router_DE, k)
    return weights_TK, idx_TK, _loss(probs_TE, idx_TK).detach()


@caught_by("form", form=True)
def weights_stay_float32(x_TD, router_DE, k):
    """Which dtype do the layers behind the router expect?"""
    probs_TE, _, idx_TK = _routed(x_TD, router_DE, k)
    top_TK = probs_TE.gather(1, idx_TK)
    return top_TK / top_TK.sum(dim=-1, keepdim=True), idx_TK, _loss(probs_TE, idx_TK)


@caught_by("form", form=True)
def loss_in_the_dtype_of_the_tokens(x_TD, router_DE, k):
    """A loss of 1.004 in bfloat16 is 1.0. Which dtype can hold the difference?"""
    probs_TE, weights_TK, idx_TK = _routed(x_TD, router_DE, k)
    return weights_TK, idx_TK, _loss(probs_TE, idx_TK).to(x_TD.dtype)
