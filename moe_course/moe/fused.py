"""The sorted dispatch as one autograd function, written for a CPU: fewer passes over memory, and less kept.

What autograd would do by itself for `moe_sorted` costs memory traffic, not arithmetic. This function saves two arrays
of shape (N, F) for the backward pass, gate and up. The gathered tokens, the hidden layer and all their gradients live
in blocks that the experts use one after another, so that they stay in the cache, and results are added straight to
the rows of their tokens: no array of N rows of width D exists.

The gradients, with s = σ(gate), so that hidden = gate·s·up and silu'(gate) = s + gate·s·(1 − s):

    dh     = dy·W_downᵀ                       of the hidden layer, before the slot's weight w
    dw     = ⟨dh, hidden⟩                      needs no expert output, for y = w·hidden·W_down
    dup    = w·dh·gate·s
    dgate  = w·(s·dh·up + (1 − s)·dh·hidden)   between dh·hidden and dh·up by s: one `lerp`

The factor w is applied to rows of width D: to dy and x where the weights' gradients are taken, and to dx.

Double backward, forward-mode gradients, torch.func, autocast, torch.compile and other devices are served by
`moe_sorted`. `fused_runs` says where this function steps aside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
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
        x_TD, weights_TK, idx_TK, w_gate_EDF, *_ = inputs
        kept: Any = ctx
        E, D, width = w_gate_EDF.shape
        order_N, counts = _sorted(idx_TK, E)
        new, N, most = x_TD.new_empty, len(order_N), max(counts)
        gate_NF, up_NF = new(N, width), new(N, width)
        row_blocks, hidden_block = new(2, most, D), new(most, width)
        y_TD = torch.zeros_like(x_TD)
        rows = *_tokens(order_N, weights_TK), gate_NF, up_NF
        for n, (w_gate_DF, w_up_DF, w_down_FD), (token_n, w_n1, gate_nF, up_nF) in _by_expert(
            counts, inputs[3:], rows
        ):
            x_nD, y_nD = row_blocks[:, :n]
            torch.index_select(x_TD, 0, token_n, out=x_nD)
            torch.mm(x_nD, w_gate_DF, out=gate_nF)
            torch.mm(x_nD, w_up_DF, out=up_nF)
            hidden_nF = torch.ops.aten.silu.out(gate_nF, out=hidden_block[:n]).mul_(up_nF)
            y_TD.index_add_(0, token_n, torch.mm(hidden_nF, w_down_FD, out=y_nD).mul_(w_n1))
        if any(kept.needs_input_grad):
            kept.save_for_backward(*inputs, order_N, gate_NF, up_NF)
            kept.counts = counts
        return y_TD

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        kept: Any = ctx
        inputs, saved = kept.saved_tensors[:6], kept.saved_tensors[6:]
        if torch.is_grad_enabled():  # create_graph=True: these gradients are differentiated in turn
            return _differentiable(inputs, gradients[0], kept.needs_input_grad)
        return _gradients(inputs, gradients[0], kept.counts, *saved)


def _gradients(
    inputs: tuple[Tensor, ...],
    dy_TD: Tensor,
    counts: list[int],
    order_N: Tensor,
    gate_NF: Tensor,
    up_NF: Tensor,
) -> tuple[Tensor | None, ...]:
    """The gradients of all inputs, computed expert by expert; an expert without rows gets zeros."""
    x_TD, weights_TK, _, *experts = inputs
    new, most, (_, D, width) = x_TD.new_empty, max(counts), experts[0].shape
    row_blocks, hidden_blocks = new(2, most, D), new(4, most, width)
    gradients = [torch.empty_like(w) if all(counts) else torch.zeros_like(w) for w in experts]
    dw_N, dx_TD = new(len(order_N)), torch.zeros_like(x_TD)
    matrices = *(w.mT for w in experts), *gradients
    rows = *_tokens(order_N, weights_TK), gate_NF, up_NF, dw_N
    for n, of_expert, (token_n, w_n1, gate_nF, up_nF, dw_n) in _by_expert(counts, matrices, rows):
        w_gate_FD, w_up_FD, w_down_DF, dw_gate_DF, dw_up_DF, dw_down_FD = of_expert
        row_nD, x_nD = row_blocks[:, :n]
        s_nF, act_nF, hidden_nF, dh_nF = hidden_blocks[:, :n]
        dy_nD = torch.index_select(dy_TD, 0, token_n, out=row_nD)
        torch.mm(dy_nD, w_down_DF, out=dh_nF)
        torch.sigmoid(gate_nF, out=s_nF)
        torch.mul(gate_nF, s_nF, out=act_nF)
        torch.mul(act_nF, up_nF, out=hidden_nF)
        torch.mm(hidden_nF.T, dy_nD.mul_(w_n1), out=dw_down_FD)
        torch.sum(hidden_nF.mul_(dh_nF), dim=1, out=dw_n)
        dup_nF = act_nF.mul_(dh_nF)
        dgate_nF = torch.lerp(hidden_nF, dh_nF.mul_(up_nF), s_nF, out=s_nF)
        x_Dn = torch.index_select(x_TD, 0, token_n, out=x_nD).mul_(w_n1).T
        torch.mm(x_Dn, dgate_nF, out=dw_gate_DF)
        torch.mm(x_Dn, dup_nF, out=dw_up_DF)
        dx_nD = torch.mm(dgate_nF, w_gate_FD, out=row_nD).addmm_(dup_nF, w_up_FD)
        dx_TD.index_add_(0, token_n, dx_nD.mul_(w_n1))
    dweights_TK = torch.empty_like(dw_N).index_copy_(0, order_N, dw_N).view_as(weights_TK)
    return dx_TD, dweights_TK, None, *gradients


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


def _tokens(order_N: Tensor, weights_TK: Tensor) -> tuple[Tensor, Tensor]:
    """The token of each sorted assignment, and its weight as a column."""
    return order_N // weights_TK.shape[1], weights_TK.reshape(-1, 1)[order_N]


def _by_expert(
    counts: list[int], matrices: Sequence[Tensor], rows: Sequence[Tensor]
) -> Iterator[tuple[int, tuple[Tensor, ...], tuple[Tensor, ...]]]:
    """For each expert that has rows: how many, its matrices, and its rows of each of the sorted arrays, as views."""
    busy = [e for e, count in enumerate(counts) if count]
    sizes = [counts[e] for e in busy]
    all_busy = len(busy) == len(counts)  # then one call makes all views; else no view of an idle expert
    of_experts = zip(*(w.unbind() if all_busy else [w[e] for e in busy] for w in matrices), strict=True)
    return zip(sizes, of_experts, zip(*(array.split(sizes) for array in rows), strict=True), strict=True)
