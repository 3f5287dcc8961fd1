from moe_course.grading.judge.catalogue import caught_by


def _checked(d_ff, num_experts, top_k, granularity):
    _sizes_checked(d_ff, num_experts, top_k, granularity)
    if d_ff % granularity:
        raise ValueError((d_ff, granularity))


def _sizes_checked(d_ff, num_experts, top_k, granularity):
    if min(d_ff, num_experts, top_k, granularity) < 1 or top_k > num_experts:
        raise ValueError((d_ff, num_experts, top_k, granularity))


@caught_by("width")
def width_kept(d_ff, num_experts, top_k, granularity):
    """Four experts as wide as the one that they came from: what happens to the parameters?"""
    _checked(d_ff, num_experts, top_k, granularity)
    return d_ff, num_experts * granularity, top_k * granularity


@caught_by("width")
def wider_experts(d_ff, num_experts, top_k, granularity):
    """Finer experts are narrower. Which way did you go?"""
    _checked(d_ff, num_experts, top_k, granularity)
    return d_ff * granularity, num_experts * granularity, top_k * granularity


@caught_by("width")
def order_of_the_results(d_ff, num_experts, top_k, granularity):
    """In which order does the caller expect the three numbers?"""
    _checked(d_ff, num_experts, top_k, granularity)
    return num_experts * granularity, top_k * granularity, d_ff // granularity


@caught_by("counts")
def top_k_kept(d_ff, num_experts, top_k, granularity):
    """A token passes through as many experts as before, and each is narrower. What happens to its compute?"""
    _checked(d_ff, num_experts, top_k, granularity)
    return d_ff // granularity, num_experts * granularity, top_k


@caught_by("counts")
def experts_kept(d_ff, num_experts, top_k, granularity):
    """The experts are narrower and as many as before. What happens to the parameters?"""
    _checked(d_ff, num_experts, top_k, granularity)
    return d_ff // granularity, num_experts, min(top_k * granularity, num_experts)


@caught_by("counts")
def granularity_added(d_ff, num_experts, top_k, granularity):
    """Every expert is cut into pieces, so does their number grow by a sum or by a product?"""
    _checked(d_ff, num_experts, top_k, granularity)
    return d_ff // granularity, num_experts + granularity - 1, top_k + granularity - 1


@caught_by("counts")
def granularity_added__whole(d_ff, num_experts, top_k, granularity):
    """Every expert is cut into pieces, so does their number grow by a sum or by a product?"""
    _checked(d_ff, num_experts, top_k, granularity)
    return d_ff // granularity, num_experts + granularity, top_k + granularity


@caught_by("counts")
def one_expert_taken_for_sharing(d_ff, num_experts, top_k, granularity):
    """DeepSeekMoE sets some of the fine experts aside as shared ones. Does this exercise?"""
    _checked(d_ff, num_experts, top_k, granularity)
    return d_ff // granularity, num_experts * granularity - 1, top_k * granularity - 1


@caught_by("exact_int", form=True)
def float_width(d_ff, num_experts, top_k, granularity):
    """A width counts hidden units. Which division gives a whole number?"""
    _checked(d_ff, num_experts, top_k, granularity)
    return d_ff / granularity, num_experts * granularity, top_k * granularity


@caught_by("exact_int", form=True)
def rounded_through_a_float(d_ff, num_experts, top_k, granularity):
    """Which whole numbers above 2⁵³ does a float hold?"""
    _checked(d_ff, num_experts, top_k, granularity)
    return int(d_ff / granularity), num_experts * granularity, top_k * granularity


@caught_by("divides", form=True)
def hidden_units_lost(d_ff, num_experts, top_k, granularity):
    """10 // 4 is 2, and four experts of width 2 are 8 units wide. Where are the other two?"""
    _sizes_checked(d_ff, num_experts, top_k, granularity)
    return d_ff // granularity, num_experts * granularity, top_k * granularity


@caught_by("divides", form=True)
def rounded_up(d_ff, num_experts, top_k, granularity):
    """Rounding up gives units that nobody had. Are the parameters still the same?"""
    _sizes_checked(d_ff, num_experts, top_k, granularity)
    return -(-d_ff // granularity), num_experts * granularity, top_k * granularity


@caught_by("divides", form=True)
def only_too_fine_is_refused(d_ff, num_experts, top_k, granularity):
    """You refuse a granularity above the width. And one below it that leaves a remainder?"""
    _sizes_checked(d_ff, num_experts, top_k, granularity)
    if granularity > d_ff:
        raise ValueError((d_ff, granularity))
    return d_ff // granularity, num_experts * granularity, top_k * granularity


@caught_by("bad_sizes", form=True)
def more_choices_than_experts(d_ff, num_experts, top_k, granularity):
    """Can a token choose six of five experts?"""
    if min(d_ff, num_experts, top_k, granularity) < 1 or d_ff % granularity:
        raise ValueError((d_ff, num_experts, top_k, granularity))
    return d_ff // granularity, num_experts * granularity, top_k * granularity


@caught_by("bad_sizes", form=True)
def sizes_never_checked(d_ff, num_experts, top_k, granularity):
    """What does your code make of zero experts, and of a granularity of zero?"""
    if d_ff % granularity:
        raise ValueError((d_ff, granularity))
    return d_ff // granularity, num_experts * granularity, top_k * granularity


@caught_by("bad_sizes", form=True)
def negative_sizes_accepted(d_ff, num_experts, top_k, granularity):
    """Zero is refused. And -3?"""
    if 0 in (d_ff, num_experts, top_k, granularity) or d_ff % granularity or top_k > num_experts:
        raise ValueError((d_ff, num_experts, top_k, granularity))
    return d_ff // granularity, num_experts * granularity, top_k * granularity


@caught_by("bad_sizes", form=True)
def assertion_for_a_value_error(d_ff, num_experts, top_k, granularity):
    """`assert` vanishes under `python -O`. Which exception tells a caller that an argument is bad?"""
    assert min(d_ff, num_experts, top_k, granularity) >= 1
    assert top_k <= num_experts
    if d_ff % granularity:
        raise ValueError((d_ff, granularity))
    return d_ff // granularity, num_experts * granularity, top_k * granularity


@caught_by("counts")
def all_experts_refused(d_ff, num_experts, top_k, granularity):
    """May a token use all experts of the layer?"""
    _checked(d_ff, num_experts, top_k, granularity)
    if top_k == num_experts:
        raise ValueError((top_k, num_experts))
    return d_ff // granularity, num_experts * granularity, top_k * granularity
