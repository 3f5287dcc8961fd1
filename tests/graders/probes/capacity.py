"""Layers to be probed, built beside the learner's code from plain numbers: whether one leaks is in the numbers."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import torch

from graders.probes import call
from moe_course.grading.exercises.protocol import Outcome


def ask_layer(
    namespace: Mapping[str, Any],
    name: str,
    /,
    x_BSD: torch.Tensor,
    place: int,
    mix_BSBS: torch.Tensor,
    steps_BSBS: torch.Tensor,
    threshold: float,
    noise: float,
    seed: int,
) -> Outcome:
    """The learner's `name(layer, x_BSD, place)`, with random numbers that start from `seed`; inputs is (x_BSD,).

    layer(x)[b, s] = Σ mix[b, s, c, t]·x[c, t] + Σ steps[b, s, c, t]·(1 if x[c, t, 0] > threshold, else 0),
    to which a number of size `noise` that depends on all of x is added, and then subtracted again.
    """
    rows, length, width = x_BSD.shape

    def layer(x: torch.Tensor) -> torch.Tensor:
        if x.shape != x_BSD.shape:
            raise ValueError(f"this layer takes x of shape {tuple(x_BSD.shape)}, not {tuple(x.shape)}")
        tokens = x.reshape(rows * length, width)
        mixed = mix_BSBS.to(x).view(rows * length, -1) @ tokens
        stepped = steps_BSBS.to(x).view(rows * length, -1) @ (tokens[:, :1] > threshold).to(x)
        shift = noise * torch.cos(x.sum())
        return ((mixed + stepped + shift) - shift).view(rows, length, width)

    torch.manual_seed(seed)
    random.seed(seed)
    out = call({name: lambda given, where: namespace[name](layer, given, where)}, name, x_BSD, place)
    return out
