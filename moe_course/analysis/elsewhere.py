"""Is it the domain, or only its words? Where tokens go, and where the same tokens go in all other domains."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from moe_course.analysis.specialization import routing_counts


def left_out(
    idx_TK: Tensor, labels_T: Tensor, tokens_T: Tensor, num_labels: int, num_experts: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(shares_GE, others_GE, expected_GE), float64, rows that sum to 1, of tokens that other labels have as well.

    shares_GE: where the tokens of a label go. others_GE: where those of all other labels go. expected_GE: where the
    label's tokens would go if each went where the same token goes under the other labels. A label's own tokens are
    left out of its expectation: else a token would explain itself. A label without such tokens has rows of nan.
    Tokens are ids, any integers.
    """
    kinds, token_T = tokens_T.unique(return_inverse=True)
    cell_T = labels_T.long() * len(kinds) + token_T
    counts = routing_counts(idx_TK, cell_T, num_labels * len(kinds), num_experts).double()
    own_GVE = counts.view(num_labels, len(kinds), num_experts)
    others_GVE = own_GVE.sum(dim=0) - own_GVE
    times_GV = others_GVE.sum(dim=2)  # how often the others have the token
    own_GVE = own_GVE * (times_GV > 0)[:, :, None]
    habits_GVE = others_GVE / times_GV.clamp(min=1)[:, :, None]
    expected_GE = (own_GVE.sum(dim=2, keepdim=True) * habits_GVE).sum(dim=1)
    tables = own_GVE.sum(dim=1), others_GVE.sum(dim=1), expected_GE
    shares_GE, others_GE, expected_GE = (table / table.sum(dim=1, keepdim=True) for table in tables)
    return shares_GE, others_GE, expected_GE


def distance(shares_GE: Tensor, other_GE: Tensor) -> Tensor:
    """distance_G: the part of a label's choices that would have to change to turn one row into the other, 0..1.

    Half the sum of the absolute differences: the total variation distance.
    """
    return (shares_GE - other_GE).abs().sum(dim=1) / 2


def equal_sets(
    share_E: Sequence[float], expert: int, count: int, generator: torch.Generator
) -> list[tuple[int, ...]]:
    """Up to `count` random sets of one to three other experts that together take what `expert` does, to a tenth.

    They are the null model of a favourite: if only its share mattered, silencing one of them would cost as much.
    """
    rest = [e for e in range(len(share_E)) if e != expert]
    sets = [chosen for size in (1, 2, 3) for chosen in combinations(rest, size)]
    near = [s for s in sets if abs(sum(share_E[e] for e in s) - share_E[expert]) <= 0.1 * share_E[expert]]
    order = torch.randperm(len(near), generator=generator).tolist()
    return [near[n] for n in order[:count]]
