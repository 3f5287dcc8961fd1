"""Measuring in a notebook: interleaved repetitions, the median with its spread, and counts that need no clock."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.profiler_util import EventList
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from moe_course.moe.experts import init_experts

SHORTEST = 0.01  # seconds that one measurement takes at least: much shorter ones depend on the scheduler
Way = Callable[..., Tensor]  # (x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD) -> y_TD


@dataclass(frozen=True)
class Timing:
    """Repeated measurements of the same thing, in seconds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The middle half of the measurements lies between these two; a single measurement is both."""
        if len(self.seconds) < 2:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high


def _rounds() -> int:
    return 2 if "MOE_COURSE_SMALL" in os.environ else 7


def race(contestants: Mapping[str, Callable[[], Any]], rounds: int | None = None) -> dict[str, Timing]:
    """Time the contestants in turns, so that other work of the machine slows all of them alike.

    Every contestant runs once before its time counts; a short one runs several times in a row, and their mean is
    one measurement. `rounds` is 7, or 2 with MOE_COURSE_SMALL in the environment.
    """
    rounds = _rounds() if rounds is None else rounds
    if rounds < 1:
        raise ValueError(f"rounds must be positive, got {rounds}")
    repeats = {name: max(1, round(SHORTEST / max(_seconds(run), 1e-9))) for name, run in contestants.items()}
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            taken[name].append(_seconds(run, repeats[name]))
    return {name: Timing(tuple(seconds)) for name, seconds in taken.items()}


def _seconds(run: Callable[[], Any], repeats: int = 1) -> float:
    """The seconds of one run, as a mean over `repeats` runs in a row."""
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The sizes of one expert layer and of the batch that it gets. The defaults are close to the tiny MoE's."""

    tokens: int = 192
    experts: int = 16
    top_k: int = 2
    d_model: int = 64
    d_ff: int = 8  # the tiny MoE's experts have 6, but grouped products need a multiple of 4 (16 bytes)

    def arguments(self, seed: int = 0) -> tuple[Tensor, ...]:
        """(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD) with uniformly random routing.

        All except idx_TK require a gradient.
        """
        rng = torch.Generator().manual_seed(seed)
        x_TD = torch.randn(self.tokens, self.d_model, generator=rng)
        top_TK, idx_TK = torch.randn(self.tokens, self.experts, generator=rng).topk(self.top_k)
        experts = init_experts(self.experts, self.d_model, self.d_ff, generator=rng)
        leaves = [leaf.requires_grad_() for leaf in (x_TD, top_TK.softmax(dim=-1), *experts)]
        return leaves[0], leaves[1], idx_TK, *leaves[2:]

    def training_step(self, way: Way) -> Callable[[], object]:
        """A function that runs `way` forward and backward on these sizes."""
        arguments = self.arguments()
        leaves = [argument for argument in arguments if argument.requires_grad]
        return lambda: torch.autograd.grad(way(*arguments).sum(), leaves)


@dataclass(frozen=True)
class Sweep:
    """The times of training steps of several dispatches while one size varies: {value: {dispatch: its Timing}}."""

    axis: str  # the field of Layer that varies
    times: dict[int, dict[str, Timing]] = field(default_factory=dict)

    @property
    def ways(self) -> list[str]:
        return list(dict.fromkeys(way for row in self.times.values() for way in row))

    def fastest(self, value: int) -> str:
        """The dispatch with the smallest median time at this value."""
        return min(self.times[value], key=lambda way: self.times[value][way].median)

    def ratio(self, way: str, value: int, to: tuple[str, int]) -> float:
        """The median time of a dispatch at a value, divided by that of another: `to` is (dispatch, value)."""
        return self.times[value][way].median / self.times[to[1]][to[0]].median


def sweep(
    ways: Mapping[str, Way], axis: str, values: Sequence[int], rounds: int | None = None, **sizes: int
) -> Sweep:
    """Time a training step of every dispatch while the size `axis` takes the values; `sizes` are the other sizes."""
    times = {}
    for value in values:
        layer = Layer(**{**sizes, axis: value})
        times[value] = race({name: layer.training_step(way) for name, way in ways.items()}, rounds)
    return Sweep(axis, times)


def flops(work: Callable[[], object]) -> int:
    """The floating-point operations of the matrix products in `work`; a multiply-add counts as two."""
    counter = FlopCounterMode(display=False)
    with counter:
        work()
    return int(counter.get_total_flops())


def operations(work: Callable[[], object]) -> int:
    """How many tensor operations `work` starts, with the backward pass. The number is the same on every machine."""
    return len(_bytes_of_operations(work))


def bytes_moved(work: Callable[[], object]) -> int:
    """How many bytes the operations of `work` move, if each reads all its arguments and writes its result.

    Views move nothing. A gather (index, index_select, embedding_bag) reads as many numbers as it gives, and its
    indices. What caches spare, and what an operation does inside, is not seen.
    """
    return sum(_bytes_of_operations(work))


def products(work: Callable[[], object]) -> int:
    """How many products of two matrices run in `work`, those included that a grouped product runs inside.

    As PyTorch's profiler counts them (aten::mm and its kin that also add).
    """
    counted = ("aten::mm", "aten::addmm", "aten::addmm_")
    return sum(event.count for event in profiled(work) if event.key in counted)


def profiled(work: Callable[[], object]) -> EventList:
    """What PyTorch's profiler saw of `work`, by operation. `profiled(work).table(row_limit=8)` is its table."""
    with _silent_stderr(), profile(activities=[ProfilerActivity.CPU]) as seen:
        work()
    return seen.key_averages()


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Nothing that C++ code writes to stderr is seen: there PyTorch 2.13's profiler says when it starts and ends."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def _bytes_of_operations(work: Callable[[], object]) -> list[int]:
    """The bytes that each operation of `work` moves, as `bytes_moved` counts them."""
    counter = _Counter()
    with counter:
        work()
    return counter.bytes


class _Counter(TorchDispatchMode):
    """Counts the operations that reach PyTorch's dispatcher; views that only rename memory count too."""

    GATHERS = ("index", "index_select", "embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
    MOVES_NOTHING = ("detach", "_unsafe_view", "empty", "empty_like", "new_empty")

    def __init__(self) -> None:
        super().__init__()
        self.bytes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        read, written = _tensors((args, kwargs)), _tensors(result)
        if name in self.GATHERS:
            read = [*written[:1], *(tensor for tensor in read if not tensor.is_floating_point())]
        moves = not (func.is_view or name in self.MOVES_NOTHING)
        self.bytes.append(sum(tensor.nbytes for tensor in (*read, *written)) if moves else 0)
        return result


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
