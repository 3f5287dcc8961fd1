import torch
import torch.nn.functional as F

from moe_course.grading.judge.catalogue import caught_by


def _kept(probs_TE, mask_T):
    return torch.ones(len(probs_TE), dtype=torch.bool) if mask_T is None else mask_T


def _counts(idx_TK, num_experts):
    return torch.bincount(idx_TK.flatten(), minlength=num_experts).float()


def _loss(probs_TE, idx_TK, mask_T):
    """The right one, for mistakes that lie elsewhere."""
    kept_T = _kept(probs_TE, mask_T)
    probs_TE, idx_TK = probs_TE[kept_T].float(), idx_TK[kept_T]
    f_E = _counts(idx_TK, probs_TE.shape[1]) / idx_TK.numel()
    return probs_TE.shape[1] * (f_E * probs_TE.mean(0)).sum()


@caught_by("uniform")
def like_hugging_face(probs_TE, idx_TK, mask_T=None):
    """With two slots, how many fractions does each token add to f? What should uniform routing give for K = 2?"""
    return idx_TK.shape[1] * _loss(probs_TE, idx_TK, mask_T)


@caught_by("uniform")
def without_the_number_of_experts(probs_TE, idx_TK, mask_T=None):
    """For uniform routing the sum of f·P is 1/E. What makes a 1 of it?"""
    return _loss(probs_TE, idx_TK, mask_T) / probs_TE.shape[1]


@caught_by("uniform")
def mean_over_the_experts(probs_TE, idx_TK, mask_T=None):
    """Sum or mean over the experts, and by what is it multiplied?"""
    return _loss(probs_TE, idx_TK, mask_T) / probs_TE.shape[1] ** 2


@caught_by("uniform")
def number_of_experts_squared(probs_TE, idx_TK, mask_T=None):
    """For uniform routing this gives E. Once per expert or once in all: how often should E be a factor?"""
    return _loss(probs_TE, idx_TK, mask_T) * probs_TE.shape[1]


@caught_by("uniform")
def distance_to_one(probs_TE, idx_TK, mask_T=None):
    """Uniform routing gives 0 here. Which value does the contract ask for?"""
    return _loss(probs_TE, idx_TK, mask_T) - 1


@caught_by("uniform")
def counts_instead_of_fractions(probs_TE, idx_TK, mask_T=None):
    """Is f a number of assignments or a fraction of them?"""
    return _loss(probs_TE, idx_TK, mask_T) * idx_TK[_kept(probs_TE, mask_T)].numel()


@caught_by("values")
def first_choices_only(probs_TE, idx_TK, mask_T=None):
    """An expert that is everybody's second choice: is it not loaded?"""
    return _loss(probs_TE, idx_TK[:, :1], mask_T)


@caught_by("values")
def probabilities_for_both(probs_TE, idx_TK, mask_T=None):
    """Where do the router's choices enter your loss?"""
    p_E = probs_TE[_kept(probs_TE, mask_T)].float().mean(0)
    return len(p_E) * (p_E * p_E).sum()


@caught_by("values")
def fractions_for_both(probs_TE, idx_TK, mask_T=None):
    """Where do the probabilities enter, and what gradient has a count?"""
    idx_TK = idx_TK[_kept(probs_TE, mask_T)]
    f_E = _counts(idx_TK, probs_TE.shape[1]) / idx_TK.numel()
    return len(f_E) * (f_E * f_E).sum()


@caught_by("values")
def probabilities_of_the_chosen_only(probs_TE, idx_TK, mask_T=None):
    """Is P the mean probability of an expert over all tokens, or over those that chose it?"""
    chosen_TE = F.one_hot(idx_TK, probs_TE.shape[1]).sum(1)
    return _loss(probs_TE * chosen_TE, idx_TK, mask_T)


@caught_by("values")
def chosen_probabilities_renormalised(probs_TE, idx_TK, mask_T=None):
    """Are these the router's probabilities, or the gates that come out behind top-k?"""
    gates_TE = probs_TE * F.one_hot(idx_TK, probs_TE.shape[1]).sum(1)
    return _loss(gates_TE / gates_TE.sum(1, keepdim=True), idx_TK, mask_T)


@caught_by("values")
def softmax_once_more(probs_TE, idx_TK, mask_T=None):
    """Are these logits or probabilities?"""
    return _loss(probs_TE.float().softmax(dim=-1), idx_TK, mask_T)


@caught_by("values")
def squared_load_instead(probs_TE, idx_TK, mask_T=None):
    """The coefficient of variation is another loss. Where is f multiplied by P?"""
    p_E = probs_TE[_kept(probs_TE, mask_T)].float().mean(0)
    return p_E.var(correction=0) / p_E.mean() ** 2 + 1


@caught_by("gradients")
def no_gradient(probs_TE, idx_TK, mask_T=None):
    """f is a count. What is left for the router to learn from if P is detached too?"""
    return _loss(probs_TE.detach(), idx_TK, mask_T)


@caught_by("gradients")
def straight_through_the_counts(probs_TE, idx_TK, mask_T=None):
    """You lend the counts a gradient. Does a count change when a probability moves a little?"""
    kept_T = _kept(probs_TE, mask_T)
    probs_TE, idx_TK = probs_TE[kept_T].float(), idx_TK[kept_T]
    p_E = probs_TE.mean(0)
    f_E = _counts(idx_TK, len(p_E)) / idx_TK.numel() + (p_E - p_E.detach())
    return len(p_E) * (f_E * p_E).sum()


@caught_by("gradients")
def gradient_through_the_chosen_only(probs_TE, idx_TK, mask_T=None):
    """P is a mean over all tokens. Does a token that did not choose an expert have no part in it?"""
    chosen_TE = F.one_hot(idx_TK, probs_TE.shape[1]).sum(1)
    return _loss(torch.where(chosen_TE > 0, probs_TE, probs_TE.detach()), idx_TK, mask_T)


@caught_by("mask")
def mask_ignored(probs_TE, idx_TK, mask_T=None):
    """What do rows of padding do to your counts?"""
    return _loss(probs_TE, idx_TK, None)


@caught_by("mask")
def mask_inverted(probs_TE, idx_TK, mask_T=None):
    """Does True mean a token that counts, or one that does not?"""
    return _loss(probs_TE, idx_TK, None if mask_T is None or mask_T.all() else ~mask_T)


@caught_by("mask")
def mask_in_the_probabilities_only(probs_TE, idx_TK, mask_T=None):
    """The masked tokens are out of P. Are their choices still in f?"""
    f_E = _counts(idx_TK, probs_TE.shape[1]) / idx_TK.numel()
    return len(f_E) * (f_E * probs_TE[_kept(probs_TE, mask_T)].float().mean(0)).sum()


@caught_by("mask")
def mask_in_the_counts_only(probs_TE, idx_TK, mask_T=None):
    """The masked tokens are out of f. Are their probabilities still in P?"""
    idx_TK = idx_TK[_kept(probs_TE, mask_T)]
    f_E = _counts(idx_TK, probs_TE.shape[1]) / idx_TK.numel()
    return len(f_E) * (f_E * probs_TE.float().mean(0)).sum()


@caught_by("mask")
def divided_by_all_tokens(probs_TE, idx_TK, mask_T=None):
    """The masked rows are 0 in your sums. By how many rows do you divide?"""
    share = _kept(probs_TE, mask_T).float().mean()
    return _loss(probs_TE, idx_TK, mask_T) * share * share


@caught_by("mask")
def one_of_the_means_over_all_tokens(probs_TE, idx_TK, mask_T=None):
    """Two means over tokens: by how many rows does each of them divide?"""
    return _loss(probs_TE, idx_TK, mask_T) * _kept(probs_TE, mask_T).float().mean()


@caught_by("mask")
def masked_tokens_sent_to_expert_0(probs_TE, idx_TK, mask_T=None):
    """idx · mask is 0 for a masked token. Who is expert 0?"""
    kept_T = _kept(probs_TE, mask_T)
    f_E = _counts(idx_TK * kept_T[:, None], probs_TE.shape[1]) / idx_TK.numel()
    return len(f_E) * (f_E * probs_TE[kept_T].float().mean(0)).sum()


@caught_by("other_inputs", form=True)
def masked_in_place(probs_TE, idx_TK, mask_T=None):
    """Whose probabilities do you set to 0?"""
    loss = _loss(probs_TE, idx_TK, mask_T)
    if mask_T is not None and not probs_TE.requires_grad:
        probs_TE[~mask_T] = 0
    return loss
