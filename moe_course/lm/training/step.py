"""One update: its learning rate, the optimizer, and gradients that are computed piece by piece."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from moe_course.lm.model.lm_config import TrainConfig
from moe_course.lm.training import parallel
from moe_course.lm.training.muon import Muon, Together
from moe_course.lm.training.objective import cross_entropy, moe_objective
from moe_course.moe.balance import pooled_balancing_loss
from moe_course.moe.casts import casts_kept
from moe_course.moe.layer import MoEStats

Optimizer = torch.optim.Optimizer | Together


def learning_rate(step: int, peak: float, warmup: int, total: int, floor: float) -> float:
    """It rises linearly to `peak` at step warmup − 1, then falls along half a cosine to `floor` at step total − 1.

    After that it stays at `floor`. total must exceed warmup + 1. Source of the cosine: SGDR, arXiv 1608.03983,
    equation 5, without restarts.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min((step - warmup) / (total - 1 - warmup), 1.0)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizer(model: nn.Module, plan: TrainConfig) -> Optimizer:
    """The plan's optimizer. Weight decay applies to matrices and not to the gains of norms; on CUDA AdamW is fused.

    The rate of a group is that of the schedule, times the group's "relative" rate if it has one.
    """
    matrices, projections, gains, tables, routers = _kinds(model)
    of_tables = (plan.embedding_peak or plan.peak) / plan.peak
    decay = {"weight_decay": plan.weight_decay}
    adam = [{"params": gains, "weight_decay": 0.0}]
    if plan.optimizer == "muon":
        adam += [{"params": routers, **decay}, {"params": tables, "relative": of_tables, **decay}]
    elif plan.embedding_peak is None:
        adam.insert(0, {"params": [p for p in model.parameters() if p.ndim >= 2], **decay})
    else:
        adam.insert(0, {"params": [*matrices, *projections, *routers], **decay})
        adam.append({"params": tables, "relative": of_tables, **decay})
    adamw = torch.optim.AdamW(adam, lr=plan.peak, betas=plan.betas, fused=_fused(model))
    if plan.optimizer == "adamw":
        return adamw
    groups = [{"params": matrices}, {"params": projections, "split": 3}]  # query, key and value
    return Together(Muon(groups, plan.peak, iterations=plan.muon_iterations, **decay), adamw)


def _fused(model: nn.Module) -> bool:
    return next(model.parameters()).device.type == "cuda"


def _kinds(model: nn.Module) -> tuple[list[nn.Parameter], ...]:
    """Parameters by kind: matrices, fused query-key-value projections, gains, look-up tables, routers."""
    kinds: tuple[list[nn.Parameter], ...] = ([], [], [], [], [])
    for name, parameter in model.named_parameters():
        *_, module, own = ("", *name.split("."))
        if parameter.ndim < 2:
            kinds[2].append(parameter)
        elif module in ("embedding", "head"):
            kinds[3].append(parameter)
        elif own in ("router", "router_noise"):
            kinds[4].append(parameter)
        else:
            kinds[1 if module == "qkv" else 0].append(parameter)
    return kinds


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Go on from a saved state. Whether AdamW is fused follows from this device, not from the one that saved."""
    parts: list[Optimizer] = [optimizer]
    states = [state]
    if isinstance(optimizer, Together):
        parts, states = [*optimizer.optimizers], state.get("optimizers", [])
    for part, saved in zip(parts, states, strict=False):  # load_state_dict complains where they do not fit
        for group, saved_group in zip(part.param_groups, saved["param_groups"], strict=False):
            saved_group |= {name: group[name] for name in ("fused", "foreach") if name in group}
    optimizer.load_state_dict(state)


@dataclass(frozen=True, eq=False)
class BatchStatistics:
    """What is reported about a batch: means over the pieces of this process, and sums of counts. On the device.

    ce, lb_loss, z_loss, drop_rate: 0-dim; the last three are means over the MoE layers, and 0 for a dense model.
    counts_LE: one counts_E for each MoE layer, over all processes.
    """

    ce: Tensor
    lb_loss: Tensor
    z_loss: Tensor
    drop_rate: Tensor
    counts_LE: list[Tensor]


def accumulate_gradients(
    model: nn.Module,
    pieces: Sequence[Tensor],
    lb_weight: float,
    z_weight: float,
    autocast: contextlib.AbstractContextManager[object] | None = None,
) -> BatchStatistics:
    """Add to each parameter's gradient that of the mean objective over pieces of equal size, each tokens_BS1.

    The model sees tokens[:, :-1] and predicts tokens[:, 1:]. The balancing loss has the load of all processes and of
    the pieces up to this one; the mean of the pieces' own losses would ask for more (`pooled_balancing_loss`). The
    counts of all layers go into one message. Gradients are sent between processes during the last backward pass.
    """
    ces: list[Tensor] = []
    of_layers: dict[str, list[Tensor]] = {"lb_loss": [], "z_loss": [], "drop_rate": []}
    pooled_LE: list[Tensor] = []
    alone = len(pieces) * parallel.rank_and_size()[1] == 1
    with casts_kept(pieces[0].device):
        for number, tokens_BS1 in enumerate(pieces, 1):
            with parallel.apart(model) if number < len(pieces) else contextlib.nullcontext():
                with autocast or contextlib.nullcontext():
                    logits_BSV, aux = model(tokens_BS1[:, :-1])
                ce = cross_entropy(logits_BSV, tokens_BS1[:, 1:])
                pooled_LE = _added(pooled_LE, parallel.totals([stats.counts_E for stats in aux.stats]))
                own = aux.lb_losses if alone else list(map(_pooled, aux.stats, pooled_LE))
                loss = moe_objective(ce, own, aux.z_losses, lb_weight, z_weight)
                (loss / len(pieces)).backward()
            ces.append(ce.detach())
            of_layers["lb_loss"] += own
            of_layers["z_loss"] += aux.z_losses
            of_layers["drop_rate"] += [stats.drop_rate for stats in aux.stats]
    means = {
        name: torch.stack(values).detach().mean() if values else torch.zeros_like(ces[0])
        for name, values in of_layers.items()
    }
    return BatchStatistics(ce=torch.stack(ces).mean(), counts_LE=pooled_LE, **means)


def _added(before_LE: list[Tensor], counts_LE: list[Tensor]) -> list[Tensor]:
    return (
        [old_E + new_E for old_E, new_E in zip(before_LE, counts_LE, strict=True)] if before_LE else counts_LE
    )


def _pooled(stats: MoEStats, counts_E: Tensor) -> Tensor:
    return pooled_balancing_loss(stats.probs_TE, counts_E)


def train_step(
    model: nn.Module,
    tokens_BS1: Tensor,
    optimizer: torch.optim.Optimizer,
    lb_weight: float,
    z_weight: float,
    clip: float,
) -> float:
    """One update on one batch, with gradients clipped to the global norm `clip`. Returns the CE before the update.

    The trainer does the same and more (see `moe_course.lm.training.trainer.update`); this is the shortest form.
    """
    optimizer.zero_grad()
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = cross_entropy(logits_BSV, tokens_BS1[:, 1:])
    moe_objective(ce, aux.lb_losses, aux.z_losses, lb_weight, z_weight).backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return ce.item()
