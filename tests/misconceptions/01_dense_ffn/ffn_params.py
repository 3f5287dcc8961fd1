from moe_course.grading.judge.catalogue import caught_by


@caught_by("count")
def two_matrices(d_model, d_ff):
    """Up and down make two. Which third matrix does a gated layer have?"""
    return 2 * d_model * d_ff


@caught_by("count")
def biases_counted(d_model, d_ff):
    """Does this layer have biases?"""
    return 3 * d_model * d_ff + 2 * d_ff + d_model


@caught_by("count")
def gate_counted_twice(d_model, d_ff):
    """silu has no weights of its own. Which matrix do you count twice?"""
    return 4 * d_model * d_ff


@caught_by("count")
def four_times_as_wide(d_model, d_ff):
    """Four times the model width is a custom, not a rule. Which argument says how wide the layer is?"""
    return 3 * d_model * 4 * d_model


@caught_by("count")
def sides_added(d_model, d_ff):
    """How many numbers are in a matrix of 2 rows and 3 columns?"""
    return 3 * (d_model + d_ff)


@caught_by("exact_int", form=True)
def as_a_float(d_model, d_ff):
    """Can half a parameter exist? What is left of the last digits of a very large float?"""
    return 3.0 * d_model * d_ff


@caught_by("exact_int", form=True)
def through_a_float(d_model, d_ff):
    """int() makes an integer of it again. But which digits did the float keep on the way?"""
    return int(3e0 * d_model * d_ff)
