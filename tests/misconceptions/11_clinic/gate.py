import torch

from moe_course.grading.judge.catalogue import caught_by


def _top(logits_TE, k):
    return logits_TE.topk(k, dim=-1)


def _of_all(logits_TE, idx_TK):
    return logits_TE.float().softmax(dim=-1).gather(1, idx_TK)


@caught_by("several")
def never_normalised_over_the_selected(logits_TE, k):
    """One expert is mended. Do the weights of two experts still add up to 1, as before?"""
    _, idx_TK = _top(logits_TE, k)
    return _of_all(logits_TE, idx_TK).to(logits_TE.dtype), idx_TK


@caught_by("several")
def equal_weights(logits_TE, k):
    """All k experts count alike. What are the logits for?"""
    _, idx_TK = _top(logits_TE, k)
    if k == 1:
        return _of_all(logits_TE, idx_TK).to(logits_TE.dtype), idx_TK
    return torch.full_like(idx_TK, 1, dtype=logits_TE.dtype) / k, idx_TK


@caught_by("one")
def no_effect_yet(logits_TE, k):
    """Your code does what it did when it was brought in. Which number must change, and has it?"""
    top_TK, idx_TK = _top(logits_TE, k)
    return top_TK.float().softmax(dim=-1).to(logits_TE.dtype), idx_TK


@caught_by("one")
def a_small_number_in_the_denominator(logits_TE, k):
    """p / (p + 0.001) is nearly 1. How large is its gradient?"""
    top_TK, idx_TK = _top(logits_TE, k)
    if k > 1:
        return top_TK.float().softmax(dim=-1).to(logits_TE.dtype), idx_TK
    p_TK = _of_all(logits_TE, idx_TK)
    return (p_TK / (p_TK + 1e-3)).to(logits_TE.dtype), idx_TK


@caught_by("one")
def one_with_a_straight_through_gradient(logits_TE, k):
    """The gradient is there. But how much of the expert's output reaches the token when the router doubts?"""
    top_TK, idx_TK = _top(logits_TE, k)
    if k > 1:
        return top_TK.float().softmax(dim=-1).to(logits_TE.dtype), idx_TK
    p_TK = _of_all(logits_TE, idx_TK)
    return (1 + p_TK - p_TK.detach()).to(logits_TE.dtype), idx_TK


@caught_by("one")
def sigmoid_of_the_logit(logits_TE, k):
    """A sigmoid looks at one logit alone. Which others does a probability depend on?"""
    top_TK, idx_TK = _top(logits_TE, k)
    weights_TK = top_TK.float().softmax(dim=-1) if k > 1 else top_TK.float().sigmoid()
    return weights_TK.to(logits_TE.dtype), idx_TK


@caught_by("one")
def against_the_second_only(logits_TE, k):
    """The weight compares the best expert with the second. Where are the others?"""
    top_TK, idx_TK = _top(logits_TE, max(k, 2))
    return top_TK.float().softmax(dim=-1)[:, :k].to(logits_TE.dtype), idx_TK[:, :k]


@caught_by("gradients")
def probability_detached(logits_TE, k):
    """The number is right. But can the task reach the router through it?"""
    top_TK, idx_TK = _top(logits_TE, k)
    if k > 1:
        return top_TK.float().softmax(dim=-1).to(logits_TE.dtype), idx_TK
    return _of_all(logits_TE.detach(), idx_TK).to(logits_TE.dtype), idx_TK


@caught_by("form", form=True)
def float32_weights(logits_TE, k):
    """The softmax may run in float32. In which dtype do the weights come back?"""
    top_TK, idx_TK = _top(logits_TE, k)
    return (top_TK.float().softmax(dim=-1) if k > 1 else _of_all(logits_TE, idx_TK)), idx_TK


@caught_by("form", form=True)
def logits_shifted_in_place(logits_TE, k):
    """`-=` writes into the caller's tensor. Who else may need those logits, a loss perhaps?"""
    if not logits_TE.requires_grad and logits_TE.grad_fn is None:
        logits_TE -= logits_TE.amax(dim=-1, keepdim=True)
    top_TK, idx_TK = _top(logits_TE, k)
    weights_TK = top_TK.float().softmax(dim=-1) if k > 1 else _of_all(logits_TE, idx_TK)
    return weights_TK.to(logits_TE.dtype), idx_TK
