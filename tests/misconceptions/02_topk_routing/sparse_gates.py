import torch

from moe_course.grading.judge.catalogue import caught_by


@caught_by("zeros")
def nothing_masked(logits_TE, k):
    """All experts have a gate above 0. How many should?"""
    return logits_TE.softmax(dim=-1)


@caught_by("zeros")
def zeros_among_the_logits(logits_TE, k):
    """What is exp(0)? So which value must a logit have for its gate to vanish?"""
    top_TK, idx_TK = logits_TE.topk(k, dim=-1)
    return torch.zeros_like(logits_TE).scatter(1, idx_TK, top_TK).softmax(dim=-1)


@caught_by("zeros")
def masked_with_minus_ten(logits_TE, k):
    """Is exp(−10) nothing, or only little?"""
    top_TK, idx_TK = logits_TE.topk(k, dim=-1)
    return torch.full_like(logits_TE, -10.0).scatter(1, idx_TK, top_TK).softmax(dim=-1)


@caught_by("zeros")
def gates_of_the_chosen_only(logits_TE, k):
    """Which shape should the result have, and which column belongs to which expert?"""
    return logits_TE.topk(k, dim=-1).values.softmax(dim=-1)


@caught_by("zeros")
def gates_in_the_first_columns(logits_TE, k):
    """Your gates stand in columns 0 to k−1. Where do the chosen experts stand?"""
    gates_TE = torch.zeros_like(logits_TE)
    gates_TE[:, :k] = logits_TE.topk(k, dim=-1).values.softmax(dim=-1)
    return gates_TE


@caught_by("zeros")
def above_the_smallest_chosen(logits_TE, k):
    """Is the k-th largest logit itself larger than the k-th largest?"""
    threshold_T1 = logits_TE.topk(k, dim=-1).values[:, -1:]
    return logits_TE.masked_fill(logits_TE <= threshold_T1, float("-inf")).softmax(dim=-1)


@caught_by("zeros")
def one_threshold_for_all_tokens(logits_TE, k):
    """Does each token choose its own k experts, or is the batch ranked as a whole?"""
    threshold = logits_TE.flatten().topk(k * len(logits_TE)).values[-1]
    return logits_TE.masked_fill(logits_TE < threshold, float("-inf")).softmax(dim=-1)


@caught_by("zeros")
def experts_choose_tokens(logits_TE, k):
    """Along which axis do you look for the largest: are you choosing experts for a token?"""
    top, idx = logits_TE.topk(min(k, len(logits_TE)), dim=0)
    return torch.full_like(logits_TE, float("-inf")).scatter(0, idx, top).softmax(dim=0)


@caught_by("zeros")
def experts_choose_tokens__softmax_over_experts(logits_TE, k):
    """Along which axis do you look for the largest: are you choosing experts for a token?"""
    top, idx = logits_TE.topk(min(k, len(logits_TE)), dim=0)
    return torch.full_like(logits_TE, float("-inf")).scatter(0, idx, top).softmax(dim=-1).nan_to_num(0)


@caught_by("values")
def softmax_before_the_mask(logits_TE, k):
    """The gates of a token no longer add up to 1. Whose share went missing?"""
    probs_TE = logits_TE.softmax(dim=-1)
    top_TK, idx_TK = probs_TE.topk(k, dim=-1)
    return torch.zeros_like(logits_TE).scatter(1, idx_TK, top_TK)


@caught_by("values")
def softmax_twice(logits_TE, k):
    """Is it the logits that you take the last softmax of, or something that is a probability already?"""
    top_TK, idx_TK = logits_TE.softmax(dim=-1).topk(k, dim=-1)
    return torch.zeros_like(logits_TE).scatter(1, idx_TK, top_TK.softmax(dim=-1))


@caught_by("values")
def softmax_over_the_tokens(logits_TE, k):
    """Whose gates should add up to 1: those of a token or those of a slot?"""
    top_TK, idx_TK = logits_TE.topk(k, dim=-1)
    return torch.zeros_like(logits_TE).scatter(1, idx_TK, top_TK.softmax(dim=0))


@caught_by("values")
def logits_instead_of_gates(logits_TE, k):
    """You kept the k largest logits. What is still to be done to make gates of them?"""
    top_TK, idx_TK = logits_TE.topk(k, dim=-1)
    return torch.zeros_like(logits_TE).scatter(1, idx_TK, top_TK)


@caught_by("gradients")
def gates_detached(logits_TE, k):
    """How does the router learn from gates that are mere numbers?"""
    top_TK, idx_TK = logits_TE.detach().topk(k, dim=-1)
    return torch.zeros_like(logits_TE).scatter(1, idx_TK, top_TK.softmax(dim=-1))


@caught_by("gradients")
def straight_through_the_full_softmax(logits_TE, k):
    """Your gradient is that of a softmax over all experts. Does a logit that was not chosen move any gate?"""
    top_TK, idx_TK = logits_TE.topk(k, dim=-1)
    gates_TE = torch.zeros_like(logits_TE).scatter(1, idx_TK, top_TK.softmax(dim=-1))
    probs_TE = logits_TE.softmax(dim=-1)
    return torch.where(gates_TE == 0, 0 * probs_TE, gates_TE.detach()) + (probs_TE - probs_TE.detach())


@caught_by("stable")
def exp_by_hand(logits_TE, k):
    """exp(89) is more than float32 can hold. What may you subtract first without changing the result?"""
    threshold_T1 = logits_TE.topk(k, dim=-1).values[:, -1:]
    exp_TE = logits_TE.exp() * (logits_TE >= threshold_T1)
    return exp_TE / exp_TE.sum(dim=-1, keepdim=True)


@caught_by("other_inputs", form=True)
def logits_overwritten(logits_TE, k):
    """Where do you write the −inf, and who else may still need those logits?"""
    threshold_T1 = logits_TE.topk(k, dim=-1).values[:, -1:]
    logits_TE[logits_TE < threshold_T1] = float("-inf")
    return logits_TE.softmax(dim=-1)


@caught_by("other_inputs", form=True)
def float32_gates(logits_TE, k):
    """The softmax may run in float32. In which dtype do the gates come back?"""
    top_TK, idx_TK = logits_TE.float().topk(k, dim=-1)
    return torch.zeros(logits_TE.shape).scatter(1, idx_TK, top_TK.softmax(dim=-1))


@caught_by("other_inputs", form=True)
def float32_zeros(logits_TE, k):
    """Which dtype has torch.zeros(T, E), and which have the gates you put into it?"""
    top_TK, idx_TK = logits_TE.topk(k, dim=-1)
    return torch.zeros(logits_TE.shape).scatter(1, idx_TK, top_TK.softmax(dim=-1))
