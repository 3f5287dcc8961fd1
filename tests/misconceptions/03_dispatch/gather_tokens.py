import torch

from moe_course.grading.judge.catalogue import caught_by


@caught_by("one_slot")
def tokens_left_as_they_stand(x_TD, order_N, top_k):
    """Each token is there K times. Do its rows stand where its experts will look for them?"""
    return x_TD.repeat_interleave(top_k, dim=0)


@caught_by("one_slot")
def scattered_instead_of_gathered(x_TD, order_N, top_k):
    """Does row n go to the place order_N[n], or does it come from there?"""
    return x_TD[torch.argsort(order_N) // top_k]


@caught_by("several_slots")
def assignments_taken_for_tokens(x_TD, order_N, top_k):
    """There are K times as many assignments as tokens. Is assignment 5 the token 5?"""
    return x_TD[order_N]


@caught_by("several_slots")
def remainder_for_quotient(x_TD, order_N, top_k):
    """n = t·K + k. Which of the two does n % K give back, the token or the slot?"""
    return x_TD[order_N % top_k]


@caught_by("several_slots")
def slots_before_tokens(x_TD, order_N, top_k):
    """Is n = t·K + k, or k·T + t?"""
    return x_TD[order_N % len(x_TD)]


@caught_by("several_slots")
def divided_by_the_tokens(x_TD, order_N, top_k):
    """By what is n divided to find its token: by how many tokens there are, or by how many slots each has?"""
    return x_TD[order_N // len(x_TD)]


@caught_by("several_slots")
def one_row_for_each_token(x_TD, order_N, top_k):
    """A token goes to K experts. How many of them find it in your x_ND?"""
    return x_TD[order_N[: len(x_TD)] // top_k]


@caught_by("one_slot")
def a_fraction_as_an_index(x_TD, order_N, top_k):
    """`/` gives fractions, also where nothing is left over. Which division gives the number of a token?"""
    return x_TD[order_N / top_k]


@caught_by("several_slots")
def rounded_to_the_nearest_token(x_TD, order_N, top_k):
    """Assignment 5 of K = 3: 5 / 3 is nearer to 2. Is token 2 the one it belongs to?"""
    return x_TD[(order_N / top_k).round().long().clamp(max=len(x_TD) - 1)]


@caught_by("several_slots")
def divided_by_k(x_TD, order_N, top_k):
    """A token is passed on as it is. Who said that its K experts share it out?"""
    return x_TD[order_N // top_k] / top_k


@caught_by("gradients")
def tokens_detached(x_TD, order_N, top_k):
    """Layers below learn through x_TD. What does detach() leave for them?"""
    return x_TD.detach()[order_N // top_k]


@caught_by("gradients")
def only_the_first_copy_learns(x_TD, order_N, top_k):
    """A token's row is used K times. From how many of them does a gradient come back?"""
    first_N1 = (order_N % top_k == 0)[:, None]
    rows_ND = x_TD[order_N // top_k]
    return torch.where(first_N1, rows_ND, rows_ND.detach())


@caught_by("other_inputs", form=True)
def always_float32(x_TD, order_N, top_k):
    """Which dtype has torch.zeros when you name none?"""
    x_ND = torch.zeros(len(order_N), x_TD.shape[1])
    x_ND[:] = x_TD[order_N // top_k]
    return x_ND


@caught_by("other_inputs", form=True)
def plan_edited(x_TD, order_N, top_k):
    """`order_N //= top_k` is short. Who else still needs order_N?"""
    order_N //= top_k
    return x_TD[order_N]
