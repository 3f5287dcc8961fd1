"""Instruments for a layer that behaves oddly: each is one call, and works on code of one's own as well.

Those for dependence on later tokens and on other sequences are in `moe_course.moe.leaks`, counts of operations and
timings in `timing`, statistics of a load in `moe_course.moe.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from moe_course.lesson.timing import profiled
from moe_course.moe.counts import expert_counts
from moe_course.tables import text_table


def gradient_norms(loss: Tensor, parameters: Mapping[str, Tensor] | nn.Module) -> dict[str, float]:
    """The norm of the gradient of `loss` at each parameter; nan where the graph does not lead to it at all.

    Leaves .grad and the graph as they were.
    """
    named = dict(parameters.named_parameters()) if isinstance(parameters, nn.Module) else dict(parameters)
    found = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
    return {
        name: float("nan") if gradient is None else gradient.norm().item()
        for name, gradient in zip(named, found, strict=True)
    }


def load_by_layer(
    model: nn.Module, routers: Mapping[str, Callable[[Any], Tensor]], *inputs: Any
) -> dict[str, Tensor]:
    """The share of the assignments that each expert of each layer gets when the model runs on `inputs`.

    routers: names of modules inside the model, each with a function that finds idx_TK and the number of experts in
    that module's output: output -> (idx_TK, num_experts). Returns {name: load_E}. Raises ValueError for a name that
    the model has not, and for a router that did not run.
    """
    modules, handles = dict(model.named_modules()), []
    loads: dict[str, Any] = {}
    if unknown := routers.keys() - modules.keys():
        raise ValueError(f"the model has no module {', '.join(sorted(unknown))}")

    def note(name: str, found: Callable[[Any], Any]) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            idx_TK, num_experts = found(output)
            loads[name] = loads.get(name, 0) + expert_counts(idx_TK, num_experts)

        return hook

    try:
        handles = [modules[name].register_forward_hook(note(name, found)) for name, found in routers.items()]
        with torch.no_grad():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    if silent := routers.keys() - loads.keys():
        raise ValueError(f"{', '.join(sorted(silent))} did not run on these inputs")
    return {name: counts_E / counts_E.sum() for name, counts_E in loads.items()}


def against_float64(function: Callable[..., Any], *args: Any) -> list[float]:
    """How far each tensor of a result is from that of the same call in float64.

    For floats the largest difference; for whole numbers, such as the chosen experts, the share of rows that differ
    as sets.
    """
    wide = [arg.double() if isinstance(arg, Tensor) and arg.is_floating_point() else arg for arg in args]
    pairs = zip(_tensors(function(*args)), _tensors(function(*wide)), strict=True)
    return [_apart(mine, theirs) for mine, theirs in pairs]


def _tensors(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def _apart(mine: Tensor, theirs: Tensor) -> float:
    if mine.is_floating_point():
        return (mine.double() - theirs.double()).abs().max().item()
    return (mine.sort(dim=-1).values != theirs.sort(dim=-1).values).any(dim=-1).double().mean().item()


def hot_spots(work: Callable[[], object], rows: int = 8) -> str:
    """A table of the operations in which `work` spends most time: how often each is called, and its share.

    The share is of the time on the processor within the operation itself. Calls are the same on every machine; shares
    are not.
    """
    work()  # the first call does more than the others
    events = sorted(profiled(work), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    table = [("operation", "calls", "share of the time")]
    table += [(e.key, str(e.count), f"{e.self_cpu_time_total / total:.1%}") for e in events[:rows]]
    return text_table(table, left=(0,))
