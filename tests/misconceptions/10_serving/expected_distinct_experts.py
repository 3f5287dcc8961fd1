import math

import torch

from moe_course.grading.judge.catalogue import caught_by


@caught_by("few_tokens")
def all_choices_differ(num_experts, top_k, batch):
    """B · K is the most that a step can use, up to E. Do two tokens never choose the same expert?"""
    return float(min(batch * top_k, num_experts))


@caught_by("many_tokens")
def choices_counted(num_experts, top_k, batch):
    """You count choices. Can a batch use more experts than there are?"""
    return float(batch * top_k)


@caught_by("few_tokens")
def choices_of_a_token_may_repeat(num_experts, top_k, batch):
    """You draw B · K times, each time among all E experts. Can one token choose the same expert twice?"""
    return num_experts * (1 - (1 - 1 / num_experts) ** (batch * top_k))


@caught_by("one_token")
def one_choice_for_each_token(num_experts, top_k, batch):
    """How many experts does each token choose?"""
    return num_experts * (1 - (1 - 1 / num_experts) ** batch)


@caught_by("one_token")
def share_of_the_experts(num_experts, top_k, batch):
    """You have the probability that an expert is used. How many of them are there?"""
    return 1 - (1 - top_k / num_experts) ** batch


@caught_by("one_token")
def unused_experts(num_experts, top_k, batch):
    """You count the experts that all tokens miss. Which ones are read?"""
    return num_experts * (1 - top_k / num_experts) ** batch


@caught_by("one_token")
def last_token_left_out(num_experts, top_k, batch):
    """Has the last token of the batch been counted?"""
    return num_experts * (1 - (1 - top_k / num_experts) ** (batch - 1))


@caught_by("few_tokens")
def later_tokens_like_the_second(num_experts, top_k, batch):
    """In your code the third token brings as many new experts as the second. Does it find as many unused ones?"""
    used = top_k + (batch - 1) * top_k * (1 - top_k / num_experts)
    return float(min(used, num_experts))


@caught_by("few_tokens")
def rounded_up(num_experts, top_k, batch):
    """It is an average over many steps. Must it be a whole number?"""
    return float(math.ceil(num_experts * (1 - (1 - top_k / num_experts) ** batch) - 1e-9))


@caught_by("float", form=True)
def tensor_returned(num_experts, top_k, batch):
    """The result is to go into formulas. Which type does `math` or plain Python give you?"""
    missed = torch.tensor(1 - top_k / num_experts, dtype=torch.float64) ** batch
    return num_experts * (1 - missed)


@caught_by("float", form=True)
def whole_where_it_is_whole(num_experts, top_k, batch):
    """Sometimes you return an int, and sometimes a float. Can a caller rely on one type?"""
    used = num_experts * (1 - (1 - top_k / num_experts) ** batch)
    return round(used) if abs(used - round(used)) < 1e-9 else used
