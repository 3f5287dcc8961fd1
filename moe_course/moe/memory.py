"""How much memory the dispatches take, counted and not timed: the same on every machine, busy or idle.

    moe-course bench layer        # prints it below the timings

While a dispatch runs forward and backward, every tensor that an operation makes is followed until it is freed. What
is given (tokens, gates, weights) and what is asked for (the output, the gradients) does not count. The work
space of one operation inside is not seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from moe_course.moe.dispatchers import DISPATCHES
from moe_course.moe.experts import init_experts
from moe_course.tables import text_table

WIDTHS = (64, 64)  # d_model, d_ff
GRID = ((512, 1024, 2048), (8, 16, 32), (1, 2, 4))  # tokens, experts, experts per token
NAMES = ("loop", "onehot", "sorted", "grouped", "fused")


@dataclass(frozen=True)
class Memory:
    """Bytes of one dispatch at one size, beside inputs and results, in float32.

    kept: from the forward to the backward pass, that is, saved for the gradients. peak: the most at any moment.
    """

    name: str
    tokens: int
    num_experts: int
    top_k: int
    kept: int
    peak: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class PowerLaw:
    """bytes ≈ constant · T^t · E^e · K^k, fitted by least squares in logarithms.

    off: by which factor the worst of the fitted sizes is missed.
    """

    t: float
    e: float
    k: float
    off: float


def measure(
    grid: Sequence[Sequence[int]] = GRID, widths: tuple[int, int] = WIDTHS, names: Iterable[str] = NAMES
) -> list[Memory]:
    """Each dispatch at all combinations of tokens, experts and experts per token; the experts are drawn at random."""
    return [
        _measure(name, tokens, num_experts, top_k, widths)
        for name in names
        for tokens, num_experts, top_k in itertools.product(*grid)
        if top_k <= num_experts
    ]


def fit(found: Sequence[Memory], what: str) -> PowerLaw:
    """The power law of `what`, "kept" or "peak", through the measurements of one dispatch."""
    sizes = torch.tensor([(m.tokens, m.num_experts, m.top_k) for m in found], dtype=torch.float64)
    logs = torch.cat([sizes.log(), torch.ones(len(found), 1, dtype=torch.float64)], dim=1)
    bytes_ = torch.tensor([getattr(m, what) for m in found], dtype=torch.float64).log()
    solution = torch.linalg.lstsq(logs, bytes_[:, None]).solution[:, 0]
    off = (logs @ solution - bytes_).abs().max().exp()
    t, e, k, _ = solution.tolist()
    return PowerLaw(t, e, k, off.item())


def exponents(found: Sequence[Memory]) -> dict[str, dict[str, dict[str, float]]]:
    """The power laws of each dispatch as plain values: exponents[name]["kept"]["e"], say."""
    return {
        name: {what: asdict(fit([m for m in found if m.name == name], what)) for what in ("kept", "peak")}
        for name in dict.fromkeys(m.name for m in found)
    }


def table(found: Sequence[Memory]) -> str:
    """A row for each dispatch: megabytes at the largest size measured, and the exponents."""
    largest = {m.name: m for m in found}  # the last one of each
    last = found[-1]
    rows = [("", *(title for what in ("kept", "peak") for title in (f"{what} MB", "T", "E", "K", "off by")))]
    for name, laws in exponents(found).items():
        cells = [name]
        for what, law in laws.items():
            cells.append(f"{getattr(largest[name], what) / 1e6:.1f}")
            cells += [f"{round(law[letter], 2) + 0:.2f}" for letter in "tek"]  # no −0.00
            cells.append(f"{100 * (law['off'] - 1):.0f} %")
        rows.append(tuple(cells))
    return (
        f"memory with {last.tokens} tokens, {last.num_experts} experts, top-{last.top_k}, and exponents over all "
        f"sizes\n{text_table(rows)}"
    )


def _measure(name: str, tokens: int, num_experts: int, top_k: int, widths: tuple[int, int]) -> Memory:
    draw = torch.Generator().manual_seed(0)
    x_TD = torch.randn(tokens, widths[0], generator=draw)
    scores_TE = torch.rand(tokens, num_experts, generator=draw)
    weights_TK, idx_TK = scores_TE.softmax(dim=-1).topk(top_k)
    experts = init_experts(num_experts, *widths, draw)
    return Memory(
        name, tokens, num_experts, top_k, *_count(DISPATCHES[name], x_TD, weights_TK, idx_TK, *experts)
    )


def _count(dispatch: Callable[..., Tensor], *inputs: Tensor) -> tuple[int, int]:
    """(kept, peak) bytes of a function of tensors that returns one, as `Memory` has them."""
    leaves = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    dy = torch.ones_like(dispatch(*leaves))
    with _Alive([*leaves, dy]) as alive:
        y = dispatch(*leaves)
        saved = {key for key, life in alive.lives.items() if not life.ref.expired()}
        y.backward(dy)
    results = {alive.key(x) for x in [y, *(x.grad for x in leaves if x.grad is not None)]}
    lives = {key: life for key, life in alive.lives.items() if key not in results}
    kept = sum(life.bytes for key, life in lives.items() if key in saved)
    changes = [0] * (alive.clock + 2)
    for life in lives.values():  # died = −1 is the last place
        changes[life.born] += life.bytes
        changes[life.died] -= life.bytes
    return kept, max(itertools.accumulate(changes))


@dataclass
class _Life:
    """One piece of memory: its size, and the numbers of the operations after which it was there, and gone."""

    ref: StorageWeakRef
    bytes: int
    born: int
    died: int = -1  # still there


class _Alive(TorchDispatchMode):
    """Follows the memory of all tensors that operations make inside it; `clock` counts the operations."""

    def __init__(self, given: Iterable[Tensor]):
        super().__init__()
        self.given = {self.key(x): x for x in given}
        self.lives: dict[int, _Life] = {}
        self.clock = 0

    @staticmethod
    def key(x: Tensor) -> int:
        """What tells one piece of memory from another; it stays taken as long as a weak reference is held."""
        return x.untyped_storage()._cdata

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.clock += 1
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and (key := self.key(x)) not in self.given and key not in self.lives:
                storage = x.untyped_storage()
                self.lives[key] = _Life(StorageWeakRef(storage), storage.nbytes(), self.clock)
        for life in self.lives.values():
            if life.died < 0 and life.ref.expired():
                life.died = self.clock
        return out
