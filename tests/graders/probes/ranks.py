"""Probes that run a learner's function on several ranks: processes of their own, connected by gloo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from moe_course.grading.exercises.protocol import Outcome, plain
from moe_course.grading.worker.pristine import theirs
from moe_course.grading.worker.ranks import RanksFailed, on_ranks

Args = Sequence[Sequence[Any] | None]


def on_groups(
    namespace: Mapping[str, Any],
    name: str,
    args_R: Args,
    cotangents_R: Sequence[torch.Tensor | None] = (),
    wrt: Sequence[int] = (),
) -> Outcome:
    """The learner's `name` on one process for each entry of args_R, called with it; one that is None looks on.

    An argument {"ranks": [1, 2]} stands for the process group of these ranks. With `wrt` the arguments at these
    positions need gradients, and backward starts from cotangents_R[rank] on every rank. Where the result of some rank
    needs no gradient, backward is left out on all of them, and all gradients are None.

    value: for each rank an Outcome whose value is (result, gradients, needs: whether the result needs a gradient) and
    whose inputs are the tensors among the arguments afterwards; or None. error: of the first rank that failed, or a
    Deadlock that says which rank waited where.
    """
    out = in_turn(namespace, name, [(args_R, cotangents_R, wrt)])
    return out if out.error else Outcome(value=out.value[0])


def in_turn(
    namespace: Mapping[str, Any], name: str, cases: Sequence[tuple[Args, Any, Sequence[int]]]
) -> Outcome:
    """`on_groups` for several (args_R, cotangents_R, wrt) on the same processes; value: a list, one entry a case."""
    every = [arg for args_R, _, _ in cases for args in args_R for arg in args or ()]
    groups = sorted({tuple(arg["ranks"]) for arg in every if _is_group(arg)})

    def work(rank: int) -> Any:
        made = {
            ranks: dist.new_group(list(ranks)) for ranks in groups
        }  # all ranks make all groups, in one order
        return [_called(namespace, name, case, rank, made) for case in cases]

    try:
        by_rank = on_ranks(max(len(args_R) for args_R, _, _ in cases), work)
    except RanksFailed as failed:
        return Outcome(error=failed.error)
    return Outcome(value=[list(case) for case in zip(*by_rank, strict=True)])


def _called(
    namespace: Mapping[str, Any],
    name: str,
    case: tuple[Args, Any, Sequence[int]],
    rank: int,
    made: Mapping[Any, Any],
) -> Outcome | None:
    """What one rank has to tell of one case."""
    args_R, cotangents_R, wrt = case
    own = args_R[rank] if rank < len(args_R) else None
    if own is None:
        if wrt:
            _all_need(True)
        return None
    args = [made[tuple(arg["ranks"])] if _is_group(arg) else arg for arg in own]
    leaves = {place: args[place].clone().requires_grad_() for place in wrt}
    given = [leaves[place].clone() if place in wrt else arg for place, arg in enumerate(args)]
    result = theirs(namespace[name], *given)
    needs = isinstance(result, torch.Tensor) and result.requires_grad
    gradients: Sequence[torch.Tensor | None] = [None] * len(wrt)
    if wrt and _all_need(needs and result.shape == cotangents_R[rank].shape):
        total = (result * cotangents_R[rank].to(result.dtype)).sum()
        gradients = theirs(torch.autograd.grad, total, list(leaves.values()), allow_unused=True)
    after = plain([arg for arg in given if isinstance(arg, torch.Tensor)])
    return Outcome(value=(plain(result), plain(list(gradients)), needs), inputs=tuple(after))


def _is_group(arg: Any) -> bool:
    return isinstance(arg, dict) and arg.keys() == {"ranks"}


def _all_need(needs: bool) -> bool:
    """Whether the results of all ranks need a gradient."""
    flag = torch.tensor(int(needs))
    dist.all_reduce(flag, op=dist.ReduceOp.MIN)
    return bool(flag)
