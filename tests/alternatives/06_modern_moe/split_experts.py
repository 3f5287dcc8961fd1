def divmod_and_a_list(d_ff, num_experts, top_k, granularity):
    if not (0 < top_k <= num_experts and d_ff > 0 and granularity > 0):
        raise ValueError(f"{d_ff=} {num_experts=} {top_k=} {granularity=}")
    width, rest = divmod(d_ff, granularity)
    if rest:
        raise ValueError(f"{d_ff} / {granularity} leaves {rest}")
    return [width, num_experts * granularity, top_k * granularity]


def what_must_stay_the_same(d_ff, num_experts, top_k, granularity):
    for size in (d_ff, num_experts, top_k, granularity):
        if size <= 0:
            raise ValueError(f"{size} is not positive")
    if top_k > num_experts or d_ff % granularity != 0:
        raise ValueError((d_ff, num_experts, top_k, granularity))
    width = d_ff // granularity
    total, active = num_experts * d_ff, top_k * d_ff  # hidden units, of the layer and of a token
    return width, total // width, active // width


class _BadSizes(ValueError):
    pass


def an_error_of_its_own(d_ff, num_experts, top_k, granularity):
    sizes = {"d_ff": d_ff, "num_experts": num_experts, "top_k": top_k, "granularity": granularity}
    bad = {name: size for name, size in sizes.items() if size < 1}
    if bad or top_k not in range(1, num_experts + 1) or d_ff // granularity * granularity != d_ff:
        raise _BadSizes(bad or sizes)
    return (d_ff // granularity, *(count * granularity for count in (num_experts, top_k)))
