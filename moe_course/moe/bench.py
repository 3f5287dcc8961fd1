"""How fast the layer is on this machine, beside a dense layer of the same arithmetic and beside `transformers`.

    moe-course bench layer --threads 1 2 --rounds 15

Every contender computes forward and backward of one feed-forward layer on the same tokens: `MoELayer` with each of
its dispatches, the dense SwiGLU layer with the same active parameters (width K·F), and the Mixtral block of
transformers with its two ways to run experts. Before anything is timed, all mixtures are given the same weights and
their outputs and gradients are compared. The contenders then take turns, so that a busy moment of the machine falls
on all alike. A second table says what the dense layer and `auto` spend their time on, with one thread.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from moe_course.config import DispatchName, MoEConfig
from moe_course.moe.experts import init_experts, swiglu_ffn
from moe_course.moe.layer import MoELayer
from moe_course.tables import text_table

SHAPES = (  # d_model, d_ff, num_experts, top_k, tokens
    (64, 128, 8, 2, 2048),
    (128, 176, 8, 2, 2048),
    (256, 352, 8, 2, 4096),
    (512, 704, 16, 2, 4096),
    (256, 128, 64, 8, 4096),
)
DENSE = "dense"
WAYS: tuple[DispatchName, ...] = ("sorted", "grouped", "fused", "auto")
OTHERS = {"transformers eager": "eager", "transformers grouped_mm": "grouped_mm"}
KINDS = {  # operations of PyTorch by what they do
    "products": ("mm", "addmm_", "bmm"),
    "elements": ("mul", "mul_", "add_", "silu", "silu_backward", "sigmoid", "lerp", "sum"),
    "rows": ("index_select", "index_add_", "copy_", "zero_", "fill_", "index_copy_", "_embedding_bag"),
    "choices": ("_softmax", "_softmax_backward_data", "topk", "sort", "logsumexp", "amax", "bincount"),
}

Layer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Timing:
    """One contender on one shape and number of threads. Seconds of forward and backward together.

    clock, processor: the median over the rounds, by the clock and in processor time of all threads. fastest, slowest:
    the extremes by the clock. share: the speed as a share of the dense layer's, the median over rounds of its ratio
    to the dense layer's time in the same round.
    """

    name: str
    shape: tuple[int, ...]
    threads: int
    clock: float
    fastest: float
    slowest: float
    processor: float
    share: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, for JSON."""
        return asdict(self)


def bench(
    shapes: Iterable[Sequence[int]] = SHAPES, threads: Iterable[int] = (1, 2), rounds: int = 15
) -> list[Timing]:
    """Time all contenders on all shapes, each (d_model, d_ff, num_experts, top_k, tokens), in float32 on the CPU.

    Raises ValueError for fewer than one round, and RuntimeError where a mixture disagrees with the others.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    before = torch.get_num_threads()
    timings = []
    try:
        for number in threads:
            torch.set_num_threads(number)
            for shape in shapes:
                timings += _bench_shape(tuple(shape), number, rounds)
    finally:
        torch.set_num_threads(before)
    return timings


def _bench_shape(shape: tuple[int, ...], threads: int, rounds: int) -> list[Timing]:
    x_TD, dy_TD = _tokens(shape)
    found = contenders(shape)
    need_same({name: layer for name, layer in found.items() if name != DENSE}, x_TD, dy_TD)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, layer in found.items():
            times[name].append(_time(layer, x_TD, dy_TD))
    dense = [clock for clock, _ in times[DENSE]]
    return [_timing(name, shape, threads, taken, dense) for name, taken in times.items()]


def _tokens(shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Tokens, and the gradient of the layer's output."""
    d_model, *_, tokens = shape
    draw = torch.Generator().manual_seed(0)
    return torch.randn(tokens, d_model, generator=draw), torch.randn(tokens, d_model, generator=draw)


def _timing(
    name: str, shape: tuple[int, ...], threads: int, taken: list[tuple[float, float]], dense: list[float]
) -> Timing:
    clock, processor = zip(*taken, strict=True)
    return Timing(
        name,
        shape,
        threads,
        statistics.median(clock),
        min(clock),
        max(clock),
        statistics.median(processor),
        statistics.median(theirs / ours for theirs, ours in zip(dense, clock, strict=True)),
    )


def table(timings: Sequence[Timing]) -> str:
    """The timings as text, one block for each shape and number of threads; milliseconds and shares of dense."""
    lines = []
    for block in dict.fromkeys((timing.shape, timing.threads) for timing in timings):
        (d_model, d_ff, num_experts, top_k, tokens), threads = block
        lines += [
            "",
            f"d_model {d_model}, d_ff {d_ff}, {num_experts} experts, top-{top_k}, {tokens} tokens, "
            f"{threads} thread{'s' if threads > 1 else ''}",
        ]
        rows: list[tuple[str, ...]] = [("", "ms", "fastest", "slowest", "processor", "of dense")]
        for t in timings:
            if (t.shape, t.threads) == block:
                seconds = (t.clock, t.fastest, t.slowest, t.processor)
                rows.append((t.name, *(f"{1e3 * s:.1f}" for s in seconds), f"{t.share:.2f}"))
        lines.append(text_table(rows))
    return "\n".join(lines[1:])


@dataclass(frozen=True)
class Spent:
    """Milliseconds of one forward and backward pass by kind of operation (KINDS), with one thread.

    As torch.profiler counts them. What Python, autograd and views take is left out: the profiler itself adds to that.
    """

    name: str
    shape: tuple[int, ...]
    milliseconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, for JSON."""
        return asdict(self)


def spent(shapes: Iterable[Sequence[int]] = SHAPES, rounds: int = 15) -> list[Spent]:
    """What the dense layer and `auto` spend their time on, for each shape; the mean of some rounds."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [
            Spent(name, tuple(shape), _spent(contenders(shape)[name], shape, rounds))
            for shape in shapes
            for name in (DENSE, "auto")
        ]
    finally:
        torch.set_num_threads(before)


def _spent(layer: Layer, shape: Sequence[int], rounds: int) -> dict[str, float]:
    x_TD, dy_TD = _tokens(shape)
    _time(layer, x_TD, dy_TD)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(rounds):
            _time(layer, x_TD, dy_TD)
    own = {event.key: event.self_cpu_time_total / 1e3 / rounds for event in seen.key_averages()}
    return {kind: sum(own.get(f"aten::{name}", 0.0) for name in names) for kind, names in KINDS.items()}


def spent_table(found: Sequence[Spent]) -> str:
    """The milliseconds as text."""
    rows: list[tuple[str, ...]] = [("one thread, ms, by torch.profiler", "", *KINDS)]
    for one in found:
        d_model, d_ff, num_experts, top_k, tokens = one.shape
        shape = f"{d_model} × {d_ff}, {num_experts} experts, top-{top_k}, {tokens}"
        rows.append((shape, one.name, *(f"{value:.1f}" for value in one.milliseconds.values())))
    return text_table(rows)


def contenders(shape: Sequence[int]) -> dict[str, Layer]:
    """The layers by name, each y_TD = layer(x_TD); the mixtures have equal weights."""
    d_model, d_ff, num_experts, top_k, _ = shape
    draw = torch.Generator().manual_seed(1)
    config = MoEConfig(d_model=d_model, d_ff=d_ff, num_experts=num_experts, top_k=top_k)
    reference = MoELayer(config, draw)
    found: dict[str, Layer] = {DENSE: _Dense(d_model, top_k * d_ff)}
    for dispatch in WAYS:
        layer = MoELayer(replace(config, dispatch=dispatch))
        layer.load_state_dict(reference.state_dict())
        found[dispatch] = _Flat(layer)
    if importlib.util.find_spec("transformers"):
        for name, way in OTHERS.items():
            found[name] = _mixtral(reference, way)
    return found


def need_same(layers: dict[str, Layer], x_TD: Tensor, dy_TD: Tensor, tolerance: float = 1e-4) -> None:
    """Compare outputs and gradients of the input. Raises RuntimeError that names who differs, and by how much."""
    first = None
    for name, layer in layers.items():
        given_TD = x_TD.clone().requires_grad_()
        y_TD = layer(given_TD)
        (dx_TD,) = torch.autograd.grad(y_TD, given_TD, dy_TD)
        y_TD = y_TD.detach()
        first = first or (name, y_TD, dx_TD)
        for what, mine, theirs in (("output", y_TD, first[1]), ("gradient", dx_TD, first[2])):
            apart = float((mine - theirs).abs().max() / theirs.abs().max())
            if not apart <= tolerance:
                raise RuntimeError(f"{name}: its {what} differs from that of {first[0]} by {apart:.1e}")


def _time(layer: Layer, x_TD: Tensor, dy_TD: Tensor) -> tuple[float, float]:
    """Seconds by the clock and of processor time for one forward and backward pass."""
    given_TD = x_TD.clone().requires_grad_()
    for parameter in layer.parameters():  # type: ignore[attr-defined]
        parameter.grad = None
    clock, processor = time.perf_counter(), time.process_time()
    layer(given_TD).backward(dy_TD)
    return time.perf_counter() - clock, time.process_time() - processor


class _Flat(nn.Module):
    """A layer of sequences as one of tokens."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x_TD: Tensor) -> Tensor:
        result = self.layer(x_TD[None])
        y_BSD = result[0] if isinstance(result, tuple) else result
        return y_BSD.reshape(x_TD.shape)


class _Dense(nn.Module):
    """A SwiGLU layer."""

    def __init__(self, d_model: int, d_ff: int):
        super().__init__()
        weights = init_experts(1, d_model, d_ff, torch.Generator().manual_seed(2))
        self.weights = nn.ParameterList(w[0] for w in weights)

    def forward(self, x_TD: Tensor) -> Tensor:
        return swiglu_ffn(x_TD, *self.weights)


def _mixtral(reference: MoELayer, way: str) -> nn.Module:
    """The Mixtral block of transformers with the weights of `reference`, running its experts in the given way."""
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    c = reference.config
    config = MixtralConfig(
        hidden_size=c.d_model,
        intermediate_size=c.d_ff,
        num_local_experts=c.num_experts,
        num_experts_per_tok=c.top_k,
    )
    config._experts_implementation = way
    block = MixtralSparseMoeBlock(config)
    gate_up_E2FD = torch.cat([reference.w_gate, reference.w_up], dim=2).transpose(1, 2)
    with torch.no_grad():
        block.gate.weight.copy_(reference.router.T)
        block.experts.gate_up_proj.copy_(gate_up_E2FD)
        block.experts.down_proj.copy_(reference.w_down.transpose(1, 2))
    return _Flat(block)
