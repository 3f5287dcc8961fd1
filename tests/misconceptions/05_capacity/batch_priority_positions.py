import torch
import torch.nn.functional as F

from moe_course.grading.judge.catalogue import caught_by


def _choice_major(idx_TK, num_experts):
    hot_NE = F.one_hot(idx_TK.T.reshape(-1), num_experts)
    return ((hot_NE.cumsum(0) * hot_NE).sum(1) - 1).view(idx_TK.shape[1], -1).T


def _by(keys_T, idx_TK, num_experts):
    order_T = keys_T.argsort(descending=True)
    return _choice_major(idx_TK[order_T], num_experts)[order_T.argsort()]


@caught_by("heavy_first")
def in_token_order(idx_TK, weights_TK, num_experts):
    """You never look at the weights. Who should come first?"""
    return _choice_major(idx_TK, num_experts)


@caught_by("heavy_first")
def light_tokens_first(idx_TK, weights_TK, num_experts):
    """argsort ascends unless told otherwise. Who is first in your queue?"""
    return _by(-weights_TK[:, 0], idx_TK, num_experts)


@caught_by("heavy_first")
def left_in_sorted_order(idx_TK, weights_TK, num_experts):
    """Row 0 of your result belongs to the heaviest token. To which token should it belong?"""
    order_T = weights_TK[:, 0].argsort(descending=True)
    return _choice_major(idx_TK[order_T], num_experts)


@caught_by("heavy_first")
def sorted_twice_instead_of_back(idx_TK, weights_TK, num_experts):
    """You index with the order a second time. Does that undo it, or do it again?"""
    order_T = weights_TK[:, 0].argsort(descending=True)
    return _choice_major(idx_TK[order_T], num_experts)[order_T]


@caught_by("heavy_first")
def counted_from_one(idx_TK, weights_TK, num_experts):
    """Which place has the first in the queue?"""
    return _by(weights_TK[:, 0], idx_TK, num_experts) + 1


@caught_by("heavy_first")
def rank_among_all_tokens(idx_TK, weights_TK, num_experts):
    """You rank each token among all of them. Who are its rivals for a place in one expert?"""
    rank_T = weights_TK[:, 0].argsort(descending=True).argsort()
    return rank_T[:, None].expand_as(idx_TK)


@caught_by("choice_major")
def token_major(idx_TK, weights_TK, num_experts):
    """The heaviest token takes all its places before anybody else has a first one. Is that choice-major?"""
    order_T = weights_TK[:, 0].argsort(descending=True)
    hot_NE = F.one_hot(idx_TK[order_T].flatten(), num_experts)
    pos_TK = ((hot_NE.cumsum(0) * hot_NE).sum(1) - 1).view_as(idx_TK)
    return pos_TK[order_T.argsort()]


@caught_by("choice_major")
def a_queue_for_each_slot(idx_TK, weights_TK, num_experts):
    """First and second choices of one expert share its buffer. Do two of yours get the same place?"""
    return torch.cat(
        [_by(weights_TK[:, 0], idx_TK[:, k : k + 1], num_experts) for k in range(idx_TK.shape[1])], 1
    )


@caught_by("choice_major")
def all_assignments_by_weight(idx_TK, weights_TK, num_experts):
    """You sort assignments, whatever choice they are. Can a heavy second choice overtake a first one?"""
    flat_N = idx_TK.flatten()
    order_N = weights_TK.flatten().argsort(descending=True)
    return _choice_major(flat_N[order_N, None], num_experts)[order_N.argsort()].view_as(idx_TK)


@caught_by("choice_major")
def second_choices_in_token_order(idx_TK, weights_TK, num_experts):
    """Your first choices queue by weight. And your second ones?"""
    first_T1 = _by(weights_TK[:, 0], idx_TK[:, :1], num_experts)
    queued_E = torch.bincount(idx_TK[:, 0], minlength=num_experts)
    return torch.cat([first_T1, _choice_major(idx_TK[:, 1:], num_experts) + queued_E[idx_TK[:, 1:]]], dim=1)


@caught_by("choice_major")
def reshaped_without_turning_back(idx_TK, weights_TK, num_experts):
    """You counted slot by slot. Does reshape(T, K) know that?"""
    order_T = weights_TK[:, 0].argsort(descending=True)
    return _choice_major(idx_TK[order_T], num_experts).T.reshape(idx_TK.shape)[order_T.argsort()]


@caught_by("first_weight")
def by_the_sum_of_the_weights(idx_TK, weights_TK, num_experts):
    """What is the sum of renormalised weights, and who would come first then?"""
    return _by(weights_TK.sum(1), idx_TK, num_experts)


@caught_by("first_weight")
def each_slot_by_its_own_weight(idx_TK, weights_TK, num_experts):
    """Your second choices queue by their second weights. Which weight makes a token important?"""
    columns, queued_E = [], torch.zeros(num_experts, dtype=torch.long)
    for weight_T, idx_T in zip(weights_TK.unbind(1), idx_TK.unbind(1), strict=True):
        columns.append(_by(weight_T, idx_T[:, None], num_experts)[:, 0] + queued_E[idx_T])
        queued_E = queued_E + torch.bincount(idx_T, minlength=num_experts)
    return torch.stack(columns, dim=1)


@caught_by("first_weight")
def by_the_lead_over_the_second(idx_TK, weights_TK, num_experts):
    """How sure a token is, is another question. Which number decides here?"""
    rest_T = weights_TK[:, 1] if weights_TK.shape[1] > 1 else 0
    return _by(weights_TK[:, 0] - rest_T, idx_TK, num_experts)


@caught_by("first_weight")
def by_the_last_weight(idx_TK, weights_TK, num_experts):
    """Slots come in descending weight. Which column holds a token's first choice?"""
    return _by(weights_TK[:, -1], idx_TK, num_experts)


@caught_by("other_inputs", form=True)
def weights_sorted_in_place(idx_TK, weights_TK, num_experts):
    """Who else reads the weights after you have sorted them?"""
    pos_TK = _by(weights_TK[:, 0], idx_TK, num_experts)
    weights_TK.copy_(weights_TK.sort(dim=0, descending=True).values)
    return pos_TK
