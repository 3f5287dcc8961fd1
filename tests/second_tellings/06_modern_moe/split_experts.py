def _check(d_ff, num_experts, top_k, granularity):
    for size in (d_ff, num_experts, top_k, granularity):
        if size <= 0:
            raise ValueError("sizes must be positive")
    if top_k > num_experts:
        raise ValueError("more choices than experts")
    if d_ff % granularity != 0:
        raise ValueError("d_ff does not divide by the granularity")


def width_kept(d_ff, num_experts, top_k, granularity):
    _check(d_ff, num_experts, top_k, granularity)
    return d_ff, granularity * num_experts, granularity * top_k


def wider_experts(d_ff, num_experts, top_k, granularity):
    _check(d_ff, num_experts, top_k, granularity)
    return granularity * d_ff, granularity * num_experts, granularity * top_k


def order_of_the_results(d_ff, num_experts, top_k, granularity):
    _check(d_ff, num_experts, top_k, granularity)
    return num_experts * granularity, top_k * granularity, d_ff // granularity


def top_k_kept(d_ff, num_experts, top_k, granularity):
    _check(d_ff, num_experts, top_k, granularity)
    width, rest = divmod(d_ff, granularity)
    assert rest == 0
    return width, num_experts * granularity, top_k


def experts_kept(d_ff, num_experts, top_k, granularity):
    _check(d_ff, num_experts, top_k, granularity)
    return d_ff // granularity, num_experts, top_k * granularity


def granularity_added(d_ff, num_experts, top_k, granularity):
    _check(d_ff, num_experts, top_k, granularity)
    return d_ff // granularity, num_experts + granularity, top_k + granularity


def one_expert_taken_for_sharing(d_ff, num_experts, top_k, granularity):
    _check(d_ff, num_experts, top_k, granularity)
    return d_ff // granularity, num_experts * granularity - 1, top_k * granularity - 1


def float_width(d_ff, num_experts, top_k, granularity):
    _check(d_ff, num_experts, top_k, granularity)
    m = granularity
    return d_ff / m, num_experts * m, top_k * m


def hidden_units_lost(d_ff, num_experts, top_k, granularity):
    if min([d_ff, num_experts, top_k, granularity]) < 1 or num_experts < top_k:
        raise ValueError("bad sizes")
    return (d_ff - d_ff % granularity) // granularity, num_experts * granularity, top_k * granularity


def sizes_never_checked(d_ff, num_experts, top_k, granularity):
    if granularity and d_ff % granularity:
        raise ValueError(f"{d_ff} hidden units cannot be cut into {granularity}")
    return d_ff // granularity, num_experts * granularity, top_k * granularity
