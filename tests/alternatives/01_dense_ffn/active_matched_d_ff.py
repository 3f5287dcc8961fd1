def with_divmod(d_ff_dense, top_k, num_shared=0):
    if not (d_ff_dense > 0 and top_k > 0 and num_shared > -1):
        raise ValueError(f"{d_ff_dense=}, {top_k=}, {num_shared=}")
    width, rest = divmod(d_ff_dense, top_k + num_shared)
    if rest != 0:
        raise ValueError(f"{d_ff_dense} leaves {rest}")
    return width


def searched_for(d_ff_dense, top_k, num_shared=0):
    if top_k >= 1 and num_shared >= 0:
        low, high = 1, d_ff_dense
        while low <= high:  # halving: the widths may be too many to try one by one
            width = (low + high) // 2
            if width * top_k + width * num_shared == d_ff_dense:
                return width
            low, high = (width + 1, high) if width * (top_k + num_shared) < d_ff_dense else (low, width - 1)
    raise ValueError(f"no width for {d_ff_dense}, {top_k}, {num_shared}")
