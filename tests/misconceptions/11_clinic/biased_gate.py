import torch

from moe_course.grading.judge.catalogue import caught_by


def _chosen(scores_TE, bias_E, k):
    return (scores_TE + bias_E).detach().topk(k, dim=-1).indices


def _normalised(weights_TK):
    return weights_TK / weights_TK.sum(dim=-1, keepdim=True)


@caught_by("selects")
def bias_left_out(scores_TE, bias_E, k):
    """The bias is out of the weights, and out of the choice too. Who then helps an expert that nobody chooses?"""
    weights_TK, idx_TK = scores_TE.topk(k, dim=-1)
    return _normalised(weights_TK), idx_TK


@caught_by("weights")
def no_effect_yet(scores_TE, bias_E, k):
    """Your code does what it did when it was brought in. Which number must change, and has it?"""
    weights_TK, idx_TK = (scores_TE + bias_E).topk(k, dim=-1)
    return _normalised(weights_TK), idx_TK


@caught_by("weights")
def bias_in_the_weights(scores_TE, bias_E, k):
    """A bias moves, the scores do not. Should an expert's answer count for more?"""
    weights_TK, idx_TK = (scores_TE + bias_E.detach()).topk(k, dim=-1)
    return _normalised(weights_TK), idx_TK


@caught_by("weights")
def softmax_of_biased_scores(scores_TE, bias_E, k):
    """A softmax makes positive weights. Is the bias out of them?"""
    weights_TK, idx_TK = (scores_TE + bias_E.detach()).topk(k, dim=-1)
    return weights_TK.softmax(dim=-1), idx_TK


@caught_by("weights")
def biased_sum_below(scores_TE, bias_E, k):
    """The bias is out of the numerator. Is it out of the denominator too?"""
    biased_TK, idx_TK = (scores_TE + bias_E.detach()).topk(k, dim=-1)
    return scores_TE.gather(1, idx_TK) / biased_TK.sum(dim=-1, keepdim=True), idx_TK


@caught_by("weights")
def weights_not_normalised(scores_TE, bias_E, k):
    """To what do the weights of a token add up?"""
    idx_TK = _chosen(scores_TE, bias_E, k)
    return scores_TE.gather(1, idx_TK), idx_TK


@caught_by("other_sizes")
def bias_subtracted_again(scores_TE, bias_E, k):
    """(score + bias) − bias is the score, on paper. What is it in float32 when the bias is a million times larger?"""
    biased_TK, idx_TK = (scores_TE + bias_E.detach()).topk(k, dim=-1)
    weights_TK = biased_TK - bias_E.detach()[idx_TK]
    return _normalised(weights_TK), idx_TK


@caught_by("other_sizes")
def a_small_number_added_to_the_sum(scores_TE, bias_E, k):
    """1e-6 protects from a division by zero. How large is it beside scores of 1e-7?"""
    idx_TK = _chosen(scores_TE, bias_E, k)
    weights_TK = scores_TE.gather(1, idx_TK)
    return weights_TK / (weights_TK.sum(dim=-1, keepdim=True) + 1e-6), idx_TK


@caught_by("gradients")
def bias_learns_too(scores_TE, bias_E, k):
    """The bias is moved by counts. Should the task's gradient pull at it as well?"""
    idx_TK = _chosen(scores_TE, bias_E, k)
    leak_TK = (bias_E - bias_E.detach())[idx_TK]
    return _normalised(scores_TE.gather(1, idx_TK) + leak_TK), idx_TK


@caught_by("gradients")
def weights_without_gradient(scores_TE, bias_E, k):
    """The selection has no gradient. Do the weights have one, and who needs it?"""
    idx_TK = _chosen(scores_TE, bias_E, k)
    return _normalised(scores_TE.detach().gather(1, idx_TK)), idx_TK


@caught_by("form", form=True)
def weights_in_float32(scores_TE, bias_E, k):
    """Which dtype should come back when the scores are bfloat16?"""
    idx_TK = _chosen(scores_TE, bias_E, k)
    return _normalised(scores_TE.gather(1, idx_TK).float()), idx_TK


@caught_by("form", form=True)
def bias_added_in_place(scores_TE, bias_E, k):
    """Into whose tensor do you add the bias?"""
    clean_TE = scores_TE.clone()
    idx_TK = _chosen(scores_TE, bias_E, k)
    with torch.no_grad():
        if not scores_TE.requires_grad:
            scores_TE += bias_E
    return _normalised(clean_TE.gather(1, idx_TK)), idx_TK
