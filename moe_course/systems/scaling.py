"""What a training budget buys according to a published scaling law: loss by parameters, tokens and granularity.

    plan = best_plan(1e20)                 # an MoE of 64 times the FFN, its granularity chosen by the law
    plan = best_plan(1e20, granularity=1)
    plan = best_plan(1e20, dense=True)

Source of everything here: Krajewski et al. 2024, "Scaling Laws for Fine-Grained Mixture of Experts",
arXiv 2402.07871: fits to more than a hundred models of 129 M to 3.7 B parameters on C4. Beyond that it extrapolates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from moe_course.tables import text_table

EXPANSION = 64  # expert parameters over those of a dense model's FFN; the law was fitted to this value
ROUTING_COST = 14  # training FLOPs per token and router weight; a weight of a matrix product has 6
WIDTH_PER_BLOCK = 64  # the models' shape: d_model = 64 · blocks
GRANULARITIES = (1, 2, 4, 8, 16, 32, 64, 128)
CONSTANT = 0.47  # c of both laws


@dataclass(frozen=True)
class Plan:
    """A model and its training: granularity G means 64·G experts, G of them for a token. Dense: granularity 0.

    active and total are parameters without embeddings, loss is the law's, in nats per token.
    """

    flops: float
    granularity: int
    active: float
    total: float
    tokens: float
    loss: float


def moe_loss(total: float, tokens: float, granularity: int) -> float:
    """L(N, D, G) = c + (g / G^γ + a) / N^α + b / D^β with N = total parameters; γ = 0.58, g = 2.1 (their table 1)."""
    return CONSTANT + (2.1 / granularity**0.58 + 18.1) / total**0.115 + 30.8 / tokens**0.147


def dense_loss(params: float, tokens: float) -> float:
    """L(N, D) = c + a / N^α + b / D^β, fitted to dense models of the same kind."""
    return CONSTANT + 16.3 / params**0.126 + 26.7 / tokens**0.127


def best_plan(flops: float, granularity: int | None = None, dense: bool = False) -> Plan:
    """The plan with the lowest loss for a number of training FLOPs; without `granularity`, with the best granularity.

    Raises ValueError for a budget or granularity that is not positive.
    """
    if not flops > 0 or (granularity is not None and granularity < 1):
        raise ValueError(f"flops and granularity must be positive, got {flops} and {granularity}")
    if dense:
        return _best_size(flops, 0)
    choices = GRANULARITIES if granularity is None else (granularity,)
    return min((_best_size(flops, choice) for choice in choices), key=lambda plan: plan.loss)


def dense_equivalent(plan: Plan) -> float:
    """The training FLOPs at which the best dense model reaches the plan's loss."""
    reached = _lowest(lambda x: abs(best_plan(math.exp(x), dense=True).loss - plan.loss), 20.0, 100.0)
    return math.exp(reached)


def budget_table(budgets: tuple[float, ...] = (3e18, 1e20, 1e22, 1e24)) -> str:
    """Best dense and MoE plans for budgets of training FLOPs, as text."""
    head = (
        "FLOPs",
        "",
        "G",
        "experts",
        "a token",
        "active",
        "total",
        "tokens",
        "tokens/active",
        "loss",
        "dense would need",
    )
    rows: list[tuple[str, ...]] = [head]
    for budget in budgets:
        for plan in (best_plan(budget, dense=True), best_plan(budget)):
            experts = (str(plan.granularity), str(EXPANSION * plan.granularity), str(plan.granularity))
            rows.append(
                (
                    f"{budget:.0e}".replace("e+", "e") if plan.granularity == 0 else "",
                    "MoE" if plan.granularity else "dense",
                    *(experts if plan.granularity else ("", "", "")),
                    *(_short(number) for number in (plan.active, plan.total, plan.tokens)),
                    f"{plan.tokens / plan.active:.0f}",
                    f"{plan.loss:.2f}",
                    f"{dense_equivalent(plan) / budget:.0f} times" if plan.granularity else "",
                )
            )
    return text_table(rows, left=())


def _best_size(flops: float, granularity: int) -> Plan:
    """The best number of blocks for the budget. As blocks are added the loss first falls and then rises."""

    def plan(log_blocks: float) -> Plan:
        return _plan(flops, granularity, math.exp(log_blocks))

    return plan(_lowest(lambda x: plan(x).loss, math.log(0.5), math.log(5000)))


def _plan(flops: float, granularity: int, blocks: float) -> Plan:
    """The model with this many blocks, trained until the budget is used (section 5: FLOPs per token and block)."""
    width = WIDTH_PER_BLOCK * blocks
    active = 12 * width**2 * blocks  # attention 4 D², FFN 8 D²
    total = (4 + 8 * (EXPANSION if granularity else 1)) * width**2 * blocks
    router = width * EXPANSION * granularity * blocks
    tokens = flops / (6 * active + ROUTING_COST * router)
    loss = moe_loss(total, tokens, granularity) if granularity else dense_loss(total, tokens)
    return Plan(flops, granularity, active, total, tokens, loss)


def _lowest(f: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that first falls and then rises between low and high is lowest, by ternary search."""
    while high - low > 1e-5:
        third = (high - low) / 3
        if f(low + third) < f(high - third):
            high -= third
        else:
            low += third
    return (low + high) / 2


def _short(number: float) -> str:
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"
