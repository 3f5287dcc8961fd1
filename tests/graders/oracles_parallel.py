"""What the right answer is in notebook 09, slowly and obviously, in one process, independent of the library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from graders import oracles


def expert_rank(expert: int, num_experts: int, num_ranks: int) -> int:
    """Deal out the ranks in blocks, and look the expert up."""
    return [rank for rank in range(num_ranks) for _ in range(num_experts // num_ranks)][expert]


def send_counts(idx_TK: torch.Tensor, num_experts: int, num_ranks: int) -> torch.Tensor:
    """One stroke for each assignment."""
    counts = [0] * num_ranks
    for row in idx_TK.tolist():
        for expert in row:
            counts[expert_rank(expert, num_experts, num_ranks)] += 1
    return torch.tensor(counts)


def all_to_all_bytes(
    tokens_per_rank: int, top_k: int, d_model: int, bytes_per_value: float, num_ranks: int
) -> float:
    """The same share for every rank; those of all but the own one are added."""
    to_each = Fraction(tokens_per_rank * top_k, num_ranks) * d_model * Fraction(bytes_per_value)
    return float(sum(to_each for _ in range(num_ranks - 1)))


def distinct_nodes(idx_TK: torch.Tensor, num_experts: int, num_nodes: int) -> torch.Tensor:
    """For each token the set of its nodes."""
    visited = [{expert_rank(expert, num_experts, num_nodes) for expert in row} for row in idx_TK.tolist()]
    return torch.tensor([len(nodes) for nodes in visited])


def step_time(
    load_R: torch.Tensor, seconds_per_token: float, bytes_out: float, bandwidth: float, latency: float
) -> float:
    """Out, compute, back: the slowest rank decides when the way back begins."""
    one_way = latency + bytes_out / bandwidth
    return one_way + max(load * seconds_per_token for load in load_R.tolist()) + one_way


def place_experts(load_E: torch.Tensor, num_ranks: int) -> torch.Tensor:
    """Expert after expert, the heaviest that is left; to the lightest rank that has room."""
    loads, held = load_E.double().tolist(), [[] for _ in range(num_ranks)]
    left = list(range(len(loads)))
    while left:
        expert = min(left, key=lambda e: (-loads[e], e))
        room = [r for r in range(num_ranks) if len(held[r]) < len(loads) // num_ranks]
        held[min(room, key=lambda r: (sum(loads[e] for e in held[r]), r))].append(expert)
        left.remove(expert)
    return torch.tensor([next(r for r in range(num_ranks) if e in held[r]) for e in range(len(loads))])


@dataclass
class Case:
    """Arguments for each rank of a world, and what each must return; None where a rank is not in the group."""

    args_R: list[Any]
    want_R: list[Any]
    cotangents_R: list[Any]
    grads_R: list[Any]  # for the arguments at the positions `wrt`
    wrt: tuple[int, ...]

    def question(self, gradients: bool = False) -> tuple[Any, Any, Any]:
        return (self.args_R, self.cotangents_R, self.wrt) if gradients else (self.args_R, [], ())


def exchange_case(
    sends: Sequence[Sequence[int]],
    rng: torch.Generator,
    ranks: Sequence[int] = (),
    width: int = 3,
    dtype: torch.dtype = torch.float32,
) -> Case:
    """sends[s][r] rows from s to r, members of a group. `ranks`: their numbers in the world, by default the same."""
    size = len(sends)
    world = list(ranks) or list(range(size))
    rows = [_numbers(sum(send), width, rng).to(dtype) for send in sends]
    pieces = [own.split(list(send)) for own, send in zip(rows, sends, strict=True)]
    arrived = [torch.cat([pieces[s][r] for s in range(size)]) for r in range(size)]
    cotangents = [_numbers(len(own), width, rng).to(dtype) for own in arrived]
    parts = [cot.split([send[r] for send in sends]) for r, cot in enumerate(cotangents)]
    grads = [[torch.cat([parts[r][s] for r in range(size)])] for s in range(size)]
    args = [
        [rows[r], list(sends[r]), [send[r] for send in sends], {"ranks": list(world)}] for r in range(size)
    ]
    return Case(*(_in_world(part, world) for part in (args, arrived, cotangents, grads)), (0,))


def layer_case(
    idx_R: Sequence[torch.Tensor],
    num_experts: int,
    d_model: int,
    d_ff: int,
    rng: torch.Generator,
    ranks: Sequence[int] = (),
    dtype: torch.dtype = torch.float32,
) -> Case:
    """Tokens of every rank with the experts idx_R[r] (T_r, K), and weights for all experts; as in `exchange_case`."""
    size, here = len(idx_R), num_experts // len(idx_R)
    world = list(ranks) or list(range(size))
    tokens = [len(idx_TK) for idx_TK in idx_R]
    idx_TK = torch.cat(list(idx_R))
    x_TD = torch.randn(len(idx_TK), d_model, generator=rng).to(dtype)
    weights_TK = (0.2 + torch.rand(idx_TK.shape, generator=rng)).to(dtype)
    shapes = ((num_experts, d_model, d_ff), (num_experts, d_model, d_ff), (num_experts, d_ff, d_model))
    experts = [(torch.randn(*shape, generator=rng) / shape[1] ** 0.5).to(dtype) for shape in shapes]
    dy_TD = _numbers(len(idx_TK), d_model, rng).to(dtype)
    whole = (x_TD, weights_TK, idx_TK, *experts)
    grads = oracles.gradients(oracles.moe, whole, dy_TD, wrt=(0, 1, 3, 4, 5))
    by_token = [
        part.split(tokens) for part in (x_TD, weights_TK, idx_TK, dy_TD, oracles.moe(*whole), *grads[:2])
    ]
    by_expert = [part.split(here) for part in (*experts, *grads[2:])]
    x, weights, idx, dy, y, dx, dweights = by_token
    group = {"ranks": list(world)}
    args = [
        [x[r], weights[r], idx[r], *(w[r] for w in by_expert[:3]), num_experts, group] for r in range(size)
    ]
    right = [[dx[r], dweights[r], *(w[r] for w in by_expert[3:])] for r in range(size)]
    return Case(*(_in_world(part, world) for part in (args, list(y), list(dy), right)), (0, 1, 3, 4, 5))


def _numbers(rows: int, width: int, rng: torch.Generator) -> torch.Tensor:
    """Whole numbers, so that nothing is rounded in any dtype."""
    return torch.randint(-9, 10, (rows, width), generator=rng).float()


def _in_world(parts: Sequence[Any], ranks: Sequence[int]) -> list[Any]:
    """The parts of a group's members at their places in the world, None elsewhere."""
    return [parts[ranks.index(r)] if r in ranks else None for r in range(max(ranks) + 1)]
