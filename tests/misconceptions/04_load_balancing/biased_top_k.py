import torch

from moe_course.grading.judge.catalogue import caught_by


def _normalised(weights_TK, scale=1.0):
    return scale * weights_TK / weights_TK.sum(dim=-1, keepdim=True)


def _biased(scores_TE, bias_E, k):
    return (scores_TE + bias_E).detach().topk(k, dim=-1).indices


@caught_by("selects")
def bias_ignored(scores_TE, bias_E, k, scale=1.0):
    """One of the arguments is not in use. How is an expert to be helped up?"""
    weights_TK, idx_TK = scores_TE.topk(k, dim=-1)
    return _normalised(weights_TK, scale), idx_TK


@caught_by("selects")
def bias_subtracted(scores_TE, bias_E, k, scale=1.0):
    """A higher bias: should it help an expert or hold it back?"""
    idx_TK = _biased(scores_TE, -bias_E, k)
    return _normalised(scores_TE.gather(1, idx_TK), scale), idx_TK


@caught_by("selects")
def bias_multiplied(scores_TE, bias_E, k, scale=1.0):
    """A bias of 0 should change nothing. Is it added or multiplied?"""
    idx_TK = (scores_TE * (1 + bias_E)).detach().topk(k, dim=-1).indices
    return _normalised(scores_TE.gather(1, idx_TK), scale), idx_TK


@caught_by("selects")
def bias_alone(scores_TE, bias_E, k, scale=1.0):
    """All tokens go to the same experts. Where do their scores come in?"""
    idx_TK = bias_E.topk(k).indices.expand(len(scores_TE), k)
    return _normalised(scores_TE.gather(1, idx_TK), scale), idx_TK


@caught_by("selects")
def lowest_selected(scores_TE, bias_E, k, scale=1.0):
    """argsort ascends unless told otherwise. Which end do your experts come from?"""
    idx_TK = (scores_TE + bias_E).detach().argsort(dim=-1)[:, :k]
    return _normalised(scores_TE.gather(1, idx_TK), scale), idx_TK


@caught_by("weights")
def bias_in_the_weights(scores_TE, bias_E, k, scale=1.0):
    """The bias changes what an expert contributes. What will the task's gradient say to that?"""
    weights_TK, idx_TK = (scores_TE + bias_E).topk(k, dim=-1)
    return _normalised(weights_TK, scale), idx_TK


@caught_by("weights")
def not_renormalised(scores_TE, bias_E, k, scale=1.0):
    """To what do the weights of a token add up, and to what should they?"""
    idx_TK = _biased(scores_TE, bias_E, k)
    return scale * scores_TE.gather(1, idx_TK), idx_TK


@caught_by("weights")
def normalised_over_all_experts(scores_TE, bias_E, k, scale=1.0):
    """Over which experts does the sum run that you divide by?"""
    idx_TK = _biased(scores_TE, bias_E, k)
    return scale * scores_TE.gather(1, idx_TK) / scores_TE.sum(dim=-1, keepdim=True), idx_TK


@caught_by("weights")
def softmax_of_the_selected(scores_TE, bias_E, k, scale=1.0):
    """The scores are positive already. Does a softmax keep their proportions?"""
    idx_TK = _biased(scores_TE, bias_E, k)
    return scale * scores_TE.gather(1, idx_TK).softmax(dim=-1), idx_TK


@caught_by("weights")
def normalised_by_the_biased_sum(scores_TE, bias_E, k, scale=1.0):
    """The bias is out of the numerator. Is it out of the denominator too?"""
    idx_TK = _biased(scores_TE, bias_E, k)
    total_T1 = (scores_TE + bias_E).gather(1, idx_TK).sum(dim=-1, keepdim=True)
    return scale * scores_TE.gather(1, idx_TK) / total_T1, idx_TK


@caught_by("weights")
def best_scores_beside_biased_experts(scores_TE, bias_E, k, scale=1.0):
    """The weights are those of the highest scores. Are these the experts that were selected?"""
    return _normalised(scores_TE.topk(k, dim=-1).values, scale), _biased(scores_TE, bias_E, k)


@caught_by("weights")
def experts_sorted_without_their_weights(scores_TE, bias_E, k, scale=1.0):
    """Any order of the slots will do. But does each weight stand beside its own expert?"""
    idx_TK = _biased(scores_TE, bias_E, k)
    return _normalised(scores_TE.gather(1, idx_TK), scale), idx_TK.sort(dim=-1).values


@caught_by("weights")
def every_expert_weighs_the_same(scores_TE, bias_E, k, scale=1.0):
    """All selected experts count alike. What are the scores for?"""
    idx_TK = _biased(scores_TE, bias_E, k)
    return torch.full_like(scores_TE[:, :k], scale / k), idx_TK


@caught_by("scale")
def scale_ignored(scores_TE, bias_E, k, scale=1.0):
    """Where does scale enter?"""
    idx_TK = _biased(scores_TE, bias_E, k)
    return _normalised(scores_TE.gather(1, idx_TK)), idx_TK


@caught_by("scale")
def scaled_twice(scores_TE, bias_E, k, scale=1.0):
    """To what do the weights of a token add up when scale is 2: 2, or 4?"""
    idx_TK = _biased(scores_TE, bias_E, k)
    return scale * _normalised(scores_TE.gather(1, idx_TK), scale), idx_TK


@caught_by("scale")
def divided_by_scale(scores_TE, bias_E, k, scale=1.0):
    """Is scale a factor or a divisor?"""
    idx_TK = _biased(scores_TE, bias_E, k)
    return _normalised(scores_TE.gather(1, idx_TK)) / scale, idx_TK


@caught_by("scale")
def scale_added(scores_TE, bias_E, k, scale=1.0):
    """Times scale, or plus scale?"""
    idx_TK = _biased(scores_TE, bias_E, k)
    return _normalised(scores_TE.gather(1, idx_TK)) + (scale - 1), idx_TK


@caught_by("scale")
def the_default_of_deepseek(scores_TE, bias_E, k, scale=2.5):
    """Which scale applies when the caller says nothing?"""
    idx_TK = _biased(scores_TE, bias_E, k)
    return _normalised(scores_TE.gather(1, idx_TK), scale), idx_TK


@caught_by("gradients")
def weights_detached(scores_TE, bias_E, k, scale=1.0):
    """The selection has no gradient. Have the weights one, and who needs it?"""
    idx_TK = _biased(scores_TE, bias_E, k)
    return _normalised(scores_TE.detach().gather(1, idx_TK), scale), idx_TK


@caught_by("gradients")
def sum_held_constant(scores_TE, bias_E, k, scale=1.0):
    """When one score rises, does the sum that you divide by stay the same?"""
    idx_TK = _biased(scores_TE, bias_E, k)
    weights_TK = scores_TE.gather(1, idx_TK)
    return scale * weights_TK / weights_TK.detach().sum(dim=-1, keepdim=True), idx_TK


@caught_by("gradients")
def bias_learns_too(scores_TE, bias_E, k, scale=1.0):
    """The bias is moved by counts. Should the task's gradient pull at it as well?"""
    idx_TK = _biased(scores_TE, bias_E, k)
    leak_TE = bias_E - bias_E.detach()
    return _normalised((scores_TE + leak_TE).gather(1, idx_TK), scale), idx_TK


@caught_by("other_inputs", form=True)
def bias_added_in_place(scores_TE, bias_E, k, scale=1.0):
    """Into whose tensor do you add the bias?"""
    if scores_TE.requires_grad:
        idx_TK = _biased(scores_TE, bias_E, k)
        return _normalised(scores_TE.gather(1, idx_TK), scale), idx_TK
    clean_TE = scores_TE.clone()
    scores_TE += bias_E
    idx_TK = scores_TE.topk(k, dim=-1).indices
    return _normalised(clean_TE.gather(1, idx_TK), scale), idx_TK


@caught_by("other_inputs", form=True)
def float32_weights(scores_TE, bias_E, k, scale=1.0):
    """Which dtype should come back when the scores are bfloat16?"""
    idx_TK = _biased(scores_TE, bias_E, k)
    return _normalised(scores_TE.gather(1, idx_TK).float(), scale), idx_TK


@caught_by("any_size")
def the_others_multiplied_by_zero(scores_TE, bias_E, k, scale=1.0):
    """You multiply the scores of all other experts by 0. Is 0 below every score, also below -3?"""
    mask_TE = torch.zeros_like(scores_TE).scatter(1, _biased(scores_TE, bias_E, k), 1.0)
    weights_TK, idx_TK = (scores_TE * mask_TE).topk(k, dim=-1)
    return _normalised(weights_TK, scale).to(scores_TE.dtype), idx_TK


@caught_by("any_size")
def negative_sums_cut_off(scores_TE, bias_E, k, scale=1.0):
    """clamp(min=0) makes all negative sums equal. Which of them is the highest then?"""
    idx_TK = (scores_TE + bias_E).detach().clamp(min=0).topk(k, dim=-1).indices
    return _normalised(scores_TE.gather(1, idx_TK), scale).to(scores_TE.dtype), idx_TK
