from moe_course.grading.judge.catalogue import caught_by


@caught_by("count")
def multiply_adds_counted_once(num_tokens, d_model, d_ff):
    """A multiply-add is a multiplication and an addition. How many operations is that?"""
    return 3 * num_tokens * d_model * d_ff


@caught_by("count")
def two_matrices(num_tokens, d_model, d_ff):
    """How many matrix products does a gated layer take?"""
    return 4 * num_tokens * d_model * d_ff


@caught_by("count")
def backward_included(num_tokens, d_model, d_ff):
    """Training costs three times as much. Is training asked for, or the forward pass?"""
    return 18 * num_tokens * d_model * d_ff


@caught_by("count")
def tokens_forgotten(num_tokens, d_model, d_ff):
    """That is the cost of one token. How many are there?"""
    return 6 * d_model * d_ff


@caught_by("count")
def elementwise_work_included(num_tokens, d_model, d_ff):
    """You count silu and the product of the two paths as well. What does the convention count?"""
    return 6 * num_tokens * d_model * d_ff + 5 * num_tokens * d_ff


@caught_by("count")
def elementwise_work_included__one_each(num_tokens, d_model, d_ff):
    """You count silu and the product of the two paths as well. What does the convention count?"""
    return 6 * num_tokens * d_model * d_ff + 2 * num_tokens * d_ff


@caught_by("count")
def every_pair_of_tokens(num_tokens, d_model, d_ff):
    """Do tokens look at each other in this layer, as they do in attention?"""
    return 6 * num_tokens**2 * d_model * d_ff


@caught_by("exact_int", form=True)
def as_a_float(num_tokens, d_model, d_ff):
    """What is left of the last digits of a very large float?"""
    return 2.0 * num_tokens * 3 * d_model * d_ff


@caught_by("exact_int", form=True)
def through_a_float(num_tokens, d_model, d_ff):
    """int() makes an integer of it again. But which digits did the float keep on the way?"""
    return int(6e0 * num_tokens * d_model * d_ff)
