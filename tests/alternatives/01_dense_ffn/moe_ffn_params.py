def counted_matrix_by_matrix(d_model, d_ff, num_experts, top_k, num_shared=0):
    for name, value, least in (
        ("d_model", d_model, 1),
        ("d_ff", d_ff, 1),
        ("num_experts", num_experts, 1),
        ("top_k", top_k, 1),
        ("num_shared", num_shared, 0),
    ):
        if value < least:
            raise ValueError(f"{name} = {value}")
    if top_k > num_experts:
        raise ValueError(f"top_k = {top_k} of {num_experts}")

    def count(experts):
        return sum(d_model * d_ff for _ in range(experts + num_shared) for _ in ("gate", "up", "down"))

    return tuple(count(experts) + d_model * num_experts for experts in (num_experts, top_k))


def active_from_the_total(d_model, d_ff, num_experts, top_k, num_shared=0):
    if not (d_model > 0 and d_ff > 0 and num_shared >= 0 and 0 < top_k <= num_experts):
        raise ValueError(f"{d_model=} {d_ff=} {num_experts=} {top_k=} {num_shared=}")
    expert = (2 * d_model + d_model) * d_ff
    total = d_model * num_experts + expert * (num_experts + num_shared)
    return [total, total - (num_experts - top_k) * expert]
