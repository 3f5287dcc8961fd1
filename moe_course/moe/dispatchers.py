"""The five dispatches: functions that send tokens to experts and bring the results back, with one signature.

Each takes (x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD) and returns y_TD = Σ_k weights[t, k] ·
expert[idx[t, k]](x_t) in the dtype of x_TD. Outputs and gradients are equal up to rounding.

    loop      one expert after another; the reference, in loop.py
    onehot    every expert computes every token, and a one-hot mask selects: E/K times the arithmetic
    sorted    assignments sorted by expert, one product per expert on its own rows
    grouped   sorted, and one product for all experts at once, by torch's grouped GEMM operator
    fused     sorted, as one autograd function that writes less to memory; on a CPU only, in fused.py

`loop` reads from the device which tokens chose an expert, so the host waits for it, and it does not run on the meta
device. The others read nothing from an accelerator and run there; `grouped` because it uses its operator only on GPUs
where the operator reads nothing, and is as `sorted` on all others. `auto` chooses among `fused`, `grouped` and
`sorted`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from moe_course.moe.casts import cast, compute_dtype
from moe_course.moe.dispatch import combine, gather_tokens, grouped_ffn, plan_dispatch
from moe_course.moe.experts import swiglu_experts
from moe_course.moe.fused import fused_experts, fused_runs
from moe_course.moe.loop import moe_loop
from moe_course.shapes import check_axes

DispatchFunction = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]

_grouped_mm = getattr(F, "grouped_mm", None) or torch._grouped_mm  # the public name came with torch 2.10


def moe_onehot(
    x_TD: Tensor,
    weights_TK: Tensor,
    idx_TK: Tensor,
    w_gate_EDF: Tensor,
    w_up_EDF: Tensor,
    w_down_EFD: Tensor,
) -> Tensor:
    """Every expert computes every token; a one-hot mask weights the chosen results and removes all others.

    GShard's einsum dispatch (arXiv 2006.16668, algorithm 2) with room for every token in every expert: slot t then
    holds token t, and the mask_TEC of that paper becomes a matrix of gates. All matrix products have fixed shapes.
    """
    E, T = _check(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD)
    y_ETD = swiglu_experts(x_TD.expand(E, T, -1), w_gate_EDF, w_up_EDF, w_down_EFD)
    chosen_TKE = idx_TK[:, :, None] == torch.arange(E, device=idx_TK.device)
    gates_TE = (weights_TK[:, :, None] * chosen_TKE).sum(dim=1)
    return (gates_TE.T[:, :, None] * y_ETD).sum(dim=0).to(x_TD.dtype)


def moe_sorted(
    x_TD: Tensor,
    weights_TK: Tensor,
    idx_TK: Tensor,
    w_gate_EDF: Tensor,
    w_up_EDF: Tensor,
    w_down_EFD: Tensor,
) -> Tensor:
    """Sort the assignments by expert, gather their tokens, run each expert on its own rows, sum by token."""
    E, _ = _check(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD)
    order_N, counts_E = plan_dispatch(idx_TK, E)
    x_ND = gather_tokens(x_TD, order_N, idx_TK.shape[1])
    y_ND = grouped_ffn(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD)
    return combine(y_ND, order_N, weights_TK)


def moe_grouped(
    x_TD: Tensor,
    weights_TK: Tensor,
    idx_TK: Tensor,
    w_gate_EDF: Tensor,
    w_up_EDF: Tensor,
    w_down_EFD: Tensor,
) -> Tensor:
    """As `moe_sorted`, with all experts in one call of the grouped GEMM; as `moe_sorted` where that cannot run."""
    if not grouped_mm_runs(x_TD, w_gate_EDF):
        return moe_sorted(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD)
    E, _ = _check(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD)
    order_N, counts_E = plan_dispatch(idx_TK, E)
    dtype = compute_dtype(x_TD, w_gate_EDF)
    x_ND = gather_tokens(x_TD.to(dtype), order_N, idx_TK.shape[1])  # T rows to cast, not T·K
    ends_E = counts_E.cumsum(0).to(torch.int32)  # expert e owns the rows from ends[e−1] to ends[e]

    def mm(rows_ND: Tensor, w_EDF: Tensor) -> Tensor:
        return _grouped_mm(rows_ND, cast(w_EDF, dtype).contiguous(), offs=ends_E)

    hidden_NF = F.silu(mm(x_ND, w_gate_EDF)) * mm(x_ND, w_up_EDF)
    return combine(mm(hidden_NF, w_down_EFD), order_N, weights_TK).to(x_TD.dtype)


def moe_fused(
    x_TD: Tensor,
    weights_TK: Tensor,
    idx_TK: Tensor,
    w_gate_EDF: Tensor,
    w_up_EDF: Tensor,
    w_down_EFD: Tensor,
) -> Tensor:
    """`moe_sorted` with fewer passes over memory, on a CPU; as `moe_grouped` where that cannot run."""
    _check(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD)
    serves = fused_runs(x_TD, weights_TK, w_gate_EDF, w_up_EDF, w_down_EFD)
    dispatch = fused_experts if serves else moe_grouped
    return dispatch(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD)


def moe_auto(
    x_TD: Tensor,
    weights_TK: Tensor,
    idx_TK: Tensor,
    w_gate_EDF: Tensor,
    w_up_EDF: Tensor,
    w_down_EFD: Tensor,
) -> Tensor:
    """The dispatch that `pick_dispatch` chooses for these inputs."""
    dispatch = DISPATCHES[pick_dispatch(x_TD, idx_TK, w_gate_EDF)]
    return dispatch(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD)


FUSED_ROWS = 128
"""From so many assignments for each expert on, `fused` is the fastest on a CPU.

Measured with one thread, 16 to 128 experts, d_ff 8 and 128: with 32 assignments `grouped` takes 0.3 to 0.8 of its
time, with 128 it takes 0.7 to 1.3, with 512 from 1.4 on.
"""

DISPATCHES: dict[str, DispatchFunction] = {
    "loop": moe_loop,
    "onehot": moe_onehot,
    "sorted": moe_sorted,
    "grouped": moe_grouped,
    "fused": moe_fused,
    "auto": moe_auto,
}
"""The dispatches by name, as `MoEConfig.dispatch` names them."""


def pick_dispatch(x_TD: Tensor, idx_TK: Tensor, w_gate_EDF: Tensor) -> str:
    """The name of the dispatch that `auto` uses, from shapes, dtypes and the device alone.

    On a CPU "fused", which spends time on each expert and spares memory traffic, where an expert gets FUSED_ROWS
    assignments on average; also where no gradient is wanted and at most half of the experts can be chosen, as when a
    model writes token by token, for it visits those alone. Else "grouped" wherever its operator runs.
    """
    E, N = len(w_gate_EDF), idx_TK.numel()
    fused, grouped = fused_runs(x_TD, w_gate_EDF), grouped_mm_runs(x_TD, w_gate_EDF)
    if fused and (N >= FUSED_ROWS * E or (2 * N <= E and not torch.is_grad_enabled()) or not grouped):
        return "fused"
    return "grouped" if grouped else "sorted"


def grouped_mm_runs(x_TD: Tensor, w_gate_EDF: Tensor) -> bool:
    """Whether torch's grouped GEMM takes these tokens and experts, forward and backward, and serves them well.

    Rows must start at multiples of 16 bytes, so D and F must be multiples of 8 in bfloat16. On a GPU it must be
    bfloat16 and compute capability 9.0 (H100, H200, GH200). Elsewhere, and in float32, the operator copies the
    offsets to the host and runs one product after another. On Blackwell (10.0) it is fast, but an expert without
    tokens gets garbage for its weights' gradient (pytorch/pytorch issue 172439, open for torch 2.13). The kernel for
    CPUs takes float32 and float16 as well, outside of torch.compile. The meta device counts as an H100.
    (torch 2.13, `grouped_mm`)
    """
    dtype = compute_dtype(x_TD, w_gate_EDF)
    _, D, width = w_gate_EDF.shape
    if len(x_TD) == 0 or D * dtype.itemsize % 16 or width * dtype.itemsize % 16:
        return False
    device = x_TD.device
    if device.type == "cpu" and not torch.compiler.is_compiling():
        return dtype in (torch.float32, torch.bfloat16, torch.float16)
    if device.type == "cuda" and not is_hopper(device):
        return False
    return dtype == torch.bfloat16 and device.type in ("cpu", "cuda", "meta")


@torch.compiler.assume_constant_result  # a question to the driver: no part of a compiled graph
def is_hopper(device: torch.device) -> bool:
    """Whether a GPU has compute capability 9.0."""
    return torch.cuda.get_device_capability(device) == (9, 0)


def _check(*arguments: Tensor) -> tuple[int, int]:
    """Check the arguments of a dispatch against each other; returns (E, T)."""
    names = ("x_TD", "weights_TK", "idx_TK", "w_gate_EDF", "w_up_EDF", "w_down_EFD")
    sizes = check_axes(**dict(zip(names, arguments, strict=True)))
    return sizes["E"], sizes["T"]
