"""Probes of notebook 11: a gate that lives through a program of passes, and the operations that a call starts."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from graders.probes.lm import guarded
from moe_course.grading.exercises.protocol import Outcome, plain
from moe_course.grading.worker.pristine import ours, theirs
from moe_course.grading.worker.ranks import RanksFailed, on_ranks


def gate_program(
    namespace: Mapping[str, Any],
    name: str,
    sizes: Sequence[int],
    router_DE: torch.Tensor,
    bias_E: torch.Tensor,
    program: Sequence[Any],
    dtype: str = "float32",
) -> Outcome:
    """Build the learner's module from (d_model, num_experts, top_k), give it a router and a bias, and run a program.

    Each step is a list of a word and its arguments:
    ["train", mode, passes], forward passes whose losses are added up, and one backward pass; a pass is
    [x_TD, way], way "plain", "reentrant" or "other" (the two kinds of checkpoint) or "unused" (left out of the loss);
    ["twice", x_TD], one forward pass and two backward passes;
    ["look", mode, x_TD, grad], a forward pass with or without gradients, and no backward pass;
    ["update", rate]; ["reload"], a new module with the state of the old one.
    mode: True to train, False to evaluate. value: {counts, bias: after each step; weights, idx, dx, drouter: of the
    last forward pass that was plain, the gradients of the sum of weights · (1, 2, ..., k)}.
    """

    def work() -> Any:
        kind = getattr(torch, dtype)
        gate = theirs(lambda: namespace[name](*sizes).to(kind))
        with torch.no_grad():
            gate.router.copy_(router_DE)
            gate.bias_E.copy_(bias_E)
        report: dict[str, Any] = {
            "counts": [],
            "bias": [],
            "weights": None,
            "idx": None,
            "dx": None,
            "drouter": None,
        }
        for word, *given in program:
            if word == "update":
                theirs(gate.update_bias, given[0])
            elif word == "reload":
                state = copy.deepcopy(dict(theirs(gate.state_dict)))
                gate = theirs(lambda: namespace[name](*sizes).to(kind))
                theirs(gate.load_state_dict, state)
            elif word == "look":
                theirs(gate.train, given[0])
                with torch.set_grad_enabled(given[2]):
                    report["weights"], report["idx"] = theirs(gate, given[1].to(kind))
            elif word == "twice":
                theirs(gate.train, True)
                total, _ = _pass(gate, given[0].to(kind).requires_grad_(), "plain", report)
                theirs(total.backward, retain_graph=True)
                theirs(total.backward)
            else:
                theirs(gate.train, given[0])
                gate.router.grad = None
                leaves = [(x_TD.to(kind).requires_grad_(), way) for x_TD, way in given[1]]
                totals = [_pass(gate, leaf, way, report) for leaf, way in leaves]
                theirs(sum(total for total, used in totals if used).backward)
                report["dx"], report["drouter"] = leaves[-1][0].grad, gate.router.grad
            report["counts"].append(gate.counts_E.detach().double().clone())
            report["bias"].append(gate.bias_E.detach().double().clone())
        return report

    return guarded(work)


def _pass(gate: Any, x_TD: torch.Tensor, way: str, report: dict[str, Any]) -> tuple[torch.Tensor, bool]:
    """A scalar made of the weights of one forward pass, and whether it belongs to the loss."""
    if way in ("plain", "unused"):
        weights_TK, idx_TK = theirs(gate, x_TD)
        report["weights"], report["idx"] = weights_TK.detach(), idx_TK
    else:
        weights_TK = theirs(checkpoint, _block, gate, x_TD, use_reentrant=way == "reentrant")
    return (weights_TK * torch.arange(1, weights_TK.shape[1] + 1)).sum(), way != "unused"


def _block(gate: Any, x_TD: torch.Tensor) -> torch.Tensor:
    """A gate and what comes after it: a checkpoint stops its second pass after the last number that it lacks."""
    return torch.sin(gate(x_TD)[0])


class _Ledger(TorchDispatchMode):
    """Counts operations by name, and matrix products one by one: a batched product has one for each matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: dict[str, int] = {}
        self.products = 0

    @ours
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.operations[name] = self.operations.get(name, 0) + 1
        result = func(*args, **(kwargs or {}))
        if name in ("mm", "addmm", "mv", "addmv", "dot"):
            self.products += 1
        elif name in ("bmm", "baddbmm"):
            self.products += len(result)
        elif "grouped_mm" in name:
            self.products += max(
                arg.shape[0] for arg in args if isinstance(arg, torch.Tensor) and arg.dim() == 3
            )
        return result


def _within(ledger: _Ledger, work: Any, *args: Any, **kwargs: Any) -> Any:
    with ledger:
        return work(*args, **kwargs)


def work_of(
    namespace: Mapping[str, Any], name: str, args: Sequence[Any], dy: torch.Tensor, wrt: Sequence[int]
) -> Outcome:
    """The operations that a call starts, and its gradient: value is [forward, backward], each a dict of
    {operations: by name, products: matrix products} and result or gradients."""

    def work() -> Any:
        leaves = {index: args[index].clone().requires_grad_() for index in wrt}
        given = [leaves.get(index, arg) for index, arg in enumerate(args)]
        forward, backward = _Ledger(), _Ledger()
        y = theirs(_within, forward, namespace[name], *given)
        total, of = (y * dy).sum(), list(leaves.values())
        gradients = theirs(_within, backward, torch.autograd.grad, total, of, allow_unused=True)
        return [
            {"operations": forward.operations, "products": forward.products, "result": y},
            {"operations": backward.operations, "products": backward.products, "gradients": gradients},
        ]

    return guarded(work)


def in_place_on_ranks(namespace: Mapping[str, Any], name: str, args_R: Sequence[Sequence[Any]]) -> Outcome:
    """The learner's `name` on one process for each entry of args_R, called with lists of tensors that it may edit.

    An argument {"ranks": [1, 2]} stands for the process group of these ranks. A rank with no arguments looks on.
    value: for each rank [what was returned, the given lists of tensors afterwards]; error: of the first that failed.
    """
    groups = sorted({tuple(arg["ranks"]) for args in args_R for arg in args if isinstance(arg, dict)})

    def work(rank: int) -> Any:
        made = {
            ranks: dist.new_group(list(ranks)) for ranks in groups
        }  # all ranks make all groups, in one order
        if not args_R[rank]:
            return [None, []]
        args = [made[tuple(arg["ranks"])] if isinstance(arg, dict) else arg for arg in args_R[rank]]
        tensors = [list(arg) for arg in args if isinstance(arg, list)]  # a list may get other tensors
        returned = theirs(namespace[name], *args)
        return [plain(returned), plain(tensors)]

    try:
        return Outcome(value=on_ranks(len(args_R), work))
    except RanksFailed as failed:
        return Outcome(error=failed.error)
