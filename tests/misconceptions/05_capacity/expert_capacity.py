import math

import torch

from moe_course.grading.judge.catalogue import caught_by


def _checked(num_tokens, num_experts, top_k, factor):
    if num_tokens < 1 or num_experts < 1 or not 1 <= top_k <= num_experts or not factor > 0:
        raise ValueError((num_tokens, num_experts, top_k, factor))


@caught_by("fair_share")
def all_tokens_fit(num_tokens, num_experts, top_k, factor):
    """With room for every token in every expert, what is left of the saving?"""
    _checked(num_tokens, num_experts, top_k, factor)
    return math.ceil(num_tokens * top_k * factor)


@caught_by("python_int", form=True)
def a_float_returned(num_tokens, num_experts, top_k, factor):
    """Can a buffer have 3.0 slots? Which type does `torch.zeros` want for a size?"""
    _checked(num_tokens, num_experts, top_k, factor)
    return float(math.ceil(num_tokens * top_k / num_experts * factor))


@caught_by("python_int", form=True)
def a_tensor_returned(num_tokens, num_experts, top_k, factor):
    """Which type should a size have, a tensor's or Python's?"""
    _checked(num_tokens, num_experts, top_k, factor)
    return torch.ceil(torch.tensor(num_tokens * top_k / num_experts * factor, dtype=torch.float64))


@caught_by("fair_share")
def one_slot_to_spare(num_tokens, num_experts, top_k, factor):
    """Rounding down and adding one: what comes out when nothing needed rounding?"""
    _checked(num_tokens, num_experts, top_k, factor)
    return int(num_tokens * top_k / num_experts * factor) + 1


@caught_by("assignments")
def tokens_counted(num_tokens, num_experts, top_k, factor):
    """Switch counts tokens, because there K is 1. How many places do K choices a token ask for?"""
    _checked(num_tokens, num_experts, top_k, factor)
    return math.ceil(num_tokens / num_experts * factor)


@caught_by("assignments")
def choices_shared_out_among_them(num_tokens, num_experts, top_k, factor):
    """More choices a token: do the experts then get more to do, or less?"""
    _checked(num_tokens, num_experts, top_k, factor)
    return math.ceil(num_tokens / (num_experts * top_k) * factor)


@caught_by("factor")
def factor_forgotten(num_tokens, num_experts, top_k, factor):
    """Where does the factor come in?"""
    _checked(num_tokens, num_experts, top_k, factor)
    return math.ceil(num_tokens * top_k / num_experts)


@caught_by("factor")
def factor_divides(num_tokens, num_experts, top_k, factor):
    """Does a larger factor make the buffers larger, or smaller?"""
    _checked(num_tokens, num_experts, top_k, factor)
    return math.ceil(num_tokens * top_k / num_experts / factor)


@caught_by("factor")
def never_below_the_fair_share(num_tokens, num_experts, top_k, factor):
    """Somebody asks for a factor of 0.5 and gets 1. Was that yours to decide?"""
    _checked(num_tokens, num_experts, top_k, factor)
    return math.ceil(num_tokens * top_k / num_experts * max(1.0, factor))


@caught_by("factor")
def factor_cut_to_a_whole_number(num_tokens, num_experts, top_k, factor):
    """What does int() make of a factor of 1.25?"""
    _checked(num_tokens, num_experts, top_k, factor)
    return -(-num_tokens * top_k * int(factor) // num_experts)


@caught_by("rounds_up")
def rounded_down(num_tokens, num_experts, top_k, factor):
    """10 tokens, 4 experts, factor 1: how many slots does int() give in all, and for how many tokens?"""
    _checked(num_tokens, num_experts, top_k, factor)
    return int(num_tokens * top_k / num_experts * factor)


@caught_by("rounds_up")
def rounded_to_the_nearest(num_tokens, num_experts, top_k, factor):
    """What does round() do with 2.25, and should there be room for that quarter?"""
    _checked(num_tokens, num_experts, top_k, factor)
    return round(num_tokens * top_k / num_experts * factor)


@caught_by("rounds_up")
def share_rounded_before_the_factor(num_tokens, num_experts, top_k, factor):
    """You round the fair share up, then stretch it. Which number should be rounded?"""
    _checked(num_tokens, num_experts, top_k, factor)
    return math.ceil(math.ceil(num_tokens * top_k / num_experts) * factor)


@caught_by("rounds_up")
def share_cut_before_the_factor(num_tokens, num_experts, top_k, factor):
    """What does // do to 10 tokens among 4 experts, before the factor comes in?"""
    _checked(num_tokens, num_experts, top_k, factor)
    return math.ceil(num_tokens * top_k // num_experts * factor)


@caught_by("rounds_up")
def per_choice_then_times_k(num_tokens, num_experts, top_k, factor):
    """You round once for each choice. How much do K roundings add?"""
    _checked(num_tokens, num_experts, top_k, factor)
    return top_k * math.ceil(num_tokens / num_experts * factor)


@caught_by("rounds_up")
def at_least_four_slots(num_tokens, num_experts, top_k, factor):
    """Some frameworks have a smallest capacity. Did anybody ask for one here?"""
    _checked(num_tokens, num_experts, top_k, factor)
    return max(4, math.ceil(num_tokens * top_k / num_experts * factor))


@caught_by("bad_arguments", form=True)
def nothing_checked(num_tokens, num_experts, top_k, factor):
    """What does your code say to a token that chooses five of four experts?"""
    return math.ceil(num_tokens * top_k / num_experts * factor)


@caught_by("bad_arguments", form=True)
def only_the_factor_checked(num_tokens, num_experts, top_k, factor):
    """The factor is checked. What does your code return for 0 tokens, or for −4 experts?"""
    if not factor > 0:
        raise ValueError(factor)
    return math.ceil(num_tokens * top_k / max(1, num_experts) * factor)


@caught_by("bad_arguments", form=True)
def factor_not_checked(num_tokens, num_experts, top_k, factor):
    """The sizes are checked. What is an expert with a factor of 0 good for?"""
    _checked(num_tokens, num_experts, top_k, 1.0)
    return math.ceil(num_tokens * top_k / num_experts * factor)


@caught_by("bad_arguments", form=True)
def k_above_the_experts_accepted(num_tokens, num_experts, top_k, factor):
    """A token chooses K different experts. How large can K be?"""
    _checked(num_tokens, num_experts, max(0, min(top_k, num_experts)), factor)
    return math.ceil(num_tokens * top_k / num_experts * factor)


@caught_by("bad_arguments", form=True)
def asserted(num_tokens, num_experts, top_k, factor):
    """What remains of an assert under `python -O`, and which exception should a caller expect?"""
    assert num_tokens > 0
    assert num_experts >= top_k > 0
    assert factor > 0
    return math.ceil(num_tokens * top_k / num_experts * factor)
