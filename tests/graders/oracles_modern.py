"""What the right answer is in notebook 06, slowly and obviously, independent of the library."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from graders import oracles


def shared_expert_moe(
    x_TD: torch.Tensor,
    routed_TD: torch.Tensor,
    w_gate_DF: torch.Tensor,
    w_up_DF: torch.Tensor,
    w_down_FD: torch.Tensor,
) -> torch.Tensor:
    """The routed output plus the shared expert's, in float64; the result in x's dtype."""
    shared_TD = oracles.swiglu(x_TD.double(), w_gate_DF, w_up_DF, w_down_FD)
    return (routed_TD.double() + shared_TD).to(x_TD.dtype)


def two_highest(scores: Sequence[float]) -> float:
    """How DeepSeek-V3 scores a group."""
    return sum(sorted(scores)[-2:])


def group_limited_top_k(
    scores_TE: torch.Tensor,
    bias_E: torch.Tensor,
    num_groups: int,
    top_groups: int,
    k: int,
    group_score: Callable[[Sequence[float]], float] = two_highest,
) -> torch.Tensor:
    """Token by token: score the groups, keep the best, take the k best experts of those. Rows ascend."""
    experts = len(bias_E)
    size = experts // num_groups
    rows = []
    for scores in scores_TE.double():
        biased = (scores + bias_E.double()).tolist()
        value = [group_score(biased[g * size : (g + 1) * size]) for g in range(num_groups)]
        best = sorted(range(num_groups), key=lambda g: -value[g])[:top_groups]
        allowed = [e for e in range(experts) if e // size in best]
        rows.append(sorted(sorted(allowed, key=lambda e: -biased[e])[:k]))
    return torch.tensor(rows)


def group_case(
    tokens: int,
    num_groups: int,
    size: int,
    top_groups: int,
    k: int,
    rng: torch.Generator,
    *,
    bias: float = 0.3,
    level: float = 0.0,
    low: float = 0.0,
    rivals: Sequence[Callable[..., torch.Tensor]] = (),
    dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor, int, int, int]:
    """Arguments of `group_limited_top_k` on which nothing hangs on rounding and every rival answers otherwise.

    Scores lie in (low, low + 1], as a sigmoid's do where low is 0, and the bias between −bias and bias, around
    `level`. All are multiples of 1/4096 (1/64 in bfloat16), so sums are exact. `rivals` are functions with the same
    arguments.
    """
    experts, unit = num_groups * size, 64 if dtype == torch.bfloat16 else 4096
    while True:
        bound = round(bias * unit)
        bias_E = (torch.randint(-bound, bound + 1, (experts,), generator=rng) / unit + level).to(dtype)
        rows: list[torch.Tensor] = []
        for _ in range(200 * tokens):
            row_1E = (torch.randperm(unit, generator=rng)[:experts] + 1)[None] / unit + low
            args = (row_1E.to(dtype), bias_E, num_groups, top_groups, k)
            if _clear(*args) and not any(_same(rival, args) for rival in rivals):
                rows.append(args[0])
            if len(rows) == tokens:
                return torch.cat(rows), bias_E, num_groups, top_groups, k


def _clear(scores_1E: torch.Tensor, bias_E: torch.Tensor, num_groups: int, *_: int) -> bool:
    """Whether no two biased scores and no two groups of a token are level."""
    biased_E = (scores_1E[0].double() + bias_E.double()).tolist()
    size = len(biased_E) // num_groups
    values = [two_highest(biased_E[g * size : (g + 1) * size]) for g in range(num_groups)]
    return len({*biased_E}) == len(biased_E) and len({*values}) == len(values)


def _same(rival: Callable[..., torch.Tensor], args: tuple) -> bool:
    return torch.equal(group_limited_top_k(*args), rival(*args))


def from_huggingface(
    gate_up_proj_E2FD: torch.Tensor, down_proj_EDF: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Number by number: row f of an expert's gate_up_proj is hidden unit f's gate, row F + f its up projection."""
    experts, d_model, d_ff = down_proj_EDF.shape
    w_gate_EDF, w_up_EDF = (down_proj_EDF.new_zeros(experts, d_model, d_ff) for _ in range(2))
    w_down_EFD = down_proj_EDF.new_zeros(experts, d_ff, d_model)
    for e in range(experts):
        for d in range(d_model):
            for f in range(d_ff):
                w_gate_EDF[e, d, f] = gate_up_proj_E2FD[e, f, d]
                w_up_EDF[e, d, f] = gate_up_proj_E2FD[e, d_ff + f, d]
                w_down_EFD[e, f, d] = down_proj_EDF[e, d, f]
    return w_gate_EDF, w_up_EDF, w_down_EFD
