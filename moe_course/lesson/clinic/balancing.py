"""Gates and losses in the collapse lab, which shows what they do to the load and to the task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from moe_course.lesson import collapse, instruments
from moe_course.lesson.clinic.ward import SEEDS
from moe_course.moe.balance import load_balancing_loss

Gate = Callable[[Tensor, int], tuple[Tensor, Tensor]]  # logits_TE, k -> weights_TK, idx_TK
Route = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor, Tensor]]  # x_TD, router_DE, k -> ..., lb_loss


def with_balancing(gate: Gate, weight: float = 0.1, seeds: Sequence[int] = SEEDS) -> collapse.CollapseRuns:
    """The collapse lab with one expert a point from `gate`, and the load-balancing loss times `weight`."""

    def balancing(logits_TE: Tensor, idx_TK: Tensor) -> Tensor:
        return weight * load_balancing_loss(logits_TE.softmax(dim=-1), idx_TK)

    return collapse.train(
        collapse.Arm(gate=lambda logits_TE: gate(logits_TE, 1), extra_loss=balancing), seeds
    )


def task_gradients(gate: Gate, k: int, seed: int = 0) -> dict[str, float]:
    """The norm of the gradient of a task at the router and at the experts, for one batch and without other losses.

    The task: 64 random points, eight linear experts, targets that are random too.
    """
    rng = torch.Generator().manual_seed(seed)
    x_TD, y_TD = (torch.randn(64, 16, generator=rng) for _ in range(2))
    router_DE = (torch.randn(16, 8, generator=rng) / 4).requires_grad_()
    experts_EDD = (torch.randn(8, 16, 16, generator=rng) / 4).requires_grad_()
    weights_TK, idx_TK = gate(x_TD @ router_DE, k)
    out_TKD = torch.einsum("td,tkde->tke", x_TD, experts_EDD[idx_TK])
    loss = (((weights_TK[..., None] * out_TKD).sum(dim=1) - y_TD) ** 2).mean()
    return instruments.gradient_norms(loss, {"router": router_DE, "experts": experts_EDD})


def with_loss_of(
    route: Route, weight: float = 0.03, seeds: Sequence[int] = SEEDS
) -> tuple[collapse.CollapseRuns, Tensor]:
    """The collapse lab with the loss that `route` returns, times `weight`; and that loss as logged, (B, step)."""
    log: list[float] = []

    def balancing(logits_TE: Tensor, idx_TK: Tensor) -> Tensor:
        loss = route(logits_TE, torch.eye(logits_TE.shape[1]), 1)[2]
        log.append(float(loss.detach()))
        return weight * loss

    runs = collapse.train(collapse.Arm(extra_loss=balancing), seeds)
    return runs, torch.tensor(log).view(-1, len(seeds)).T


def loss_gradients(route: Route, sizes: Sequence[int] = (8, 64), seed: int = 0) -> dict[str, float]:
    """The norm of the gradient of the balancing loss at the router, for several numbers of experts."""
    found = {}
    for experts in sizes:
        rng = torch.Generator().manual_seed(seed)
        x_TD = torch.randn(256, 16, generator=rng) + 1
        router_DE = (torch.randn(16, experts, generator=rng) / 4).requires_grad_()
        norms = instruments.gradient_norms(route(x_TD, router_DE, 2)[2], {"router": router_DE})
        found[f"{experts} experts"] = norms["router"]
    return found


def collapsed_loss(route: Route, experts: int = 8) -> float:
    """The balancing loss when the router is sure, and sends every token to the same expert."""
    x_TD = torch.ones(64, 1)
    router_DE = torch.zeros(1, experts)
    router_DE[0, 3] = 50.0
    return route(x_TD, router_DE, 1)[2].item()
