"""Experts × data parallelism in the trainer: R neighbouring ranks hold the experts of one model between them.

    torchrun --nproc-per-node 4 -m moe_course train --expert-parallel 2

Every rank computes its own share of each batch. Ranks 0 and 1 hold one copy of all experts, ranks 2 and 3 another;
router, attention and embeddings are on every rank. The two mistakes that are made most often here scale gradients and
clip them (pytorch issue 160285, DeepSpeed issue 8475):

- An expert's gradient has arrived summed over the tokens of the R ranks of its group. It is added up over the ranks
  that hold the same expert, and divided by the number of *all* ranks, not of those that were added up.
- The norm to clip by is that of the one model: shared gradients, equal on all ranks, count once, and the squares of
  the experts' are added up over the group. All ranks then scale by the same number.

Checkpoints hold the whole model, so a run goes on with any number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from moe_course.lm.model.lm_config import TrainConfig
from moe_course.lm.training import parallel
from moe_course.lm.training.muon import Together
from moe_course.lm.training.step import Optimizer, load_optimizer, make_optimizer
from moe_course.moe.layer import MoELayer
from moe_course.systems.expert_parallel import ExpertParallelMoE, is_expert_weight, local_state, whole_state


class ExpertsApart:
    """A model whose experts are spread over `size` ranks, from its construction until `join`.

    All processes construct it with the same model; those of the first process decide the weights. Raises ValueError
    where the processes do not divide into groups of `size`, or the experts into the ranks of a group.
    """

    def __init__(self, model: nn.Module, size: int):
        rank, world = parallel.rank_and_size()
        if size < 1 or world % size:
            raise ValueError(f"{world} processes do not divide into groups of {size} that share the experts")
        self.size, self.rank, self.world = size, rank % size, world
        self.model = model
        # Every process has to take part in making every group. A new group does not inherit the timeout.
        made = partial(dist.new_group, timeout=parallel.TIMEOUT)
        neighbours = [made(range(first, first + size)) for first in range(0, world, size)]
        replicas = [made(range(place, world, size)) for place in range(size)]
        self.group, self.replicas = neighbours[rank // size], replicas[self.rank]
        self._whole = {name: layer for name, layer in model.named_modules() if isinstance(layer, MoELayer)}
        model.load_state_dict(parallel.from_first(model.state_dict))
        for name, layer in self._whole.items():
            self._put(name, ExpertParallelMoE.from_layer(layer, self.group))

    def _put(self, name: str, layer: MoELayer) -> None:
        parent, _, own = name.rpartition(".")
        setattr(self.model.get_submodule(parent), own, layer)

    @property
    def expert_names(self) -> list[str]:
        """The parameters that differ between the ranks of a group."""
        return [name for name, _ in self.model.named_parameters() if is_expert_weight(name)]

    def optimizer(self, whole: Optimizer, plan: TrainConfig) -> Optimizer:
        """An optimizer of this rank's parameters, with its share of the state of one of the whole model."""
        own = make_optimizer(self.model, plan)
        load_optimizer(own, _converted(whole, self._whole_experts(), self._share))
        return own

    def clip(self, max_norm: float) -> Tensor:
        """Make the experts' gradients those of the mean loss, and clip all by the norm of the whole model.

        Called after backward; the shared gradients are means over all processes already. Returns the norm.
        """
        shared: list[Tensor] = []
        experts: list[Tensor] = []
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None:
                (experts if is_expert_weight(name) else shared).append(parameter.grad)
        for gradient in experts:
            dist.all_reduce(gradient, group=self.replicas)
            gradient /= self.world
        square = _square(experts, like=shared[0])
        dist.all_reduce(square, group=self.group)
        norm = (square + _square(shared, like=shared[0])).sqrt()
        factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
        for gradient in (*shared, *experts):
            gradient *= factor
        return norm

    def whole(self, optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The states of the whole model and of its optimizer, as one process would have them. All ranks call."""
        experts: set[Tensor] = {p for name, p in self.model.named_parameters() if is_expert_weight(name)}
        return whole_state(self.model.state_dict(), self.group), _converted(
            optimizer, experts, self._gathered
        )

    def join(self) -> None:
        """Put the whole layers back, with the weights of all ranks. All ranks call."""
        state = whole_state(self.model.state_dict(), self.group)
        for name, layer in self._whole.items():
            self._put(name, layer)
        self.model.load_state_dict(state)

    def _whole_experts(self) -> set[Tensor]:
        layers = self._whole.values()
        return {
            weight for layer in layers for name, weight in layer.named_parameters() if is_expert_weight(name)
        }

    def _share(self, value: Tensor) -> Tensor:
        return local_state({"w_gate": value}, self.rank, self.size)["w_gate"].clone()

    def _gathered(self, value: Tensor) -> Tensor:
        return whole_state({"w_gate": value}, self.group)["w_gate"]


def _square(gradients: list[Tensor], like: Tensor) -> Tensor:
    """The sum of squares, in float32 at least."""
    wide = torch.promote_types(like.dtype, torch.float32)
    squares = [gradient.to(wide).square().sum() for gradient in gradients]
    return torch.stack(squares).sum() if squares else torch.zeros((), dtype=wide, device=like.device)


def _converted(
    optimizer: Optimizer, experts: set[Tensor], convert: Callable[[Tensor], Tensor]
) -> dict[str, Any]:
    """The optimizer's state with what it holds for these parameters, tensors of their shape, converted."""
    if isinstance(optimizer, Together):
        return {"optimizers": [_converted(part, experts, convert) for part in optimizer.optimizers]}
    state = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def of_one(number: int, held: dict[str, Any]) -> dict[str, Any]:
        parameter = parameters[number]
        if parameter not in experts:
            return held
        shaped = (name for name, value in held.items() if getattr(value, "shape", None) == parameter.shape)
        return held | {name: convert(held[name]) for name in shaped}

    return state | {"state": {number: of_one(number, held) for number, held in state["state"].items()}}
