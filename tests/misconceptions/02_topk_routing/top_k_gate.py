import torch

from moe_course.grading.judge.catalogue import caught_by


def _checked(probs_TE, k):
    if probs_TE.dim() != 2 or not 1 <= k <= probs_TE.shape[1]:
        raise ValueError((probs_TE.shape, k))


def _normalised(weights_TK):
    return weights_TK / weights_TK.sum(dim=-1, keepdim=True)


@caught_by("chooses")
def top_k_over_tokens(probs_TE, k, renormalize=True):
    """Who chooses here: the token its experts, or the expert its tokens? Which axis do you search along?"""
    _checked(probs_TE, k)
    weights_TK, idx_TK = probs_TE.topk(min(k, len(probs_TE)), dim=0)
    return (_normalised(weights_TK) if renormalize else weights_TK), idx_TK


@caught_by("chooses")
def top_k_over_tokens__turned_back(probs_TE, k, renormalize=True):
    """Who chooses here: the token its experts, or the expert its tokens? Which axis do you search along?"""
    _checked(probs_TE, k)
    weights_KE, idx_KE = probs_TE.topk(min(k, len(probs_TE)), dim=0)
    return (_normalised(weights_KE.T) if renormalize else weights_KE.T), idx_KE.T


@caught_by("chooses")
def smallest_chosen(probs_TE, k, renormalize=True):
    """argsort ascends unless told otherwise. Which end do your experts come from?"""
    _checked(probs_TE, k)
    idx_TK = probs_TE.argsort(dim=-1)[:, :k]
    weights_TK = probs_TE.gather(1, idx_TK)
    return (_normalised(weights_TK) if renormalize else weights_TK), idx_TK


@caught_by("chooses")
def experts_before_weights(probs_TE, k, renormalize=True):
    """Which of the two results does the caller expect first?"""
    _checked(probs_TE, k)
    weights_TK, idx_TK = probs_TE.topk(k, dim=-1)
    return idx_TK, (_normalised(weights_TK) if renormalize else weights_TK)


@caught_by("descending")
def ascending(probs_TE, k, renormalize=True):
    """Your experts are the right ones, weakest first. Which one should a token's slot 0 hold?"""
    _checked(probs_TE, k)
    weights_TK, idx_TK = (part.flip(-1) for part in probs_TE.topk(k, dim=-1))
    return (_normalised(weights_TK) if renormalize else weights_TK), idx_TK


@caught_by("descending")
def in_the_order_of_the_experts(probs_TE, k, renormalize=True):
    """The slots stand in the order of the experts' numbers. In what order should they stand?"""
    _checked(probs_TE, k)
    idx_TK = probs_TE.topk(k, dim=-1).indices.sort(dim=-1).values
    weights_TK = probs_TE.gather(1, idx_TK)
    return (_normalised(weights_TK) if renormalize else weights_TK), idx_TK


@caught_by("descending")
def experts_sorted_without_their_weights(probs_TE, k, renormalize=True):
    """You sort the experts and leave the weights where they were. Which weight belongs to which expert now?"""
    _checked(probs_TE, k)
    weights_TK, idx_TK = probs_TE.topk(k, dim=-1)
    return (_normalised(weights_TK) if renormalize else weights_TK), idx_TK.sort(dim=-1).values


@caught_by("probabilities")
def always_renormalised(probs_TE, k, renormalize=True):
    """You scale the weights whatever the caller asks for. Where do you read `renormalize`?"""
    _checked(probs_TE, k)
    weights_TK, idx_TK = probs_TE.topk(k, dim=-1)
    return _normalised(weights_TK), idx_TK


@caught_by("probabilities")
def flag_inverted(probs_TE, k, renormalize=True):
    """What do you do when renormalize is True, and what when it is False?"""
    _checked(probs_TE, k)
    weights_TK, idx_TK = probs_TE.topk(k, dim=-1)
    return (weights_TK if renormalize else _normalised(weights_TK)), idx_TK


@caught_by("renormalised")
def one_sum_for_all_tokens(probs_TE, k, renormalize=True):
    """`.sum()` without `dim` adds up everything. Should another token in the batch change your weights?"""
    _checked(probs_TE, k)
    weights_TK, idx_TK = probs_TE.topk(k, dim=-1)
    return (weights_TK / weights_TK.sum() if renormalize else weights_TK), idx_TK


@caught_by("renormalised")
def never_renormalised(probs_TE, k, renormalize=True):
    """To what do the weights of a token add up, and to what should they?"""
    _checked(probs_TE, k)
    return tuple(probs_TE.topk(k, dim=-1))


@caught_by("renormalised")
def not_renormalised_by_default(probs_TE, k, renormalize=False):
    """What should happen when the caller says nothing about renormalising?"""
    _checked(probs_TE, k)
    weights_TK, idx_TK = probs_TE.topk(k, dim=-1)
    return (_normalised(weights_TK) if renormalize else weights_TK), idx_TK


@caught_by("renormalised")
def divided_by_the_sum_over_all_experts(probs_TE, k, renormalize=True):
    """All probabilities of a token already add up to 1. Which of them should add up to 1 now?"""
    _checked(probs_TE, k)
    weights_TK, idx_TK = probs_TE.topk(k, dim=-1)
    return (weights_TK / probs_TE.sum(dim=-1, keepdim=True) if renormalize else weights_TK), idx_TK


@caught_by("renormalised")
def normalised_over_tokens(probs_TE, k, renormalize=True):
    """Should the weights of one token add up to 1, or those of one slot over all tokens?"""
    _checked(probs_TE, k)
    weights_TK, idx_TK = probs_TE.topk(k, dim=-1)
    return (weights_TK / weights_TK.sum(dim=0) if renormalize else weights_TK), idx_TK


@caught_by("renormalised")
def sum_without_keepdim(probs_TE, k, renormalize=True):
    """What shape does the sum over the slots have, and along which axis does it broadcast?"""
    _checked(probs_TE, k)
    weights_TK, idx_TK = probs_TE.topk(k, dim=-1)
    return (weights_TK / weights_TK.sum(dim=-1) if renormalize else weights_TK), idx_TK


@caught_by("renormalised")
def softmax_of_the_probabilities(probs_TE, k, renormalize=True):
    """These are probabilities already. What does a second softmax do to the ratio of two of them?"""
    _checked(probs_TE, k)
    weights_TK, idx_TK = probs_TE.topk(k, dim=-1)
    return (weights_TK.softmax(dim=-1) if renormalize else weights_TK), idx_TK


@caught_by("renormalised")
def divided_by_the_largest(probs_TE, k, renormalize=True):
    """The largest weight is 1 now. What should be 1, the largest or the sum?"""
    _checked(probs_TE, k)
    weights_TK, idx_TK = probs_TE.topk(k, dim=-1)
    return (weights_TK / weights_TK.amax(dim=-1, keepdim=True) if renormalize else weights_TK), idx_TK


@caught_by("gradients")
def weights_detached(probs_TE, k, renormalize=True):
    """The choice has no gradient. Have the weights one, and who needs it?"""
    _checked(probs_TE, k)
    weights_TK, idx_TK = probs_TE.detach().topk(k, dim=-1)
    return (_normalised(weights_TK) if renormalize else weights_TK), idx_TK


@caught_by("gradients")
def sum_held_constant(probs_TE, k, renormalize=True):
    """When one probability rises, does the sum that you divide by stay the same?"""
    _checked(probs_TE, k)
    weights_TK, idx_TK = probs_TE.topk(k, dim=-1)
    if renormalize:
        weights_TK = weights_TK / weights_TK.detach().sum(dim=-1, keepdim=True)
    return weights_TK, idx_TK


@caught_by("bad_k", form=True)
def nothing_checked(probs_TE, k, renormalize=True):
    """Who tells the caller about a k of 0, and does torch's own error say what is wrong?"""
    weights_TK, idx_TK = probs_TE.topk(k, dim=-1)
    return (_normalised(weights_TK) if renormalize else weights_TK), idx_TK


@caught_by("bad_k", form=True)
def only_too_large_k_refused(probs_TE, k, renormalize=True):
    """A token with no expert at all: does that make sense?"""
    if probs_TE.dim() != 2 or k > probs_TE.shape[1]:
        raise ValueError((probs_TE.shape, k))
    weights_TK, idx_TK = probs_TE.sort(dim=-1, descending=True)
    weights_TK, idx_TK = weights_TK[:, :k], idx_TK[:, :k]
    return (_normalised(weights_TK) if renormalize else weights_TK), idx_TK


@caught_by("bad_k", form=True)
def too_large_k_cut_to_fit(probs_TE, k, renormalize=True):
    """The caller asked for six of five experts and got five. Will anybody notice?"""
    if probs_TE.dim() != 2 or k < 1:
        raise ValueError((probs_TE.shape, k))
    weights_TK, idx_TK = probs_TE.topk(min(k, probs_TE.shape[1]), dim=-1)
    return (_normalised(weights_TK) if renormalize else weights_TK), idx_TK


@caught_by("bad_k")
def all_experts_refused(probs_TE, k, renormalize=True):
    """A token that visits every expert: is that an error?"""
    if probs_TE.dim() != 2 or not 1 <= k < probs_TE.shape[1]:
        raise ValueError((probs_TE.shape, k))
    weights_TK, idx_TK = probs_TE.topk(k, dim=-1)
    return (_normalised(weights_TK) if renormalize else weights_TK), idx_TK


@caught_by("bad_k", form=True)
def asserted(probs_TE, k, renormalize=True):
    """What remains of an assert under `python -O`, and which exception should a caller expect?"""
    assert probs_TE.dim() == 2
    assert 1 <= k <= probs_TE.shape[1]
    weights_TK, idx_TK = probs_TE.topk(k, dim=-1)
    return (_normalised(weights_TK) if renormalize else weights_TK), idx_TK


@caught_by("bad_axes", form=True)
def axes_not_checked(probs_TE, k, renormalize=True):
    """k is checked. What if somebody forgets to flatten the batch?"""
    if not 1 <= k <= probs_TE.shape[-1]:
        raise ValueError(k)
    weights_TK, idx_TK = probs_TE.topk(k, dim=-1)
    return (_normalised(weights_TK) if renormalize else weights_TK), idx_TK


@caught_by("other_inputs", form=True)
def float32_weights(probs_TE, k, renormalize=True):
    """Which dtype should come back when the probabilities are bfloat16?"""
    _checked(probs_TE, k)
    weights_TK, idx_TK = probs_TE.float().topk(k, dim=-1)
    return (_normalised(weights_TK) if renormalize else weights_TK), idx_TK


@caught_by("other_inputs", form=True)
def chosen_one_by_one_and_crossed_out(probs_TE, k, renormalize=True):
    """You cross out what is already chosen. In whose tensor?"""
    _checked(probs_TE, k)
    weights, idx = [], []
    for _ in range(k):
        weight_T, idx_T = probs_TE.max(dim=-1)
        weights.append(weight_T)
        idx.append(idx_T)
        probs_TE.scatter_(1, idx_T[:, None], -1.0)
    weights_TK = torch.stack(weights, dim=1)
    return (_normalised(weights_TK) if renormalize else weights_TK), torch.stack(idx, dim=1)


@caught_by("renormalised")
def one_choice_left_as_it_is(probs_TE, k, renormalize=True):
    """With k = 1 the only weight of a token is its whole sum. To what is it scaled when renormalize is True?"""
    _checked(probs_TE, k)
    weights_TK, idx_TK = probs_TE.topk(k, dim=-1)
    return (_normalised(weights_TK) if renormalize and k > 1 else weights_TK), idx_TK


@caught_by("chooses")
def slots_squeezed_away(probs_TE, k, renormalize=True):
    """With k = 1 the results still have an axis of slots. Which call removes it?"""
    _checked(probs_TE, k)
    weights_TK, idx_TK = probs_TE.topk(k, dim=-1)
    return (_normalised(weights_TK) if renormalize else weights_TK).squeeze(-1), idx_TK.squeeze(-1)
