"""Expert parallelism: the experts of a layer are spread over ranks, and tokens travel to them.

    layer = ExpertParallelMoE(config, group)              # under torchrun; group None: all ranks
    layer = ExpertParallelMoE.from_layer(whole, group)    # this rank's share of a MoELayer
    y_BSD, stats = layer(x_BSD)                           # every rank of the group calls, also without tokens

Each rank routes its own tokens with its copy of the router, sends them to the ranks that hold the chosen experts, and
gets the results back: two all-to-all exchanges forward, and two more backward. Rank r of the group holds experts
r·E/R to (r+1)·E/R − 1. gloo connects CPUs, NCCL GPUs. Source: Lepikhin et al. 2020, GShard, arXiv 2006.16668,
section 3.2; the names of the steps are those of Megatron-LM's token dispatchers.

Gradients. If the loss of each rank is the mean over its own tokens, then after backward

- router and shared experts, which every rank has: the gradient of this rank's loss. Take the mean over the ranks.
- w_gate, w_up, w_down of the local experts: the *sum* over the ranks of their losses' gradients, because tokens of
  all ranks have passed. Divide by R; other ranks of the group hold other experts, so nothing is sent.

Both then are the gradients of the mean loss over the tokens of all ranks (equally many on each).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from moe_course.config import MoEConfig
from moe_course.moe.dispatch import combine, gather_tokens, grouped_ffn, plan_dispatch
from moe_course.moe.experts import swiglu_experts
from moe_course.moe.layer import MoELayer
from moe_course.shapes import check_axes

Group = dist.ProcessGroup | None  # None is the default group: all ranks
T = TypeVar("T")

EXPERT_WEIGHTS = ("w_gate", "w_up", "w_down")
"""The parameters of a layer that are divided among the ranks, along their first axis. All others every rank has."""


def expert_rank(expert: int, num_experts: int, num_ranks: int) -> int:
    """The rank that holds an expert: contiguous blocks of E/R experts.

    Raises ValueError for sizes below 1, for experts that do not divide into ranks, and for an expert outside 0..E−1.
    """
    if not 0 <= expert < num_experts:
        raise ValueError(f"there is no expert {expert} among {num_experts}")
    return expert // _experts_per_rank(num_experts, num_ranks)


def send_counts(idx_TK: Tensor, num_experts: int, num_ranks: int) -> Tensor:
    """How many assignments go to each rank, counts_R, int64, the own rank included.

    A token that chose two experts of one rank counts twice there. Raises ValueError for sizes below 1 and for experts
    that do not divide into ranks.
    """
    check_axes(idx_TK=idx_TK)
    rank_N = idx_TK.flatten() // _experts_per_rank(num_experts, num_ranks)
    return torch.bincount(rank_N, minlength=num_ranks)


def exchange_rows(rows_ND: Tensor, send_R: list[int], recv_R: list[int], group: Group = None) -> Tensor:
    """An all-to-all of rows with a gradient: what this rank has for each rank goes there, and theirs comes here.

    rows_ND is grouped by receiver: send_R[r] rows for rank r of the group. recv_R[r] rows come from it; the result,
    rows_MD, is grouped by sender. Zeros are legal, and every rank of the group calls, also with nothing to exchange.
    Backward exchanges the rows' gradients the other way, so rows need a gradient on all ranks or on none.

    Raises ValueError where the counts do not fit the rows or the group, RuntimeError where another rank is lost.
    """
    send, recv = [int(count) for count in send_R], [int(count) for count in recv_R]
    size = dist.get_world_size(group)
    if len(send) != size or len(recv) != size:
        raise ValueError(f"counts for {len(send)} and {len(recv)} ranks in a group of {size}")
    if min(*send, *recv) < 0 or sum(send) != len(rows_ND):
        raise ValueError(f"send_R = {send} and recv_R = {recv} do not fit {len(rows_ND)} rows")
    return _Exchange.apply(rows_ND, send, recv, group)


class _Exchange(torch.autograd.Function):
    """The exchange of `exchange_rows`; its backward is itself with the counts swapped."""

    @staticmethod
    def forward(rows_ND: Tensor, send: list[int], recv: list[int], group: Group) -> Tensor:
        rows_MD = rows_ND.new_empty(sum(recv), *rows_ND.shape[1:])
        _or_lost(lambda: dist.all_to_all_single(rows_MD, rows_ND.contiguous(), recv, send, group=group))
        return rows_MD

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        _, ctx.send, ctx.recv, ctx.group = inputs

    @staticmethod
    def backward(ctx, d_rows_MD):  # type: ignore[no-untyped-def]
        return _Exchange.apply(d_rows_MD, ctx.recv, ctx.send, ctx.group), None, None, None


def expert_parallel_forward(
    x_TD: Tensor,
    weights_TK: Tensor,
    idx_TK: Tensor,
    local_w_gate: Tensor,
    local_w_up: Tensor,
    local_w_down: Tensor,
    num_experts: int,
    group: Group = None,
) -> Tensor:
    """y_TD = Σ_k weights[t, k] · expert[idx[t, k]](x_t) for this rank's tokens, with experts on all ranks.

    local_w_gate, local_w_up (E/R, D, F), local_w_down (E/R, F, D): the experts of this rank. Equal to the one-process
    layer in output and gradients; an expert that got no token has a gradient of zeros. Counts are read on the host,
    because `all_to_all_single` takes its uneven sizes as Python ints: once a call the host waits for the device.

    Raises ValueError where experts do not divide into ranks or the local ones are not E/R, RuntimeError where another
    rank is lost.
    """
    check_axes(x_TD=x_TD, weights_TK=weights_TK, idx_TK=idx_TK)
    size = dist.get_world_size(group)
    here = _experts_per_rank(num_experts, size)
    if len(local_w_gate) != here:
        raise ValueError(
            f"{num_experts} experts on {size} ranks are {here} each; this rank has {len(local_w_gate)}"
        )
    # Sorted by expert is sorted by rank too: blocks are contiguous.
    order_N, counts_E = plan_dispatch(idx_TK, num_experts)
    counts_RE = counts_E.view(size, here)
    theirs_RE = torch.empty_like(counts_RE)  # how many rows each rank sends for each of my experts
    _or_lost(lambda: dist.all_to_all_single(theirs_RE, counts_RE, group=group))
    send, recv = counts_RE.sum(dim=1).tolist(), theirs_RE.sum(dim=1).tolist()

    x_MD = exchange_rows(gather_tokens(x_TD, order_N, idx_TK.shape[1]), send, recv, group)  # dispatch
    # The rows came by sender and, from each, by expert: a stable sort brings each expert's rows together.
    expert_M = torch.arange(here, device=x_TD.device).repeat(size).repeat_interleave(theirs_RE.flatten())
    order_M = expert_M.argsort(stable=True)
    y_sorted_MD = grouped_ffn(x_MD[order_M], theirs_RE.sum(dim=0), local_w_gate, local_w_up, local_w_down)
    y_MD = torch.empty_like(y_sorted_MD).index_copy(0, order_M, y_sorted_MD)
    return combine(exchange_rows(y_MD, recv, send, group), order_N, weights_TK)  # back, and combine


class ExpertParallelMoE(MoELayer):
    """A `MoELayer` of which this rank holds E/R experts: w_gate, w_up (E/R, D, F) and w_down (E/R, F, D).

    Everything else (router, shared experts, balancing bias) is on every rank. A generator with the same seed on every
    rank gives the weights of the one-process layer. Stats are those of this rank's tokens. A capacity is counted for
    this rank's tokens and each expert, and buffers of that size travel whole, so no counts are exchanged (GShard).

    Raises ValueError where the experts do not divide into the ranks of the group.
    """

    def __init__(self, config: MoEConfig, group: Group = None, generator: torch.Generator | None = None):
        super().__init__(config, generator)
        self.group = group
        rank, size = dist.get_rank(group), dist.get_world_size(group)
        local = local_state(self.state_dict(), rank, size)
        for name in EXPERT_WEIGHTS:
            setattr(self, name, nn.Parameter(local[name].clone()))

    @classmethod
    def from_layer(cls, layer: MoELayer, group: Group = None) -> ExpertParallelMoE:
        """This rank's share of a layer that every rank has, with copies of its weights, on its device."""
        new = cls(layer.config, group).to(layer.router)
        new.load_state_dict(local_state(layer.state_dict(), dist.get_rank(group), dist.get_world_size(group)))
        return new.train(layer.training)

    def _dropless(self, x_TD: Tensor, weights_TK: Tensor, idx_TK: Tensor) -> Tensor:
        experts = (self.w_gate, self.w_up, self.w_down)
        return expert_parallel_forward(
            x_TD, weights_TK, idx_TK, *experts, self.config.num_experts, self.group
        )

    def _on_buffers(self, x_ECD: Tensor) -> Tensor:
        E, C, D = x_ECD.shape
        size = dist.get_world_size(self.group)
        even = [E // size * C] * size
        x_MD = exchange_rows(x_ECD.reshape(E * C, D), even, even, self.group)
        x_RECD = x_MD.view(size, E // size, C, D)  # the slots of every rank, for the experts here
        x_here_ECD = x_RECD.transpose(0, 1).reshape(E // size, size * C, D)
        y_here_ECD = swiglu_experts(x_here_ECD, self.w_gate, self.w_up, self.w_down)
        y_RECD = y_here_ECD.view(E // size, size, C, D).transpose(0, 1)
        return exchange_rows(y_RECD.reshape(E * C, D), even, even, self.group).view(E, C, D)


def spread_experts(model: nn.Module, group: Group = None) -> None:
    """Put an `ExpertParallelMoE` with the same weights in the place of every `MoELayer` inside a model."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, MoELayer) and not isinstance(child, ExpertParallelMoE):
                setattr(parent, name, ExpertParallelMoE.from_layer(child, group))


def local_state(state: Mapping[str, Tensor], rank: int, num_ranks: int) -> dict[str, Tensor]:
    """A rank's share of the state of a whole layer or model: its block of every expert weight, and all else.

    Raises ValueError where experts do not divide into ranks.
    """

    def block(weight: Tensor) -> Tensor:
        here = _experts_per_rank(len(weight), num_ranks)
        return weight[rank * here : (rank + 1) * here]

    return {name: block(value) if is_expert_weight(name) else value for name, value in state.items()}


def whole_state(state: Mapping[str, Tensor], group: Group = None) -> dict[str, Tensor]:
    """The state of the whole layer or model from the ranks' shares; the opposite of `local_state`. All ranks call."""

    def gathered(weight: Tensor) -> Tensor:
        parts = [torch.empty_like(weight) for _ in range(dist.get_world_size(group))]
        _or_lost(lambda: dist.all_gather(parts, weight.contiguous(), group=group))
        return torch.cat(parts)

    return {name: gathered(value) if is_expert_weight(name) else value for name, value in state.items()}


def is_expert_weight(name: str) -> bool:
    """Whether a parameter of this name is divided among the ranks."""
    return name.rpartition(".")[2] in EXPERT_WEIGHTS


def _experts_per_rank(num_experts: int, num_ranks: int) -> int:
    if num_experts < 1 or num_ranks < 1 or num_experts % num_ranks:
        raise ValueError(f"{num_experts} experts do not divide into {num_ranks} ranks")
    return num_experts // num_ranks


def _or_lost(exchange: Callable[[], T]) -> T:
    """What an exchange returns. Raises RuntimeError with this rank's number where another one does not answer."""
    try:
        return exchange()
    except RuntimeError as error:
        raise RuntimeError(
            f"rank {dist.get_rank()} lost a rank of its group in an exchange: it has ended, or has not answered "
            f"within the group's timeout ({error})"
        ) from error
