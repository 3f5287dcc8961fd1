import torch

from moe_course.grading.judge.catalogue import caught_by


def _checked(probs_TE, capacity):
    if probs_TE.dim() != 2 or not 1 <= capacity <= len(probs_TE):
        raise ValueError((probs_TE.shape, capacity))


@caught_by("chooses")
def tokens_choose(probs_TE, capacity):
    """Who chooses here? Along which axis do you search for the largest?"""
    _checked(probs_TE, capacity)
    return tuple(probs_TE.topk(min(capacity, probs_TE.shape[1]), dim=1))


@caught_by("chooses")
def a_column_for_each_expert(probs_TE, capacity):
    """Which of the two axes of the result counts the experts?"""
    _checked(probs_TE, capacity)
    return tuple(probs_TE.topk(capacity, dim=0))


@caught_by("chooses")
def smallest_chosen(probs_TE, capacity):
    """Which end of the order do your tokens come from?"""
    _checked(probs_TE, capacity)
    return tuple(probs_TE.T.topk(capacity, dim=1, largest=False))


@caught_by("chooses")
def tokens_before_weights(probs_TE, capacity):
    """Which of the two results does the caller expect first?"""
    _checked(probs_TE, capacity)
    weights_EC, idx_EC = probs_TE.T.topk(capacity, dim=1)
    return idx_EC, weights_EC


@caught_by("chooses")
def each_token_only_once(probs_TE, capacity):
    """May two experts take the same token?"""
    _checked(probs_TE, capacity)
    left_TE, rows = probs_TE.detach().clone(), []
    for e in range(probs_TE.shape[1]):
        rows.append(left_TE[:, e].topk(capacity).indices)
        left_TE[rows[-1]] -= 1
    idx_EC = torch.stack(rows)
    return probs_TE.T.gather(1, idx_EC), idx_EC


@caught_by("chooses")
def own_tokens_first(probs_TE, capacity):
    """Does it matter to an expert whether it is the token's own first choice?"""
    _checked(probs_TE, capacity)
    own_TE = torch.nn.functional.one_hot(probs_TE.argmax(1), probs_TE.shape[1])
    idx_EC = (probs_TE.detach() + own_TE).T.topk(capacity, dim=1).indices
    return probs_TE.T.gather(1, idx_EC), idx_EC


@caught_by("chooses")
def first_come_first_served(probs_TE, capacity):
    """You fill the seats in the order of the tokens. What are the probabilities for?"""
    _checked(probs_TE, capacity)
    idx_EC = torch.arange(capacity).expand(probs_TE.shape[1], capacity)
    return probs_TE.T.gather(1, idx_EC), idx_EC


@caught_by("weights")
def renormalised(probs_TE, capacity):
    """The weights of an expert sum to 1 here. Should they?"""
    _checked(probs_TE, capacity)
    weights_EC, idx_EC = probs_TE.T.topk(capacity, dim=1)
    return weights_EC / weights_EC.sum(dim=1, keepdim=True), idx_EC


@caught_by("weights")
def softmax_over_the_tokens(probs_TE, capacity):
    """Which softmax made these probabilities, and why another one?"""
    _checked(probs_TE, capacity)
    weights_EC, idx_EC = probs_TE.T.topk(capacity, dim=1)
    return weights_EC.softmax(dim=1), idx_EC


@caught_by("weights")
def weights_of_one(probs_TE, capacity):
    """An expert that is only half sure of a token: does its output count in full?"""
    _checked(probs_TE, capacity)
    weights_EC, idx_EC = probs_TE.T.topk(capacity, dim=1)
    return torch.ones_like(weights_EC), idx_EC


@caught_by("weights")
def ascending(probs_TE, capacity):
    """Which token stands in an expert's slot 0: its surest, or its least sure?"""
    _checked(probs_TE, capacity)
    weights_EC, idx_EC = probs_TE.T.topk(capacity, dim=1)
    return weights_EC.flip(1), idx_EC.flip(1)


@caught_by("weights")
def in_the_order_of_the_tokens(probs_TE, capacity):
    """In what order should the slots of an expert stand?"""
    _checked(probs_TE, capacity)
    idx_EC = probs_TE.T.topk(capacity, dim=1).indices.sort(dim=1).values
    return probs_TE.T.gather(1, idx_EC), idx_EC


@caught_by("weights")
def tokens_sorted_without_their_weights(probs_TE, capacity):
    """You sort the tokens and leave the weights where they were. Which weight belongs to which token now?"""
    _checked(probs_TE, capacity)
    weights_EC, idx_EC = probs_TE.T.topk(capacity, dim=1)
    return weights_EC, idx_EC.sort(dim=1).values


@caught_by("gradients")
def weights_detached(probs_TE, capacity):
    """The choice has no gradient. Have the weights one, and who needs it?"""
    _checked(probs_TE, capacity)
    return tuple(probs_TE.detach().T.topk(capacity, dim=1))


@caught_by("bad_capacity", form=True)
def nothing_checked(probs_TE, capacity):
    """Who tells the caller that there are not enough tokens, and does torch's own error say so?"""
    weights_EC, idx_EC = probs_TE.transpose(0, -1).topk(capacity, dim=-1)
    return weights_EC, idx_EC


@caught_by("bad_capacity", form=True)
def nothing_checked__sliced(probs_TE, capacity):
    """Who tells the caller that there are not enough tokens, and does torch's own error say so?"""
    weights_ET, idx_ET = probs_TE.mT.sort(dim=-1, descending=True)
    return weights_ET[..., :capacity], idx_ET[..., :capacity]


@caught_by("bad_capacity", form=True)
def cut_to_the_number_of_tokens(probs_TE, capacity):
    """The caller asked for six of five tokens and got five. Will anybody notice?"""
    if probs_TE.dim() != 2 or capacity < 1:
        raise ValueError((probs_TE.shape, capacity))
    return tuple(probs_TE.T.topk(min(capacity, len(probs_TE)), dim=1))


@caught_by("bad_capacity")
def compared_with_the_experts(probs_TE, capacity):
    """Which axis limits what an expert can take: T, or E?"""
    if probs_TE.dim() != 2 or not 1 <= capacity <= probs_TE.shape[1]:
        raise ValueError((probs_TE.shape, capacity))
    return tuple(probs_TE.T.topk(min(capacity, len(probs_TE)), dim=1))


@caught_by("bad_capacity")
def all_tokens_refused(probs_TE, capacity):
    """An expert that takes every token: is that an error?"""
    if probs_TE.dim() != 2 or not 1 <= capacity < len(probs_TE):
        raise ValueError((probs_TE.shape, capacity))
    return tuple(probs_TE.T.topk(capacity, dim=1))


@caught_by("bad_capacity", form=True)
def zero_accepted(probs_TE, capacity):
    """What does an expert do that may take no token?"""
    if probs_TE.dim() != 2 or not 0 <= capacity <= len(probs_TE):
        raise ValueError((probs_TE.shape, capacity))
    return tuple(probs_TE.T.topk(capacity, dim=1))


@caught_by("bad_capacity", form=True)
def asserted(probs_TE, capacity):
    """What remains of an assert under `python -O`, and which exception should a caller expect?"""
    assert probs_TE.dim() == 2
    assert 1 <= capacity <= len(probs_TE)
    return tuple(probs_TE.T.topk(capacity, dim=1))


@caught_by("bad_axes", form=True)
def axes_not_checked(probs_TE, capacity):
    """The capacity is checked. What if somebody forgets to flatten the batch?"""
    if not 1 <= capacity <= len(probs_TE):
        raise ValueError(capacity)
    return tuple(probs_TE.transpose(0, -1).topk(capacity, dim=-1))


@caught_by("other_inputs", form=True)
def float32_weights(probs_TE, capacity):
    """Which dtype should come back when the probabilities are bfloat16?"""
    _checked(probs_TE, capacity)
    return tuple(probs_TE.float().T.topk(capacity, dim=1))


@caught_by("other_inputs", form=True)
def chosen_one_by_one_and_crossed_out(probs_TE, capacity):
    """You cross out what is already chosen. In whose tensor?"""
    _checked(probs_TE, capacity)
    weights, idx = [], []
    clean_TE = probs_TE.clone()
    crossed_TE = probs_TE.detach()
    for _ in range(capacity):
        idx.append(crossed_TE.argmax(dim=0))
        weights.append(clean_TE.gather(0, idx[-1][None])[0])
        crossed_TE[idx[-1], torch.arange(probs_TE.shape[1])] = -1
    return torch.stack(weights, dim=1), torch.stack(idx, dim=1)
