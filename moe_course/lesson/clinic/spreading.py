"""Gradients on real processes: a layer whose experts are spread over ranks, beside the same layer in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from moe_course.grading.worker.ranks import on_ranks
from moe_course.moe.experts import init_experts
from moe_course.moe.loop import moe_loop
from moe_course.moe.router import router_probs, top_k_gate
from moe_course.systems.expert_parallel import expert_parallel_forward

EXPERTS, WIDTH, HIDDEN, TOP_K, TOKENS = 4, 6, 5, 2, 8
Reduce = Callable[..., None]  # shared_grads, expert_grads, expert_group, group
Clip = Callable[..., float]  # shared_grads, expert_grads, max_norm, group


def gradients_on_ranks(reduce: Reduce, parallel: int, ranks: int = 4, seed: int = 0) -> dict[str, float]:
    """Gradients after `reduce`, as multiples of those of one process: {"router": ..., "experts": ...}.

    `parallel` neighbours hold all experts together; the loss of a rank is the mean over its own tokens. 1 is right.
    """
    rng = torch.Generator().manual_seed(seed)
    router_DE = torch.randn(WIDTH, EXPERTS, generator=rng)
    weights = init_experts(EXPERTS, WIDTH, HIDDEN, generator=rng)
    x_RTD, target_RTD = (torch.randn(ranks, TOKENS, WIDTH, generator=rng) for _ in range(2))
    here = EXPERTS // parallel

    def work(rank: int) -> list[Tensor]:
        blocks = [[*range(first, first + parallel)] for first in range(0, ranks, parallel)]
        replicas = [[*range(first, ranks, parallel)] for first in range(parallel)]
        groups = {tuple(members): dist.new_group(members) for members in [*blocks, *replicas]}
        mine = slice(rank % parallel * here, (rank % parallel + 1) * here)
        router = router_DE.clone().requires_grad_()
        local = [w[mine].clone().requires_grad_() for w in weights]
        weights_TK, idx_TK = top_k_gate(router_probs(x_RTD[rank], router), TOP_K)
        w_gate, w_up, w_down = local
        group = groups[tuple(blocks[rank // parallel])]
        y_TD = expert_parallel_forward(x_RTD[rank], weights_TK, idx_TK, w_gate, w_up, w_down, EXPERTS, group)
        found = torch.autograd.grad(((y_TD - target_RTD[rank]) ** 2).mean(), [router, *local])
        reduce([found[0]], list(found[1:]), groups[tuple(replicas[rank % parallel])], dist.group.WORLD)
        return [gradient.detach() for gradient in found]

    together = on_ranks(ranks, work)
    leaves = [w.clone().requires_grad_() for w in (router_DE, *weights)]
    gates = top_k_gate(router_probs(x_RTD.flatten(0, 1), leaves[0]), TOP_K)
    y_TD = moe_loop(x_RTD.flatten(0, 1), *gates, *leaves[1:])
    alone = torch.autograd.grad(((y_TD - target_RTD.flatten(0, 1)) ** 2).mean(), leaves)
    experts = [torch.cat([together[rank][1 + part] for rank in range(parallel)]) for part in range(3)]
    return {
        "router": _multiple([together[0][0]], alone[:1]),
        "experts": _multiple(experts, alone[1:]),
    }


def _multiple(mine: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    """How many times as long as `right` the part of `mine` in its direction is."""
    along = sum((a * b).sum() for a, b in zip(mine, right, strict=True))
    return round(float(along / sum((b * b).sum() for b in right)), 3)


def trained_with_factor(factor: float, optimizer: str, seed: int, steps: int = 150) -> Tensor:
    """The loss by step of a small mixture whose experts' gradients are multiplied by `factor` ("adam" or "sgd")."""
    rng = torch.Generator().manual_seed(seed)
    x_TD, target_TD = (torch.randn(64, WIDTH, generator=rng) for _ in range(2))
    router_DE = torch.randn(WIDTH, EXPERTS, generator=rng).requires_grad_()
    experts = [w.requires_grad_() for w in init_experts(EXPERTS, WIDTH, 16, generator=rng)]
    kinds = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    steps_of = kinds[optimizer]([router_DE, *experts], lr={"adam": 0.01, "sgd": 0.3}[optimizer])
    losses = []
    for _ in range(steps):
        y_TD = moe_loop(x_TD, *top_k_gate(router_probs(x_TD, router_DE), TOP_K), *experts)
        loss = ((y_TD - target_TD) ** 2).mean()
        steps_of.zero_grad()
        loss.backward()
        for weight in experts:
            weight.grad.mul_(factor)  # type: ignore[union-attr]
        steps_of.step()
        losses.append(loss.detach())
    return torch.stack(losses)


@dataclass(frozen=True, eq=False)
class Clipped:
    """What two ranks saw while they clipped the same gradients, one column a step.

    norm_RS: the norm that each rank logged; true_S: the norm over everything that exists once; distance_S: how far
    the two copies of the shared weights are apart after the step, as a share of their length.
    """

    norm_RS: Tensor
    true_S: Tensor
    distance_S: Tensor


def clipped_on_ranks(clip: Clip, seed: int, steps: int = 20, max_norm: float = 1.0) -> Clipped:
    """Two ranks with copies of the shared weights and experts of their own take steps along clipped gradients.

    The experts of the second rank have ten times the gradients of the first one's.
    """

    def work(rank: int) -> list[Tensor]:
        rng = torch.Generator().manual_seed(seed)
        shared_D = torch.randn(32, generator=rng)
        norms, true, weights = [], [], []
        for _ in range(steps):
            shared = torch.randn(32, generator=rng)
            experts = [scale * torch.randn(16, generator=rng) for scale in (1.0, 10.0)]
            true.append(torch.cat([shared, *experts]).norm())
            norms.append(clip([shared], [experts[rank]], max_norm, dist.group.WORLD))
            shared_D = shared_D - 0.1 * shared
            weights.append(shared_D)
        return [torch.tensor(norms), torch.stack(true), torch.stack(weights)]

    one, other = on_ranks(2, work)
    distance_S = (one[2] - other[2]).norm(dim=1) / one[2].norm(dim=1)
    return Clipped(torch.stack([one[0], other[0]]), one[1], distance_S)
