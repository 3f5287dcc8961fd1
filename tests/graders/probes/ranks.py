"""Probes that run a learner's function on several ranks: processes of their own, connected by gloo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from moe_course.grading.exercises.protocol import Outcome, plain
from moe_course.grading.worker.pristine import theirs
from moe_course.grading.worker.ranks import RanksFailed, on_ranks


def on_groups(
    namespace: Mapping[str, Any],
    name: str,
    args_R: Sequence[Sequence[Any] | None],
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
    groups = sorted({tuple(arg["ranks"]) for args in args_R for arg in args or () if _is_group(arg)})

    def work(rank: int) -> Any:
        made = {
            ranks: dist.new_group(list(ranks)) for ranks in groups
        }  # all ranks make all groups, in one order
        if args_R[rank] is None:
            if wrt:
                _all_need(True)
            return None
        args: list[Any] = [made[tuple(arg["ranks"])] if _is_group(arg) else arg for arg in args_R[rank] or ()]
        leaves = {place: args[place].clone().requires_grad_() for place in wrt}
        given = [leaves[i].clone() if i in wrt else arg for i, arg in enumerate(args)]
        result = theirs(namespace[name], *given)
        needs = isinstance(result, torch.Tensor) and result.requires_grad
        gradients: Sequence[torch.Tensor | None] = [None] * len(wrt)
        if wrt and _all_need(needs):
            total = (result * cotangents_R[rank].to(result.dtype)).sum()  # type: ignore[union-attr]
            gradients = theirs(torch.autograd.grad, total, list(leaves.values()), allow_unused=True)
        after = plain([arg for arg in given if isinstance(arg, torch.Tensor)])
        return Outcome(value=(plain(result), plain(list(gradients)), needs), inputs=tuple(after))

    try:
        return Outcome(value=on_ranks(len(args_R), work))
    except RanksFailed as failed:
        return Outcome(error=failed.error)


def _is_group(arg: Any) -> bool:
    return isinstance(arg, dict) and arg.keys() == {"ranks"}


def _all_need(needs: bool) -> bool:
    """Whether the results of all ranks need a gradient."""
    flag = torch.tensor(int(needs))
    dist.all_reduce(flag, op=dist.ReduceOp.MIN)
    return bool(flag)
