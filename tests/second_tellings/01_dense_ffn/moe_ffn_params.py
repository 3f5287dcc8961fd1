def _check(d_model, d_ff, num_experts, top_k, num_shared):
    if d_model <= 0 or d_ff <= 0 or num_experts <= 0 or num_shared < 0:
        raise ValueError("sizes must be positive")
    if top_k not in range(1, num_experts + 1):
        raise ValueError("top_k must lie in 1..num_experts")


def no_router(d_model, d_ff, num_experts, top_k, num_shared=0):
    _check(d_model, d_ff, num_experts, top_k, num_shared)
    one = d_model * d_ff * 3
    return one * num_experts + one * num_shared, one * top_k + one * num_shared


def active_before_total(d_model, d_ff, num_experts, top_k, num_shared=0):
    _check(d_model, d_ff, num_experts, top_k, num_shared)
    one = d_model * d_ff * 3
    total = num_experts * (d_model + one) + num_shared * one
    active = total - (num_experts - top_k) * one
    return active, total


def share_of_the_total(d_model, d_ff, num_experts, top_k, num_shared=0):
    _check(d_model, d_ff, num_experts, top_k, num_shared)
    one = d_model * d_ff * 3
    total = num_experts * (d_model + one) + num_shared * one
    return total, total * top_k // num_experts


def router_of_k_columns(d_model, d_ff, num_experts, top_k, num_shared=0):
    _check(d_model, d_ff, num_experts, top_k, num_shared)
    one = d_model * d_ff * 3
    total = d_model * num_experts + one * (num_experts + num_shared)
    return total, top_k * (d_model + one) + num_shared * one


def router_not_active(d_model, d_ff, num_experts, top_k, num_shared=0):
    _check(d_model, d_ff, num_experts, top_k, num_shared)
    one = d_model * d_ff * 3
    active = one * (top_k + num_shared)
    return d_model * num_experts + active + one * (num_experts - top_k), active


def all_experts_active(d_model, d_ff, num_experts, top_k, num_shared=0):
    _check(d_model, d_ff, num_experts, top_k, num_shared)
    total = d_model * num_experts + 3 * d_model * d_ff * (num_experts + num_shared)
    return (total,) * 2


def shared_not_active(d_model, d_ff, num_experts, top_k, num_shared=0):
    _check(d_model, d_ff, num_experts, top_k, num_shared)
    gate, one = d_model * num_experts, 3 * d_model * d_ff
    return gate + one * num_experts + one * num_shared, gate + one * top_k


def shared_among_the_k(d_model, d_ff, num_experts, top_k, num_shared=0):
    _check(d_model, d_ff, num_experts, top_k, num_shared)
    gate, one = d_model * num_experts, 3 * d_model * d_ff
    routed = top_k - num_shared
    return gate + one * (num_experts + num_shared), gate + one * (routed + num_shared)


def shared_routed(d_model, d_ff, num_experts, top_k, num_shared=0):
    _check(d_model, d_ff, num_experts, top_k, num_shared)
    experts, one = num_experts + num_shared, 3 * d_model * d_ff
    return experts * (d_model + one), experts * d_model + (top_k + num_shared) * one


def two_matrices_per_expert(d_model, d_ff, num_experts, top_k, num_shared=0):
    _check(d_model, d_ff, num_experts, top_k, num_shared)
    gate, one = d_model * num_experts, d_model * d_ff + d_ff * d_model
    return gate + one * (num_experts + num_shared), gate + one * (top_k + num_shared)


def nothing_checked(d_model, d_ff, num_experts, top_k, num_shared=0):
    router = d_model * num_experts
    one = 3 * d_model * d_ff
    active = router + (top_k + num_shared) * one
    return active + (num_experts - top_k) * one, active
