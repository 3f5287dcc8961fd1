"""Layers to be probed beside the learner's code. What such a layer computes is known to the judge alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import torch

from graders.probes import call
from moe_course.grading.exercises.protocol import Outcome


class _Asked(torch.autograd.Function):
    """y = ask(x, None), whose gradient for dy is ask(x, dy)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, ask: Callable[..., torch.Tensor]) -> torch.Tensor:
        ctx.ask = ask
        ctx.save_for_backward(x)
        return ask(x, None)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor, None]:
        (x,) = ctx.saved_tensors
        return ctx.ask(x, dy), None


def ask_layer(
    namespace: Mapping[str, Any],
    name: str,
    /,
    x_BSD: torch.Tensor,
    place: int,
    seed: int,
    *,
    ask: Callable[..., torch.Tensor],
) -> Outcome:
    """The learner's `name(layer, x_BSD, place)`, with random numbers that start from `seed`.

    inputs is (x_BSD, place). layer(x) asks the judge for every output: ask(x, None) is y, and ask(x, dy) the gradient
    of (y · dy).sum() at x. So nothing in this process tells whether the layer leaks, except what it answers.
    """

    def layer(x: torch.Tensor) -> torch.Tensor:
        if x.shape != x_BSD.shape:
            raise ValueError(f"this layer takes x of shape {tuple(x_BSD.shape)}, not {tuple(x.shape)}")
        return _Asked.apply(x, ask)

    torch.manual_seed(seed)
    random.seed(seed)
    return call({name: lambda given, where: namespace[name](layer, given, where)}, name, x_BSD, place)
