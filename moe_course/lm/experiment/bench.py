"""How fast a machine trains: the arms of a preset take turns, so that a busy minute slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from moe_course.lm.experiment.recipe import ARMS, Recipe, recipe, with_settings
from moe_course.lm.model.transformer import Transformer
from moe_course.lm.training import costs, parallel
from moe_course.lm.training.step import make_optimizer
from moe_course.lm.training.trainer import update
from moe_course.tables import text_table


@dataclass(frozen=True)
class Speed:
    """The speed of one arm: the median seconds of a training step, and what follows from them."""

    name: str
    seconds: float
    tokens: int
    flops_per_token: int

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def flops_per_second(self) -> float:
        return self.tokens_per_second * self.flops_per_token


def train(
    preset: str,
    rounds: int = 5,
    device: torch.device | None = None,
    steps: int = 3,
    settings: Sequence[str] = (),
) -> list[Speed]:
    """Time the arms of a preset: after a first round that does not count, `rounds` times `steps` updates of each.

    The tokens are random. settings: as in `with_settings`. Raises ValueError for fewer than one round.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    device = device or torch.device("cpu")
    arms = [Arm(with_settings(recipe(preset, arm), settings), device) for arm in ARMS]
    times: list[list[float]] = [[] for _ in arms]
    for turn in range(rounds + 1):
        for arm, taken in zip(arms, times, strict=True):
            seconds = arm.time(steps)
            if turn:
                taken.append(seconds)
    return [arm.speed(statistics.median(taken)) for arm, taken in zip(arms, times, strict=True)]


def table(speeds: list[Speed]) -> str:
    """Tokens and FLOPs per second, and each arm's speed divided by that of the arm "dense-active"."""
    reference = next(s for s in speeds if s.name == "dense-active").tokens_per_second
    rows = [("", "tokens/s", "GFLOPs/s", "of dense-active")]
    for s in speeds:
        share = s.tokens_per_second / reference
        rows.append(
            (s.name, f"{s.tokens_per_second:,.0f}", f"{s.flops_per_second / 1e9:,.1f}", f"{share:.2f}")
        )
    return text_table(rows)


def step_seconds(chosen: Recipe, device: torch.device, steps: int = 3) -> float:
    """The median seconds of `steps` updates of a recipe's model, after one that does not count."""
    arm = Arm(chosen, device)
    arm.time(1)
    return statistics.median(arm.time(1) for _ in range(steps))


class Arm:
    def __init__(self, chosen: Recipe, device: torch.device):
        self.recipe, self.device = chosen, device
        self.model = Transformer(chosen.model, torch.Generator().manual_seed(0)).to(device)
        self.optimizer = make_optimizer(self.model, chosen.plan)
        shared = parallel.together(self.model)
        self.compute: Any = torch.compile(shared) if chosen.plan.compile else shared
        shape = (chosen.batch_size, chosen.model.context + 1)
        self.tokens_BS1 = torch.randint(
            chosen.model.vocab_size, shape, generator=torch.Generator().manual_seed(0)
        )

    def time(self, steps: int) -> float:
        """Seconds of a step. Each update ends by reading the loss, so a GPU has finished as well."""
        began = time.perf_counter()
        for _ in range(steps):
            update(self.compute, self.optimizer, self.tokens_BS1, self.recipe.plan, rate=1e-4)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return (time.perf_counter() - began) / steps

    def speed(self, seconds: float) -> Speed:
        tokens = self.recipe.batch_size * self.recipe.model.context
        return Speed(self.recipe.name, seconds, tokens, costs.flops_per_token(self.recipe.model))
