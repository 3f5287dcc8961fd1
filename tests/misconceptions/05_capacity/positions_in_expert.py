import torch
import torch.nn.functional as F

from moe_course.grading.judge.catalogue import caught_by


def _count(queue_N, num_experts):
    hot_NE = F.one_hot(queue_N, num_experts)
    return (hot_NE.cumsum(0) * hot_NE).sum(1) - 1


def _choice_major(idx_TK, num_experts):
    return _count(idx_TK.T.reshape(-1), num_experts).view(idx_TK.shape[1], -1).T


@caught_by("one_choice")
def counted_from_one(idx_TK, num_experts):
    """Which place has the first in the queue, and which slots does a buffer of C slots have?"""
    return _choice_major(idx_TK, num_experts) + 1


@caught_by("one_choice")
def one_queue_for_all(idx_TK, num_experts):
    """Everybody stands in one line here. Does expert 1's queue move when expert 0 is chosen?"""
    tokens, k = idx_TK.shape
    return torch.arange(tokens * k).view(k, tokens).T


@caught_by("one_choice")
def last_come_first_served(idx_TK, num_experts):
    """Who is first in your queue, the first token or the last?"""
    return _choice_major(idx_TK.flip(0), num_experts).flip(0)


@caught_by("one_choice")
def last_come_first_served__second_choices_first(idx_TK, num_experts):
    """Who is first in your queue, the first token or the last?"""
    return _choice_major(idx_TK.flip(0, 1), num_experts).flip(0, 1)


@caught_by("one_choice")
def length_of_the_queue(idx_TK, num_experts):
    """All tokens of one expert get the same number. What distinguishes the first from the last?"""
    return torch.bincount(idx_TK.flatten(), minlength=num_experts)[idx_TK] - 1


@caught_by("other_inputs", form=True)
def floating_point_places(idx_TK, num_experts):
    """Can a tensor of floats index a buffer?"""
    return _choice_major(idx_TK, num_experts).float()


@caught_by("one_choice")
def order_instead_of_places(idx_TK, num_experts):
    """argsort says who comes at each place of the sorted list. What does each assignment need to know?"""
    return idx_TK.T.flatten().argsort(stable=True).view(idx_TK.shape[1], -1).T


@caught_by("one_choice")
def whole_table_returned(idx_TK, num_experts):
    """Your table has a column for each expert. Which column belongs to each assignment?"""
    return F.one_hot(idx_TK.T.flatten(), num_experts).cumsum(0) - 1


@caught_by("choice_major")
def token_major(idx_TK, num_experts):
    """Here token 0's second choice queues before token 1's first. In what order must idx_TK be flattened?"""
    return _count(idx_TK.flatten(), num_experts).view_as(idx_TK)


@caught_by("choice_major")
def a_queue_for_each_slot(idx_TK, num_experts):
    """First and second choices of one expert share its buffer. Do two of yours get the same place?"""
    return torch.stack([_count(idx_T, num_experts) for idx_T in idx_TK.unbind(1)], dim=1)


@caught_by("choice_major")
def second_choices_behind_all_tokens(idx_TK, num_experts):
    """How many first choices stand before the second choices of *this* expert: T of them?"""
    places = [_count(idx_T, num_experts) + k * len(idx_TK) for k, idx_T in enumerate(idx_TK.unbind(1))]
    return torch.stack(places, dim=1)


@caught_by("choice_major")
def second_choices_first(idx_TK, num_experts):
    """Who should lose first when an expert is full: first choices, or second ones?"""
    return _choice_major(idx_TK.flip(1), num_experts).flip(1)


@caught_by("choice_major")
def reshaped_without_turning_back(idx_TK, num_experts):
    """You counted slot by slot. Does reshape(T, K) know that?"""
    return _count(idx_TK.T.reshape(-1), num_experts).reshape(idx_TK.shape)


@caught_by("choice_major")
def slots_before_tokens_in_the_result(idx_TK, num_experts):
    """Which shape has idx_TK, and which has your result?"""
    return _choice_major(idx_TK, num_experts).T


@caught_by("choice_major")
def only_the_last_slot_remembered(idx_TK, num_experts):
    """Third choices stand behind second ones. And behind whom else?"""
    columns, before_E = [], torch.zeros(num_experts, dtype=torch.long)
    for idx_T in idx_TK.unbind(1):
        columns.append(_count(idx_T, num_experts) + before_E[idx_T])
        before_E = torch.bincount(idx_T, minlength=num_experts)
    return torch.stack(columns, dim=1)


@caught_by("nobody")
def rows_of_chosen_experts_only(idx_TK, num_experts):
    """unique() lists the experts that were chosen. Is expert 4 in row 4 of that list?"""
    queue_N = idx_TK.T.reshape(-1)
    order_N = queue_N.argsort(stable=True)
    counts = torch.unique(queue_N, return_counts=True)[1]
    starts = (counts.cumsum(0) - counts)[queue_N[order_N].clamp(max=len(counts) - 1)]
    places_N = torch.empty_like(queue_N)
    places_N[order_N] = torch.arange(len(queue_N)) - starts
    return places_N.view(idx_TK.shape[1], -1).T


@caught_by("nobody")
def as_many_experts_as_were_chosen(idx_TK, num_experts):
    """How many experts are there: as many as somebody chose?"""
    queue_N = idx_TK.T.reshape(-1)
    names = len(queue_N.unique())
    return _count(queue_N.clamp(max=names - 1), names).view(idx_TK.shape[1], -1).T


@caught_by("long_queues", form=True)
def counted_in_bfloat16(idx_TK, num_experts):
    """bfloat16 has 8 significant bits. What is 256 + 1 in it?"""
    hot_NE = F.one_hot(idx_TK.T.reshape(-1), num_experts).bfloat16()
    pos_N = (hot_NE.cumsum(0) * hot_NE).sum(1) - 1
    return pos_N.long().view(idx_TK.shape[1], -1).T


@caught_by("long_queues", form=True)
def counted_in_a_byte(idx_TK, num_experts):
    """How far can a byte count?"""
    return _choice_major(idx_TK, num_experts).to(torch.uint8).long()


@caught_by("other_inputs", form=True)
def crossed_out(idx_TK, num_experts):
    """You cross out whoever has a place. In whose tensor?"""
    pos_TK = _choice_major(idx_TK, num_experts)
    idx_TK.fill_(-1)
    return pos_TK
