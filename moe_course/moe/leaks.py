"""Probes of a layer: does its output depend on later tokens, or on the other sequences of the batch?

A causal layer that computes each sequence by itself depends on neither. A layer with a capacity can depend on both,
because tokens compete for slots. The probes compare outputs, so they work on any callable x_BSD -> y_BSD that gives
the same output for the same input.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from moe_course.shapes import check_axes

Layer = Callable[[Tensor], Tensor]
ROUNDS = 100
TOLERANCE = 1e-4  # of the largest output: far above rounding in float32, far below an expert's share


def depends_on_future(layer: Layer, x_BSD: Tensor, position: int, seed: int = 0) -> bool:
    """Whether layer(x) at or before `position` changes when only later tokens change.

    False means that no change was found in `ROUNDS` attempts. Raises ValueError for a position outside 0..S−1.
    """
    length = check_axes(x_BSD=x_BSD)["S"]
    if not 0 <= position < length:
        raise ValueError(f"position must be in 0..{length - 1}, got {position}")
    may_change_S = torch.arange(length, device=x_BSD.device) > position
    return _reaches(layer, x_BSD, may_change_S.expand(len(x_BSD), -1), seed)


def depends_on_batch(layer: Layer, x_BSD: Tensor, row: int, seed: int = 0) -> bool:
    """Whether the output of sequence `row` changes when only the other sequences change.

    False means that no change was found in `ROUNDS` attempts. Raises ValueError for a row outside 0..B−1.
    """
    sizes = check_axes(x_BSD=x_BSD)
    if not 0 <= row < sizes["B"]:
        raise ValueError(f"row must be in 0..{sizes['B'] - 1}, got {row}")
    may_change_B1 = (torch.arange(sizes["B"], device=x_BSD.device) != row)[:, None]
    return _reaches(layer, x_BSD, may_change_B1.expand(-1, sizes["S"]), seed)


@torch.no_grad()
def _reaches(layer: Layer, x_BSD: Tensor, changes_BS: Tensor, seed: int) -> bool:
    """Whether some change of the marked tokens reaches the output at the unmarked ones."""
    y_BSD = layer(x_BSD)
    tolerance = TOLERANCE * y_BSD.abs().max()
    for other_BSD in _variants(x_BSD, seed):
        changed_BSD = layer(torch.where(changes_BS[..., None], other_BSD, x_BSD))
        gap_BS = (changed_BSD - y_BSD).abs().amax(dim=-1)
        if bool(((gap_BS > tolerance) & ~changes_BS).any()):
            return True
    return False


def _variants(x_BSD: Tensor, seed: int) -> Iterator[Tensor]:
    """Other tokens: new ones of several scales, and copies of the given ones, which choose the same experts."""
    rng = torch.Generator().manual_seed(seed)
    tokens = x_BSD.flatten(0, 1)
    for attempt in range(ROUNDS):
        if attempt % 2:
            yield tokens[torch.randint(len(tokens), x_BSD.shape[:2], generator=rng)] * (1 + attempt % 3)
        else:
            yield torch.randn(x_BSD.shape, generator=rng).to(x_BSD) * (1 + attempt % 3)
