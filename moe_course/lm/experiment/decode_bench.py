"""How fast a machine decodes: the arms of a preset take turns at each batch size, and every step is timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moe_course.lm.experiment.recipe import ARMS, recipe
from moe_course.lm.model.decode import decode
from moe_course.lm.model.transformer import Transformer
from moe_course.tables import text_table

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class DecodeSpeed:
    """Decoding steps of a model at one batch size: seconds of each, and bytes of weights, keys and values."""

    name: str
    batch: int
    seconds: tuple[float, ...]
    memory: int

    @property
    def tokens_per_second(self) -> float:
        """At the median step."""
        return self.batch / statistics.median(self.seconds)

    def percentile(self, percent: float) -> float:
        """Seconds of a step, with linear interpolation."""
        times = torch.tensor(self.seconds, dtype=torch.float64)
        return float(times.quantile(percent / 100))


def bench(
    models: Mapping[str, Transformer],
    batches: Sequence[int],
    prompt: int = 16,
    steps: int = 16,
    rounds: int = 3,
) -> list[DecodeSpeed]:
    """Time decoding steps of each model: `rounds` times `steps` of them, after a round that does not count.

    Prompts are random tokens. The first step of a round reads the prompt and is left out. Raises ValueError for
    fewer than one round, or one step after the prompt.
    """
    if rounds < 1 or steps < 2:
        raise ValueError(f"need at least one round and two steps, got {rounds} and {steps}")
    found = []
    for batch in batches:
        times: dict[str, list[float]] = {name: [] for name in models}
        for turn in range(rounds + 1):
            for name, model in models.items():
                taken = step_times(model, batch, prompt, steps)
                times[name] += taken[1:] if turn else []
        for name, model in models.items():
            found.append(DecodeSpeed(name, batch, tuple(times[name]), memory(model, batch, prompt + steps)))
    return found


def step_times(model: Transformer, batch: int, prompt: int, steps: int) -> list[float]:
    """Seconds of each step, the prompt's first. Each ends with its tokens on the host, so a GPU has finished."""
    device = model.embedding.weight.device
    draw = torch.Generator().manual_seed(0)
    prompts_BS: Tensor = torch.randint(model.config.vocab_size, (batch, prompt), generator=draw)
    taken, began = [], time.perf_counter()
    for tokens_B, _ in decode(model, prompts_BS.to(device), steps):
        tokens_B.cpu()
        taken.append(time.perf_counter() - began)
        began = time.perf_counter()
    return taken


def copy_bandwidth(rounds: int = 5, values: int = 8_000_000) -> float:
    """Bytes per second that this processor reads and writes when it copies: the best of some rounds."""
    source, best = torch.zeros(values), float("inf")
    target = torch.empty_like(source)
    for _ in range(rounds):
        began = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - began)
    return 2 * source.nbytes / best


def memory(model: Transformer, batch: int, positions: int) -> int:
    """Bytes of the weights, and of the keys and values of `batch` sequences of so many positions."""
    weights = sum(w.numel() * w.element_size() for w in model.parameters())
    values = model.config.num_layers * 2 * model.config.d_model
    return weights + batch * positions * values * model.embedding.weight.element_size()


def arms(preset: str, device: torch.device | None = None) -> dict[str, Transformer]:
    """The untrained models of a preset's arms: how fast a model is does not depend on what it learned."""
    made = {}
    for arm in ARMS:
        model = Transformer(recipe(preset, arm).model, torch.Generator().manual_seed(0))
        made[arm] = model.eval().to(device or torch.device("cpu"))
    return made


def table(speeds: Sequence[DecodeSpeed]) -> str:
    """Tokens per second and percentiles of a step's time, by batch and arm."""
    head = ("batch", "", "tokens/s", *(f"p{p} ms" for p in PERCENTILES), "MB")
    rows: list[tuple[str, ...]] = [head]
    for speed in speeds:
        times = (f"{1000 * speed.percentile(p):.2f}" for p in PERCENTILES)
        cells = (f"{speed.tokens_per_second:,.0f}", *times, f"{speed.memory / 1e6:.1f}")
        rows.append((f"{speed.batch}", speed.name, *cells))
    return text_table(rows, left=(1,), rules=(1,))
