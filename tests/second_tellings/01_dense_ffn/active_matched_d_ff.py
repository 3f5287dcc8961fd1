def _check(d_ff_dense, top_k, num_shared):
    if d_ff_dense <= 0 or top_k <= 0 or num_shared < 0:
        raise ValueError("sizes make no sense")


def as_wide_as_the_dense_layer(d_ff_dense, top_k, num_shared=0):
    _check(d_ff_dense, top_k, num_shared)
    if d_ff_dense % (top_k + num_shared) != 0:
        raise ValueError("does not divide")
    return d_ff_dense


def multiplied_instead_of_divided(d_ff_dense, top_k, num_shared=0):
    _check(d_ff_dense, top_k, num_shared)
    experts = top_k + num_shared
    if d_ff_dense % experts:
        raise ValueError("does not divide")
    return experts * d_ff_dense


def shared_experts_forgotten(d_ff_dense, top_k, num_shared=0):
    _check(d_ff_dense, top_k, num_shared)
    width, rest = divmod(d_ff_dense, top_k)
    if rest:
        raise ValueError("does not divide")
    return width


def shared_experts_take_choices_away(d_ff_dense, top_k, num_shared=0):
    _check(d_ff_dense, top_k, num_shared)
    routed = top_k - num_shared
    if routed + num_shared <= 0 or d_ff_dense % top_k:
        raise ValueError("does not divide")
    return d_ff_dense // top_k


def one_shared_expert_by_default(d_ff_dense, top_k, num_shared=1):
    _check(d_ff_dense, top_k, num_shared)
    width, rest = divmod(d_ff_dense, top_k + num_shared)
    if rest > 0:
        raise ValueError("does not divide")
    return width


def rounded_down(d_ff_dense, top_k, num_shared=0):
    _check(d_ff_dense, top_k, num_shared)
    return d_ff_dense // (num_shared + top_k)


def as_a_float(d_ff_dense, top_k, num_shared=0):
    _check(d_ff_dense, top_k, num_shared)
    width = d_ff_dense / (num_shared + top_k)
    if not width.is_integer():
        raise ValueError("does not divide")
    return width
