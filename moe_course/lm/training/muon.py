"""Muon: momentum whose update is made orthogonal, for the matrices of a model; AdamW does the rest.

A matrix's update is replaced by the nearest matrix with all singular values near 1, so that no direction of a layer
learns faster than another because its gradients happen to be larger. Sources: Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon/ (the iteration and its coefficients); Liu et al. 2025, "Muon is scalable
for LLM training", arXiv 2502.16982 (the scale of an update and the weight decay).

What it costs: each iteration of a matrix of r rows and c ≥ r columns takes 4·r²·c + 2·r³ FLOPs, whatever the batch.
A mixture has that for all its experts, also for those with few tokens: the cost grows with *total* parameters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan's quintic: fast growth of small singular values


def orthogonalize(matrices_NRC: Tensor, iterations: int = 5) -> Tensor:
    """Each of N matrices with its singular values moved near 1 (between about 0.7 and 1.2), by Newton–Schulz.

    With G = U·S·Vᵀ the result is about U·Vᵀ; a direction without gradient stays 0. On CUDA computed in bfloat16, as
    in the source, else in the dtype of the matrices. Raises ValueError for fewer than one iteration.
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    a, b, c = COEFFICIENTS
    tall = matrices_NRC.shape[1] > matrices_NRC.shape[2]
    x = matrices_NRC.mT if tall else matrices_NRC  # products of the shorter side are cheaper
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)  # so no singular value exceeds 1
    if x.device.type == "cuda":
        x = x.bfloat16()
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices_NRC.dtype)


class Muon(torch.optim.Optimizer):
    """Muon for parameters that are matrices or stacks of them, (..., R, C): each matrix is treated by itself.

    An expert tensor (E, D, F) so holds E matrices. A group may say "split": n, which reads a matrix (n·R, C) as n
    of them: the query, key and value of a fused projection, say. lr is on the scale of AdamW's: an update has a root
    mean square of 0.2, as in arXiv 2502.16982, section 2.2. Momentum is Nesterov's; weight decay is decoupled.
    Raises ValueError for a parameter with fewer than two axes.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 3e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        iterations: int = 5,
    ):
        defaults = dict(lr=lr, momentum=momentum, weight_decay=weight_decay, iterations=iterations, split=1)
        super().__init__(params, defaults)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim < 2:
                    raise ValueError(f"Muon is for matrices; this has the shape {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient. Matrices of one shape share their products."""
        for group in self.param_groups:
            same: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update_NRC = self._momentum(parameter, group)
                    _, rows, columns = update_NRC.shape
                    same.setdefault((rows, columns), []).append((parameter, update_NRC))
            for (rows, columns), found in same.items():
                parameters, updates = zip(*found, strict=True)
                whole_NRC = orthogonalize(torch.cat(updates), group["iterations"])
                scale = 0.2 * max(rows, columns) ** 0.5
                for parameter, update in zip(parameters, whole_NRC.split([*map(len, updates)]), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"] * scale)

    def _momentum(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """The running mean of gradients one step ahead, as a stack of matrices."""
        assert parameter.grad is not None
        state, beta = self.state[parameter], group["momentum"]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        mean = state["momentum"].lerp_(parameter.grad, 1 - beta)
        ahead = parameter.grad.lerp(mean, beta)
        rows, columns = parameter.shape[-2:]
        return ahead.reshape(-1, rows // group["split"], columns)


class Together:
    """Several optimizers used as one: one list of groups, one step, one state for the checkpoint."""

    def __init__(self, *optimizers: torch.optim.Optimizer):
        self.optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all of them."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def step(self) -> None:
        """One update by each."""
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs."""
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` gave. Raises ValueError where it is not one of these optimizers."""
        states = state.get("optimizers", [])
        if len(states) != len(self.optimizers):
            raise ValueError(
                f"the state is one of {len(states)} optimizers, these are {len(self.optimizers)}"
            )
        for optimizer, of_it in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(of_it)
