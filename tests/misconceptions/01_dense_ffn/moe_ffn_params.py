from moe_course.grading.judge.catalogue import caught_by


def _checked(d_model, d_ff, num_experts, top_k, num_shared):
    if min(d_model, d_ff, num_experts) < 1 or not 1 <= top_k <= num_experts or num_shared < 0:
        raise ValueError((d_model, d_ff, num_experts, top_k, num_shared))


@caught_by("total")
def no_router(d_model, d_ff, num_experts, top_k, num_shared=0):
    """Something must decide where a token goes. Has it no parameters?"""
    _checked(d_model, d_ff, num_experts, top_k, num_shared)
    expert = 3 * d_model * d_ff
    return (num_experts + num_shared) * expert, (top_k + num_shared) * expert


@caught_by("total")
def active_before_total(d_model, d_ff, num_experts, top_k, num_shared=0):
    """Which of the two numbers does the caller expect first?"""
    _checked(d_model, d_ff, num_experts, top_k, num_shared)
    router, expert = d_model * num_experts, 3 * d_model * d_ff
    return router + (top_k + num_shared) * expert, router + (num_experts + num_shared) * expert


@caught_by("active")
def share_of_the_total(d_model, d_ff, num_experts, top_k, num_shared=0):
    """Is everything in the layer used in the proportion k to E, the router and the shared experts too?"""
    _checked(d_model, d_ff, num_experts, top_k, num_shared)
    total = d_model * num_experts + (num_experts + num_shared) * 3 * d_model * d_ff
    return total, total * top_k // num_experts


@caught_by("active")
def router_of_k_columns(d_model, d_ff, num_experts, top_k, num_shared=0):
    """Can the router choose k experts by looking at k columns only?"""
    _checked(d_model, d_ff, num_experts, top_k, num_shared)
    expert = 3 * d_model * d_ff
    total = d_model * num_experts + (num_experts + num_shared) * expert
    return total, d_model * top_k + (top_k + num_shared) * expert


@caught_by("active")
def router_not_active(d_model, d_ff, num_experts, top_k, num_shared=0):
    """Every token multiplies with the router's matrix. Where is it in the active count?"""
    _checked(d_model, d_ff, num_experts, top_k, num_shared)
    expert = 3 * d_model * d_ff
    return d_model * num_experts + (num_experts + num_shared) * expert, (top_k + num_shared) * expert


@caught_by("active")
def all_experts_active(d_model, d_ff, num_experts, top_k, num_shared=0):
    """How many of the experts does one token pass through?"""
    _checked(d_model, d_ff, num_experts, top_k, num_shared)
    total = d_model * num_experts + (num_experts + num_shared) * 3 * d_model * d_ff
    return total, total


@caught_by("shared")
def shared_not_active(d_model, d_ff, num_experts, top_k, num_shared=0):
    """Which tokens pass through a shared expert?"""
    _checked(d_model, d_ff, num_experts, top_k, num_shared)
    router, expert = d_model * num_experts, 3 * d_model * d_ff
    return router + (num_experts + num_shared) * expert, router + top_k * expert


@caught_by("shared")
def shared_among_the_k(d_model, d_ff, num_experts, top_k, num_shared=0):
    """Does a shared expert use up one of a token's k choices?"""
    _checked(d_model, d_ff, num_experts, top_k, num_shared)
    router, expert = d_model * num_experts, 3 * d_model * d_ff
    return router + (num_experts + num_shared) * expert, router + max(top_k, num_shared) * expert


@caught_by("shared")
def shared_routed(d_model, d_ff, num_experts, top_k, num_shared=0):
    """Does the router need a column for an expert that every token visits anyway?"""
    _checked(d_model, d_ff, num_experts, top_k, num_shared)
    router, expert = d_model * (num_experts + num_shared), 3 * d_model * d_ff
    return router + (num_experts + num_shared) * expert, router + (top_k + num_shared) * expert


@caught_by("total")
def two_matrices_per_expert(d_model, d_ff, num_experts, top_k, num_shared=0):
    """Is an expert a plain two-matrix layer or a gated one?"""
    _checked(d_model, d_ff, num_experts, top_k, num_shared)
    router, expert = d_model * num_experts, 2 * d_model * d_ff
    return router + (num_experts + num_shared) * expert, router + (top_k + num_shared) * expert


@caught_by("bad_arguments", form=True)
def nothing_checked(d_model, d_ff, num_experts, top_k, num_shared=0):
    """What should six of five experts mean?"""
    router, expert = d_model * num_experts, 3 * d_model * d_ff
    return router + (num_experts + num_shared) * expert, router + (top_k + num_shared) * expert


@caught_by("bad_arguments", form=True)
def only_too_large_k_refused(d_model, d_ff, num_experts, top_k, num_shared=0):
    """More experts than there are is one mistake. Which other sizes make no sense?"""
    if top_k > num_experts:
        raise ValueError(top_k)
    router, expert = d_model * num_experts, 3 * d_model * d_ff
    return router + (num_experts + num_shared) * expert, router + (top_k + num_shared) * expert


@caught_by("bad_arguments")
def all_experts_refused(d_model, d_ff, num_experts, top_k, num_shared=0):
    """A token that visits every expert: is that an error?"""
    _checked(d_model, d_ff, num_experts, top_k, num_shared)
    if top_k == num_experts:
        raise ValueError(top_k)
    router, expert = d_model * num_experts, 3 * d_model * d_ff
    return router + (num_experts + num_shared) * expert, router + (top_k + num_shared) * expert


@caught_by("total")
def no_shared_expert_refused(d_model, d_ff, num_experts, top_k, num_shared=0):
    """A layer without shared experts: is that an error, or the usual case?"""
    if min(d_model, d_ff, num_experts, top_k, num_shared) < 1 or top_k > num_experts:
        raise ValueError((d_model, d_ff, num_experts, top_k, num_shared))
    router, expert = d_model * num_experts, 3 * d_model * d_ff
    return router + (num_experts + num_shared) * expert, router + (top_k + num_shared) * expert


@caught_by("bad_arguments", form=True)
def asserted(d_model, d_ff, num_experts, top_k, num_shared=0):
    """What remains of an assert under `python -O`, and which exception should a caller expect?"""
    assert min(d_model, d_ff, num_experts) > 0
    assert 1 <= top_k <= num_experts
    assert num_shared >= 0
    router, expert = d_model * num_experts, 3 * d_model * d_ff
    return router + (num_experts + num_shared) * expert, router + (top_k + num_shared) * expert


@caught_by("exact_int", form=True)
def as_floats(d_model, d_ff, num_experts, top_k, num_shared=0):
    """Is a number of parameters ever a fraction? Which of your operations turns an int into a float?"""
    _checked(d_model, d_ff, num_experts, top_k, num_shared)
    router, expert = float(d_model * num_experts), 3 * d_model * d_ff
    return router + (num_experts + num_shared) * expert, router + (top_k + num_shared) * expert
