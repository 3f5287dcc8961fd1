"""Dispatch by sorting: plan, gather, compute, combine.

    order_N, counts_E = plan_dispatch(idx_TK, num_experts)
    y_ND = grouped_ffn(gather_tokens(x_TD, order_N, top_k), counts_E, w_gate_EDF, w_up_EDF, w_down_EFD)
    y_TD = combine(y_ND, order_N, weights_TK)

An assignment is a pair of token and slot, flattened token-major: n = t·K + k. On an accelerator no function here
reads a value back from the device. The scheme is that of MegaBlocks (Gale et al. 2022, arXiv 2211.15841, section
5).
"""

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

from moe_course.moe.casts import cast, compute_dtype
from moe_course.moe.counts import expert_counts
from moe_course.moe.experts import swiglu_ffn
from moe_course.shapes import check_axes

_SMALLEST = 128  # rows of a tile: the height for which a GPU's matrix kernels are made


def plan_dispatch(idx_TK: Tensor, num_experts: int) -> tuple[Tensor, Tensor]:
    """The assignments sorted by expert, and how many each expert has.

    Returns (order_N, counts_E), both int64: order_N lists the flat assignments of expert 0, then those of expert 1
    and so on, each group in its old order; counts_E has a 0 for an expert that no token chose.
    Raises ValueError for num_experts below 1.
    """
    check_axes(idx_TK=idx_TK)
    if num_experts < 1:
        raise ValueError(f"num_experts must be positive, got {num_experts}")
    order_N = torch.argsort(idx_TK.flatten(), stable=True)
    return order_N, expert_counts(idx_TK, num_experts)


def gather_tokens(x_TD: Tensor, order_N: Tensor, top_k: int) -> Tensor:
    """The token of each assignment, in the order of the plan: x_ND[n] = x_TD[order_N[n] // K].

    Raises ValueError unless there are T·K assignments.
    """
    sizes = check_axes(x_TD=x_TD, order_N=order_N)
    if sizes["N"] != sizes["T"] * top_k:
        raise ValueError(f"{sizes['T']} tokens with top_k = {top_k} do not make {sizes['N']} assignments")
    return x_TD[order_N // top_k]


def grouped_ffn(
    x_ND: Tensor, counts_E: Tensor, w_gate_EDF: Tensor, w_up_EDF: Tensor, w_down_EFD: Tensor
) -> Tensor:
    """SwiGLU experts on rows that are grouped by expert: the first counts_E[0] rows belong to expert 0, and so on.

    An expert without rows is allowed and gets a gradient of zeros. Returns y_ND in the dtype of x_ND. On the CPU
    raises ValueError if the counts do not add up to N; on other devices that would cost a transfer and is not
    checked.
    """
    check_axes(x_ND=x_ND, counts_E=counts_E, w_gate_EDF=w_gate_EDF, w_up_EDF=w_up_EDF, w_down_EFD=w_down_EFD)
    has_counts = not torch.compiler.is_exporting() and not isinstance(counts_E, FakeTensor)
    if x_ND.device.type == "cpu" and has_counts:
        return _in_groups(x_ND, counts_E.tolist(), w_gate_EDF, w_up_EDF, w_down_EFD)
    return _in_tiles(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD)


def combine(y_ND: Tensor, order_N: Tensor, weights_TK: Tensor) -> Tensor:
    """Bring the rows back to their tokens and add them: y_t = Σ_k weights[t, k] · (row of assignment t·K + k).

    A token's slots are always added in the same order, so a result can be repeated on every device. Returns y_TD in
    the dtype of y_ND. Raises ValueError unless there are T·K rows.
    """
    sizes = check_axes(y_ND=y_ND, order_N=order_N, weights_TK=weights_TK)
    if sizes["N"] != sizes["T"] * sizes["K"]:
        raise ValueError(f"{sizes['N']} rows for weights of shape {tuple(weights_TK.shape)}")
    order_N = order_N.long()
    row_of_N = torch.empty_like(order_N).scatter(
        0, order_N, torch.arange(len(order_N), device=order_N.device)
    )
    y_TKD = y_ND[row_of_N].unflatten(0, weights_TK.shape)
    return (weights_TK[..., None] * y_TKD).sum(dim=1).to(y_ND.dtype)


def _in_groups(x_ND: Tensor, counts: list[int], *experts: Tensor) -> Tensor:
    """One expert after another, for the CPU: there reading the counts costs nothing, and no row is padded."""
    if sum(counts) != len(x_ND):
        raise ValueError(f"counts_E = {counts} adds up to {sum(counts)}, there are {len(x_ND)} rows")
    # Unbind once: slicing w[e] in the loop would make autograd allocate a full-size gradient for every expert.
    parts = list(zip(x_ND.split(counts), *(w.unbind() for w in experts), strict=True))
    # Experts without rows are left out: one token must not pay for experts that it did not choose.
    busy = [part for part, count in zip(parts, counts, strict=True) if count] or parts[:1]
    return torch.cat([swiglu_ffn(*part) for part in busy])


def _in_tiles(x_ND: Tensor, counts_E: Tensor, *experts: Tensor) -> Tensor:
    """A few batched products that read no count: their shapes depend on N and E alone.

    Each expert's rows fill tiles of `rows` rows; its last tile is padded with zeros. Whatever the counts are,
    N // rows + E tiles are enough. With rows = N/(4·E) these are at most 5·E tiles: 1.25 times the rows, and the
    weights 5 times, which is cheap where an expert has many rows. Where it has few, a tile has _SMALLEST rows, or
    N/E if that is less: at most 2·E tiles. Where there are no more rows than experts, as in decoding, each row is a
    tile of its own, none is padded, and the weights of experts that have no row are not touched.
    """
    (total, width), num_experts, device = x_ND.shape, len(counts_E), x_ND.device
    each = -(-total // num_experts)
    rows = max(1, -(-each // 4), min(each, _SMALLEST))
    num_tiles = total if rows == 1 else total // rows + num_experts
    tiles_E = (counts_E + rows - 1) // rows
    shift_E = (tiles_E.cumsum(0) - tiles_E) * rows - (
        counts_E.cumsum(0) - counts_E
    )  # how many rows of padding stand before each expert
    expert_N = torch.searchsorted(counts_E.cumsum(0), torch.arange(total, device=device), right=True)
    place_N = torch.arange(total, device=device) + shift_E[expert_N]
    expert_of_tile = torch.searchsorted(tiles_E.cumsum(0), torch.arange(num_tiles, device=device), right=True)
    expert_of_tile = expert_of_tile.clamp(max=num_experts - 1)  # tiles that are not needed hold zeros

    dtype = compute_dtype(x_ND, experts[0])
    w_gate, w_up, w_down = (cast(w, dtype)[expert_of_tile] for w in experts)
    tiles = x_ND.new_zeros(num_tiles * rows, width, dtype=dtype).index_copy(0, place_N, x_ND.to(dtype))
    tiles = tiles.unflatten(0, (num_tiles, rows))
    out = (torch.nn.functional.silu(tiles @ w_gate) * (tiles @ w_up)) @ w_down
    return out.flatten(0, 1)[place_N].to(x_ND.dtype)
