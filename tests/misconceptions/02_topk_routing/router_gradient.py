import torch

from moe_course.grading.judge.catalogue import caught_by


def _signals(dy_TD, expert_out_TKD):
    """⟨dy, out_k⟩ for each slot."""
    return torch.einsum("td,tkd->tk", dy_TD, expert_out_TKD)


def _spread(signals_TK, probs_TE, idx_TK):
    """The signals in the columns of their experts, 0 elsewhere."""
    return torch.zeros_like(probs_TE).scatter_add(1, idx_TK, signals_TK)


def _softmax_backward(dprobs_TE, probs_TE):
    return probs_TE * (dprobs_TE - (probs_TE * dprobs_TE).sum(dim=1, keepdim=True))


@caught_by("all_experts")
def softmax_forgotten(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    """That is the gradient of the probabilities. What stands between them and the logits?"""
    return _spread(_signals(dy_TD, expert_out_TKD), probs_TE, idx_TK)


@caught_by("all_experts")
def only_the_diagonal_of_the_softmax(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    """∂p_i/∂z_i is p_i(1−p_i). And does p_i not depend on the other logits?"""
    return probs_TE * (1 - probs_TE) * _spread(_signals(dy_TD, expert_out_TKD), probs_TE, idx_TK)


@caught_by("all_experts")
def no_mean_subtracted(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    """Raise all logits of a token by the same and nothing changes. Do your gradients of a token add up to 0?"""
    return probs_TE * _spread(_signals(dy_TD, expert_out_TKD), probs_TE, idx_TK)


@caught_by("all_experts")
def plain_mean_subtracted(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    """You subtract the mean over all experts. With which weights does the softmax average?"""
    dprobs_TE = _spread(_signals(dy_TD, expert_out_TKD), probs_TE, idx_TK)
    return probs_TE * (dprobs_TE - dprobs_TE.mean(dim=1, keepdim=True))


@caught_by("all_experts")
def sign_flipped(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    """Is it the gradient that is asked for, or the step against it?"""
    return -_softmax_backward(_spread(_signals(dy_TD, expert_out_TKD), probs_TE, idx_TK), probs_TE)


@caught_by("all_experts")
def signal_without_dy(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    """You add up an expert's outputs. Where does the loss say which way they should have gone?"""
    return _softmax_backward(_spread(expert_out_TKD.sum(dim=2), probs_TE, idx_TK), probs_TE)


@caught_by("all_experts")
def mean_instead_of_inner_product(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    """An inner product sums over the channels. What do you divide by, and why?"""
    signals_TK = (dy_TD[:, None] * expert_out_TKD).mean(dim=2)
    return _softmax_backward(_spread(signals_TK, probs_TE, idx_TK), probs_TE)


@caught_by("all_experts")
def mean_over_the_whole_batch(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    """`.sum()` without `dim` adds up all tokens. Do the logits of one token depend on another one's?"""
    dprobs_TE = _spread(_signals(dy_TD, expert_out_TKD), probs_TE, idx_TK)
    return probs_TE * (dprobs_TE - (probs_TE * dprobs_TE).sum())


@caught_by("all_experts")
def outputs_weighted_first(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    """y = Σ p·out. When you differentiate with respect to p, is p itself still in the result?"""
    signals_TK = _signals(dy_TD, expert_out_TKD) * probs_TE.gather(1, idx_TK)
    return _softmax_backward(_spread(signals_TK, probs_TE, idx_TK), probs_TE)


@caught_by("unselected")
def others_get_nothing(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    """No direct signal is not the same as no gradient. If p of a chosen expert rises, whose p falls?"""
    dlogits_TE = _softmax_backward(_spread(_signals(dy_TD, expert_out_TKD), probs_TE, idx_TK), probs_TE)
    return torch.zeros_like(probs_TE).scatter(1, idx_TK, dlogits_TE.gather(1, idx_TK))


@caught_by("unselected")
def softmax_over_the_chosen_only(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    """You renormalise before you differentiate. Were the weights in y renormalised?"""
    weights_TK = probs_TE.gather(1, idx_TK)
    weights_TK = weights_TK / weights_TK.sum(dim=1, keepdim=True)
    dlogits_TK = _softmax_backward(_signals(dy_TD, expert_out_TKD), weights_TK)
    return _spread(dlogits_TK, probs_TE, idx_TK)


@caught_by("unselected")
def mean_over_the_chosen_only(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    """You average over the chosen alone. Over which experts does the softmax sum to 1?"""
    dprobs_TE = _spread(_signals(dy_TD, expert_out_TKD), probs_TE, idx_TK)
    chosen_T1 = probs_TE.gather(1, idx_TK).sum(dim=1, keepdim=True)
    return probs_TE * (dprobs_TE - (probs_TE * dprobs_TE).sum(dim=1, keepdim=True) / chosen_T1)


@caught_by("slots")
def slots_taken_for_experts(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    """You put the signal of slot k into column k. Is that the column of its expert?"""
    dprobs_TE = torch.zeros_like(probs_TE)
    dprobs_TE[:, : idx_TK.shape[1]] = _signals(dy_TD, expert_out_TKD)
    return _softmax_backward(dprobs_TE, probs_TE)


@caught_by("slots")
def experts_sorted_without_their_outputs(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    """A mask takes the experts in the order of their numbers. In which order come their outputs?"""
    chosen_TE = torch.zeros_like(probs_TE).scatter(1, idx_TK, 1) == 1
    dprobs_TE = torch.zeros_like(probs_TE)
    dprobs_TE[chosen_TE] = _signals(dy_TD, expert_out_TKD).flatten()
    return _softmax_backward(dprobs_TE, probs_TE)


@caught_by("other_inputs", form=True)
def float32_zeros(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    """Which dtype has torch.zeros(T, E), and which have the signals that you put there?"""
    dprobs_TE = torch.zeros(probs_TE.shape).scatter_add(1, idx_TK, _signals(dy_TD, expert_out_TKD))
    return _softmax_backward(dprobs_TE, probs_TE)


@caught_by("other_inputs", form=True)
def probabilities_overwritten(dy_TD, expert_out_TKD, probs_TE, idx_TK):
    """`*=` saves a tensor. Whose?"""
    dprobs_TE = _spread(_signals(dy_TD, expert_out_TKD), probs_TE, idx_TK)
    mean_T1 = (probs_TE * dprobs_TE).sum(dim=1, keepdim=True)
    probs_TE *= dprobs_TE - mean_T1
    return probs_TE
