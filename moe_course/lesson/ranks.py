"""The learner's own function on real processes, with a stopwatch: notebook 09.

results = on_ranks(2, work)                               # work(rank) in a process of its own
splits = split_step(expert_parallel_forward, idx_R, 8)    # where the time of each rank went
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from moe_course.grading.worker.ranks import RanksFailed, on_ranks
from moe_course.moe.experts import init_experts

__all__ = ["RanksFailed", "Split", "exchange_seconds", "fit_line", "on_ranks", "profile_step", "split_step"]

Forward = Callable[..., Tensor]  # the exercise `expert_parallel_forward`


def repeats(count: int) -> int:
    """So many repetitions, or three where MOE_COURSE_SMALL is set."""
    return 3 if "MOE_COURSE_SMALL" in os.environ else count


@dataclass(frozen=True)
class Split:
    """The seconds of one rank's forward pass, and the rows that its experts computed.

    wait: at a barrier before each exchange, until the last rank was there; exchange: in the exchanges themselves,
    which then begin together; compute: all the rest.
    """

    compute: float
    exchange: float
    wait: float
    rows: int

    @property
    def total(self) -> float:
        return self.compute + self.exchange + self.wait


def split_step(
    forward: Forward,
    idx_R: Sequence[Tensor],
    num_experts: int,
    d_model: int = 64,
    d_ff: int = 256,
    count: int = 40,
) -> list[Split]:
    """Where the time of each rank went: idx_R[r] (T_r, K) are the experts of rank r's tokens.

    The mean of the fastest eighth of `count` steps: on a shared machine the others were disturbed.
    """

    def work(rank: int) -> list[list[float]]:
        args = _arguments(rank, idx_R, num_experts, d_model, d_ff)
        seen = []
        with _stopwatch() as watch, torch.no_grad():
            for _ in range(repeats(count) + 1):  # the first one warms up
                dist.barrier()
                watch.update(wait=0.0, exchange=0.0, rows=0)
                start = time.perf_counter()
                forward(*args)
                total = time.perf_counter() - start
                seen.append([total - watch["wait"] - watch["exchange"], watch["exchange"], watch["wait"]])
        return seen[1:]

    seen_R = on_ranks(len(idx_R), work)
    totals = [sum(step) for step in seen_R[0]]
    quiet = sorted(range(len(totals)), key=totals.__getitem__)[: -(-len(totals) // 8)]
    kept_R = [[steps[i] for i in quiet] for steps in seen_R]
    rows = torch.bincount(torch.cat([idx.flatten() for idx in idx_R]), minlength=num_experts)
    rows_R: list[int] = rows.view(len(idx_R), -1).sum(dim=1).tolist()
    means_R = [[sum(step[part] for step in steps) / len(steps) for part in range(3)] for steps in kept_R]
    return [
        Split(compute, exchange, wait, rows)
        for (compute, exchange, wait), rows in zip(means_R, rows_R, strict=True)
    ]


def exchange_seconds(sizes: Sequence[int], size: int = 2, width: int = 64) -> list[tuple[float, float]]:
    """(bytes that leave a rank, median seconds) of exchanges of so many float32 rows from each rank to each other."""

    def work(rank: int) -> list[float]:
        found = []
        for rows in sizes:
            sent, room = torch.zeros(rows * size, width), torch.empty(rows * size, width)
            times = []
            for _ in range(repeats(25) + 1):
                dist.barrier()
                start = time.perf_counter()
                dist.all_to_all_single(room, sent)
                times.append(time.perf_counter() - start)
            found.append(median(times[1:]))
        return found

    seconds = on_ranks(size, work)[0]
    return [(rows * (size - 1) * width * 4.0, took) for rows, took in zip(sizes, seconds, strict=True)]


def fit_line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(intercept, slope) of y ≈ intercept + slope · x, neither below 0, by least squares of the relative errors."""
    x, y = (torch.tensor(column, dtype=torch.float64) for column in zip(*points, strict=True))
    columns = torch.stack([1 / y, x / y], dim=1)
    intercept, slope = (
        torch.linalg.lstsq(columns, torch.ones(len(y), 1, dtype=torch.float64)).solution[:, 0].tolist()
    )
    if intercept < 0:  # then a line through 0 is the best that is left
        ratio = x / y
        intercept, slope = 0.0, float(ratio.sum() / (ratio**2).sum())
    return intercept, max(slope, 0.0)


def profile_step(forward: Forward, idx_R: Sequence[Tensor], num_experts: int) -> list[tuple[str, int, float]]:
    """(operation, calls, milliseconds of its own) on rank 0, from torch.profiler, the most expensive first."""

    def work(rank: int) -> list[tuple[str, int, float]]:
        args = _arguments(rank, idx_R, num_experts, 64, 256)
        with torch.no_grad():
            forward(*args)
            dist.barrier()
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
                forward(*args)
        events = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
        return [(event.key, event.count, event.self_cpu_time_total / 1e3) for event in events]

    return on_ranks(len(idx_R), work)[0]


def _arguments(rank: int, idx_R: Sequence[Tensor], num_experts: int, d_model: int, d_ff: int) -> list[Any]:
    """What `forward` takes on one rank: random tokens, equal weights, and this rank's block of random experts."""
    generator = torch.Generator().manual_seed(rank)
    idx_TK, here = idx_R[rank], num_experts // len(idx_R)
    x_TD = torch.randn(len(idx_TK), d_model, generator=generator)
    weights_TK = torch.full(idx_TK.shape, 1 / idx_TK.shape[1])
    return [
        x_TD,
        weights_TK,
        idx_TK,
        *init_experts(here, d_model, d_ff, generator),
        num_experts,
        dist.group.WORLD,
    ]


@contextmanager
def _stopwatch() -> Iterator[dict[str, Any]]:
    """Time `dist.all_to_all_single`, and before it the wait until all ranks are there."""
    watch: dict[str, Any] = {"wait": 0.0, "exchange": 0.0}
    original = dist.all_to_all_single

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        dist.barrier(group=kwargs.get("group"))
        together = time.perf_counter()
        result = original(*args, **kwargs)
        watch["wait"] += together - start
        watch["exchange"] += time.perf_counter() - together
        return result

    dist.all_to_all_single = timed  # in this process alone, which ends soon
    try:
        yield watch
    finally:
        dist.all_to_all_single = original
