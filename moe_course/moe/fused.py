"""The sorted dispatch as one autograd function, written for a CPU: fewer passes over memory, and less kept.

What autograd would do by itself for `moe_sorted` costs memory traffic, not arithmetic. This function saves three
arrays of shape (N, F) for the backward pass, gate, up and hidden, and neither the gathered tokens nor any expert's
output. Each expert's products are written straight into the rows where they belong. A token's rows come together in
one pass of `embedding_bag`, and so does the gradient of the gather, which is the same sum. The gradient of a gate
weight needs no expert output either: with y = w·h·W_down it is ⟨dy·W_downᵀ, h⟩.

Double backward, forward-mode gradients, torch.func, autocast, torch.compile and other devices are served by
`moe_sorted`. `fused_runs` says where this function steps aside.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import FunctionCtx

from moe_course.moe.dispatch import combine, gather_tokens, grouped_ffn, plan_dispatch

_PLAIN = (torch.Tensor, torch.nn.Parameter)


def fused_runs(x_TD: Tensor, *weights: Tensor) -> bool:
    """Whether `moe_fused` can serve these tokens, slot weights and experts by itself.

    They must be plain tensors on the CPU, all float32 or all float64, outside of torch.compile, autocast, the
    transforms of torch.func and forward-mode differentiation.
    """
    if x_TD.dtype not in (torch.float32, torch.float64) or len(x_TD) == 0:
        return False
    for tensor in (x_TD, *weights):
        if tensor.dtype != x_TD.dtype or tensor.device.type != "cpu" or type(tensor) not in _PLAIN:
            return False
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    if torch._C._functorch.peek_interpreter_stack() is not None:  # inside grad, vmap or jvp of torch.func
        return False
    return all(forward_ad.unpack_dual(tensor).tangent is None for tensor in (x_TD, *weights))


def fused_experts(
    x_TD: Tensor, weights_TK: Tensor, idx_TK: Tensor, w_gate_EDF: Tensor, w_up_EDF: Tensor, w_down_EFD: Tensor
) -> Tensor:
    """y_t = Σ_k weights[t, k] · expert[idx[t, k]](x_t), in the dtype of x_TD, where `fused_runs` says so.

    Raises ValueError for an expert index outside 0..E-1.
    """
    y_TD: Tensor = _Experts.apply(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD)
    return y_TD


class _Experts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, *inputs: Tensor) -> Tensor:
        x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD = inputs
        kept: Any = ctx
        E, D, width = w_gate_EDF.shape
        order_N, counts = _sorted(idx_TK, E)
        token_N = order_N // idx_TK.shape[1]
        N, rows = len(order_N), x_TD.new_empty
        gate_NF, up_NF, hidden_NF, y_ND = rows(N, width), rows(N, width), rows(N, width), rows(N, D)
        for e, block in _blocks(counts):
            x_nD = x_TD.index_select(0, token_N[block])  # stays in the cache for both products
            gate_nF = torch.mm(x_nD, w_gate_EDF[e], out=gate_NF[block])
            up_nF = torch.mm(x_nD, w_up_EDF[e], out=up_NF[block])
            hidden_nF = torch.mul(F.silu(gate_nF), up_nF, out=hidden_NF[block])
            torch.mm(hidden_nF, w_down_EFD[e], out=y_ND[block])
        row_of_TK = _inverse(order_N).view_as(idx_TK)
        if any(kept.needs_input_grad):
            kept.save_for_backward(*inputs, order_N, row_of_TK, gate_NF, up_NF, hidden_NF)
            kept.counts = counts
        return F.embedding_bag(row_of_TK, y_ND, mode="sum", per_sample_weights=weights_TK.contiguous())

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        kept: Any = ctx
        inputs, (order_N, row_of_TK, *saved) = kept.saved_tensors[:6], kept.saved_tensors[6:]
        if torch.is_grad_enabled():  # create_graph=True: these gradients are differentiated in turn
            return _differentiable(inputs, gradients[0], kept.needs_input_grad)
        return _gradients(inputs, gradients[0], order_N, row_of_TK, kept.counts, saved)


def _gradients(
    inputs: tuple[Tensor, ...],
    dy_TD: Tensor,
    order_N: Tensor,
    row_of_TK: Tensor,
    counts: list[int],
    saved: list[Tensor],
) -> tuple[Tensor | None, ...]:
    """The gradients of all inputs, computed expert by expert; an expert without rows gets zeros."""
    x_TD, weights_TK, _, w_gate_EDF, w_up_EDF, w_down_EFD = inputs
    gate_NF, up_NF, hidden_NF = saved
    weight_N = weights_TK.flatten()[order_N]
    token_N = order_N // weights_TK.shape[1]
    dw_gate_EDF, dw_up_EDF, dw_down_EFD = map(torch.empty_like, (w_gate_EDF, w_up_EDF, w_down_EFD))
    dweight_N, dx_ND = x_TD.new_empty(len(order_N)), x_TD.new_empty(len(order_N), x_TD.shape[1])
    for e, block in _blocks(counts, empty=True):
        gate_nF, up_nF, hidden_nF, w_n1 = (
            gate_NF[block],
            up_NF[block],
            hidden_NF[block],
            weight_N[block, None],
        )
        dy_nD = dy_TD.index_select(0, token_N[block])
        dh_nF = dy_nD @ w_down_EFD[e].T  # of the hidden layer, before the slot's weight
        torch.sum(dh_nF * hidden_nF, dim=1, out=dweight_N[block])
        dh_nF *= w_n1
        dy_nD *= w_n1
        torch.mm(hidden_nF.T, dy_nD, out=dw_down_EFD[e])
        act_nF = F.silu(gate_nF)
        dgate_nF = torch.ops.aten.silu_backward(dh_nF * up_nF, gate_nF)
        dup_nF = dh_nF.mul_(act_nF)
        x_nD = x_TD.index_select(0, token_N[block])
        torch.mm(x_nD.T, dgate_nF, out=dw_gate_EDF[e])
        torch.mm(x_nD.T, dup_nF, out=dw_up_EDF[e])
        dx_nD = torch.mm(dgate_nF, w_gate_EDF[e].T, out=dx_ND[block])
        dx_nD.addmm_(dup_nF, w_up_EDF[e].T)
    dx_TD = F.embedding_bag(row_of_TK, dx_ND, mode="sum")
    return dx_TD, dweight_N[row_of_TK], None, dw_gate_EDF, dw_up_EDF, dw_down_EFD


def _differentiable(
    inputs: tuple[Tensor, ...], dy_TD: Tensor, needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The same gradients by way of the parts of `moe_sorted`, with a graph behind them."""
    x_TD, weights_TK, idx_TK, *experts = inputs
    order_N, counts_E = plan_dispatch(idx_TK, len(experts[0]))
    x_ND = gather_tokens(x_TD, order_N, idx_TK.shape[1])
    y_TD = combine(grouped_ffn(x_ND, counts_E, *experts), order_N, weights_TK)
    wanted = [tensor for tensor, wants in zip(inputs, needed, strict=True) if wants]
    found = iter(torch.autograd.grad(y_TD, wanted, dy_TD, create_graph=True))
    return tuple(next(found) if wants else None for wants in needed)


def _sorted(idx_TK: Tensor, num_experts: int) -> tuple[Tensor, list[int]]:
    """order_N, the flat assignments sorted by expert, and how many each expert has."""
    idx_N = idx_TK.flatten()
    if idx_N.min() < 0:
        raise ValueError(f"idx_TK names expert {idx_N.min().item()}, the experts are 0..{num_experts - 1}")
    counts = torch.bincount(idx_N, minlength=num_experts).tolist()
    if len(counts) > num_experts:
        raise ValueError(f"idx_TK names expert {len(counts) - 1}, the experts are 0..{num_experts - 1}")
    if num_experts <= 256:
        idx_N = idx_N.to(torch.uint8)  # PyTorch sorts bytes faster
    return idx_N.argsort(stable=True), counts


def _blocks(counts: list[int], empty: bool = False) -> list[tuple[int, slice]]:
    """(expert, its rows) for every expert that has rows; with `empty` for the others, too."""
    blocks, start = [], 0
    for e, count in enumerate(counts):
        if count or empty:
            blocks.append((e, slice(start, start + count)))
        start += count
    return blocks


def _inverse(order_N: Tensor) -> Tensor:
    """Where each assignment went: inverse[order[n]] = n."""
    return torch.empty_like(order_N).scatter_(0, order_N, torch.arange(len(order_N)))
