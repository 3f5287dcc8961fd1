from moe_course.grading.judge.catalogue import caught_by


def _checked(d_ff_dense, top_k, num_shared):
    if d_ff_dense < 1 or top_k < 1 or num_shared < 0 or d_ff_dense % (top_k + num_shared):
        raise ValueError((d_ff_dense, top_k, num_shared))


@caught_by("width")
def as_wide_as_the_dense_layer(d_ff_dense, top_k, num_shared=0):
    """A token passes through several experts. How much compute would it get if each were that wide?"""
    _checked(d_ff_dense, top_k, num_shared)
    return d_ff_dense


@caught_by("width")
def multiplied_instead_of_divided(d_ff_dense, top_k, num_shared=0):
    """Must each expert be wider or narrower than the layer that several of them replace?"""
    _checked(d_ff_dense, top_k, num_shared)
    return d_ff_dense * (top_k + num_shared)


@caught_by("exact_int", form=True)
def as_a_float(d_ff_dense, top_k, num_shared=0):
    """Can a matrix have 3.0 columns? Which division gives an int?"""
    _checked(d_ff_dense, top_k, num_shared)
    return d_ff_dense / (top_k + num_shared)


@caught_by("shared")
def shared_experts_forgotten(d_ff_dense, top_k, num_shared=0):
    """Do the shared experts cost a token nothing?"""
    _checked(d_ff_dense, top_k, 0)
    if num_shared < 0:
        raise ValueError(num_shared)
    return d_ff_dense // top_k


@caught_by("shared")
def divides_by_k_alone_checked(d_ff_dense, top_k, num_shared=0):
    """You check one division and carry out another. Which one must come out even?"""
    if d_ff_dense < 1 or top_k < 1 or num_shared < 0 or d_ff_dense % top_k:
        raise ValueError((d_ff_dense, top_k, num_shared))
    return d_ff_dense // (top_k + num_shared)


@caught_by("shared")
def shared_experts_take_choices_away(d_ff_dense, top_k, num_shared=0):
    """Does a shared expert use up one of a token's k choices, or come on top of them?"""
    _checked(d_ff_dense, top_k, 0)
    if num_shared < 0:
        raise ValueError(num_shared)
    return d_ff_dense // max(top_k, num_shared)


@caught_by("width")
def one_shared_expert_by_default(d_ff_dense, top_k, num_shared=1):
    """How many shared experts has a layer when the caller names none?"""
    _checked(d_ff_dense, top_k, num_shared)
    return d_ff_dense // (top_k + num_shared)


@caught_by("bad_arguments", form=True)
def rounded_down(d_ff_dense, top_k, num_shared=0):
    """Three experts of width 3 in place of a layer of 10: does the compute still match?"""
    if d_ff_dense < 1 or top_k < 1 or num_shared < 0:
        raise ValueError((d_ff_dense, top_k, num_shared))
    return d_ff_dense // (top_k + num_shared)


@caught_by("bad_arguments", form=True)
def rounded_up(d_ff_dense, top_k, num_shared=0):
    """Three experts of width 4 in place of a layer of 10: does the compute still match?"""
    if d_ff_dense < 1 or top_k < 1 or num_shared < 0:
        raise ValueError((d_ff_dense, top_k, num_shared))
    return -(-d_ff_dense // (top_k + num_shared))


@caught_by("bad_arguments", form=True)
def only_the_remainder_checked(d_ff_dense, top_k, num_shared=0):
    """0 + 3 divides 12, and every number divides 0. Do such sizes make sense?"""
    if d_ff_dense % (top_k + num_shared):
        raise ValueError((d_ff_dense, top_k, num_shared))
    return d_ff_dense // (top_k + num_shared)


@caught_by("bad_arguments", form=True)
def asserted(d_ff_dense, top_k, num_shared=0):
    """What remains of an assert under `python -O`, and which exception should a caller expect?"""
    assert d_ff_dense > 0
    assert top_k > 0
    assert num_shared >= 0
    assert d_ff_dense % (top_k + num_shared) == 0
    return d_ff_dense // (top_k + num_shared)
