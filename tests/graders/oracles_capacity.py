"""What the right answers of notebook 05 are: one assignment after the other, in Python."""

from __future__ import annotations

from fractions import Fraction

import torch


def expert_capacity(num_tokens: int, num_experts: int, top_k: int, factor: float) -> int:
    """T·K/E·factor, rounded up, in fractions."""
    slots = Fraction(num_tokens * top_k, num_experts) * Fraction(factor)
    return -(-slots.numerator // slots.denominator)


def clear_of_rounding(num_tokens: int, num_experts: int, top_k: int, factor: float) -> bool:
    """Whether T·K/E·factor is no near miss of a whole number, so that any order of operations will do."""
    slots = Fraction(num_tokens * top_k, num_experts) * Fraction(factor)
    return abs(slots - round(slots)) > Fraction(1, 1000)


def choice_major(idx_TK: torch.Tensor, order: list[int] | None = None) -> torch.Tensor:
    """Places in the queues: all first choices, then all second ones, tokens in the `order` given."""
    tokens, k = idx_TK.shape
    order = list(range(tokens)) if order is None else order
    return _queue(idx_TK, [(t, slot) for slot in range(k) for t in order])


def token_major(idx_TK: torch.Tensor) -> torch.Tensor:
    """Places in the queues: all choices of the first token, then of the second."""
    tokens, k = idx_TK.shape
    return _queue(idx_TK, [(t, slot) for t in range(tokens) for slot in range(k)])


def batch_priority(idx_TK: torch.Tensor, weights_TK: torch.Tensor) -> torch.Tensor:
    """Places in the queues: choice-major, heaviest first choice first."""
    first = weights_TK[:, 0].tolist()
    return choice_major(idx_TK, sorted(range(len(first)), key=lambda t: -first[t]))


def in_any_order(idx_TK: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Places in the queues when assignments arrive in a random order."""
    tokens, k = idx_TK.shape
    arrivals = torch.randperm(tokens * k, generator=rng).tolist()
    return _queue(idx_TK, [divmod(n, k) for n in arrivals])


def _queue(idx_TK: torch.Tensor, arrivals: list[tuple[int, int]]) -> torch.Tensor:
    waiting: dict[int, int] = {}
    pos_TK = torch.zeros_like(idx_TK)
    for t, slot in arrivals:
        expert = int(idx_TK[t, slot])
        pos_TK[t, slot] = waiting.get(expert, 0)
        waiting[expert] = waiting.get(expert, 0) + 1
    return pos_TK


def fill_buffers(
    x_TD: torch.Tensor, idx_TK: torch.Tensor, pos_TK: torch.Tensor, num_experts: int, capacity: int
) -> torch.Tensor:
    """Slot after slot: the token that stands there, or zeros."""
    who = {
        (int(idx_TK[t, slot]), int(pos_TK[t, slot])): t
        for t in range(len(idx_TK))
        for slot in range(idx_TK.shape[1])
    }
    nobody_D = 0 * x_TD[0]
    rows = [
        x_TD[who[e, c]] if (e, c) in who else nobody_D for e in range(num_experts) for c in range(capacity)
    ]
    return torch.stack(rows).view(num_experts, capacity, -1)


def occupied(idx_TK: torch.Tensor, pos_TK: torch.Tensor, num_experts: int, capacity: int) -> torch.Tensor:
    """Which of the slots (E, C) hold an assignment."""
    taken_EC = torch.zeros(num_experts, capacity, dtype=torch.bool)
    for e, c in zip(idx_TK.flatten().tolist(), pos_TK.flatten().tolist(), strict=True):
        if c < capacity:
            taken_EC[e, c] = True
    return taken_EC


def read_buffers(
    buf_ECD: torch.Tensor, idx_TK: torch.Tensor, pos_TK: torch.Tensor, weights_TK: torch.Tensor
) -> torch.Tensor:
    """Token after token: the weighted sum of the rows that were kept, in float64; the result in buf's dtype."""
    rows = []
    for t in range(len(idx_TK)):
        row_D = 0 * buf_ECD[0, 0].double()
        for slot in range(idx_TK.shape[1]):
            expert, place = int(idx_TK[t, slot]), int(pos_TK[t, slot])
            if place < buf_ECD.shape[1]:
                row_D = row_D + weights_TK[t, slot].double() * buf_ECD[expert, place].double()
        rows.append(row_D)
    return torch.stack(rows).to(buf_ECD.dtype)


def drop_and_waste(idx_TK: torch.Tensor, num_experts: int, capacity: int) -> tuple[float, float]:
    """Count those who come too late and the slots that nobody takes."""
    chosen = idx_TK.flatten().tolist()
    dropped = empty = 0
    for e in range(num_experts):
        dropped += max(0, chosen.count(e) - capacity)
        empty += max(0, capacity - chosen.count(e))
    return dropped / len(chosen), empty / (num_experts * capacity)


def choices(
    tokens: int, experts: int, k: int, rng: torch.Generator, among: list[int] | None = None
) -> torch.Tensor:
    """Random idx_TK: k different experts a token, some experts far more popular than others.

    With `among`, only those experts are chosen.
    """
    names = torch.tensor(among if among else list(range(experts)))
    popularity = 0.1 + torch.rand(len(names), generator=rng) ** 3
    return names[torch.multinomial(popularity.expand(tokens, -1), k, generator=rng)]


def distinct_weights(
    tokens: int, k: int, rng: torch.Generator, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Weights (T, K), descending in each row, that sum to anything; no two first weights are alike."""
    first_T = (torch.randperm(tokens, generator=rng) + 1) / (tokens + 1)
    falling_TK = torch.rand(tokens, k, generator=rng).sort(dim=1, descending=True).values
    falling_TK[:, 0] = 1
    return (first_T[:, None] * falling_TK).to(dtype)
