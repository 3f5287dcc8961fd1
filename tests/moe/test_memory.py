"""The memory that the dispatches take: counted against sums made by hand, and the exponents that follow."""

import math

import pytest
import torch

from moe_course.moe import memory
from moe_course.moe.memory import Memory, fit, measure

D, F = 16, 24
FLOAT, INDEX = 4, 8  # bytes


def of(name, tokens=64, num_experts=4, top_k=2):
    (found,) = measure(((tokens,), (num_experts,), (top_k,)), (D, F), (name,))
    return found


def test_what_a_chain_of_operations_keeps_and_needs_at_most():
    n = 1000
    x = torch.rand(n)
    # exp keeps its result, and square its input, which is the same memory
    assert memory._count(lambda x: x.exp().square(), x)[0] == n * FLOAT
    # a result that nobody needs any more is free again before the next one
    assert memory._count(lambda x: ((x + 1) + 1) + 1, x) == (0, 2 * n * FLOAT)


def test_the_fused_dispatch_keeps_two_hidden_rows_and_one_index_for_each_assignment():
    assignments = 64 * 2
    assert of("fused").kept == assignments * (2 * F * FLOAT + INDEX)


def test_the_sorted_dispatch_keeps_the_rows_besides():
    assignments = 64 * 2
    rows = 2 * D * FLOAT  # the gathered tokens, and the answers in the order of the tokens
    hidden = 4 * F * FLOAT  # gate, its silu, up, and their product
    indices = of("sorted").kept - assignments * (rows + hidden)
    assert 0 < indices <= assignments * 4 * INDEX


def test_onehot_keeps_every_token_for_every_expert():
    kept = of("onehot").kept
    assert kept >= 4 * 64 * (4 * F + D) * FLOAT
    assert of("onehot", top_k=1).kept == pytest.approx(kept, rel=0.02)


@pytest.mark.parametrize("name", memory.NAMES)
def test_counts_repeat(name):
    assert of(name) == of(name)
    assert of(name).peak >= of(name).kept > 0


def test_the_fit_finds_the_exponents_of_a_power_law_and_says_how_far_off_it_is():
    sizes = [(t, e, k) for t in (10, 100) for e in (4, 8) for k in (1, 2)]
    exact = [Memory("", t, e, k, 3 * t**2 * e, t * k * k) for t, e, k in sizes]
    law = fit(exact, "kept")
    assert (law.t, law.e, law.k, law.off) == pytest.approx((2, 1, 0, 1))
    assert fit(exact, "peak").k == pytest.approx(2)
    bent = [Memory("", t, e, k, t + 50, 1) for t, e, k in sizes]
    assert fit(bent, "kept").t == pytest.approx(math.log10(150 / 60))
    bent[0] = Memory("", *sizes[0], 240, 1)
    assert fit(bent, "kept").off > 1.2


def test_how_memory_grows():
    grid = ((64, 256), (4, 8), (1, 2))
    laws = memory.exponents(measure(grid, (D, F)))
    for name in memory.NAMES:
        law = laws[name]["kept"]
        wanted = (1, 1, 0) if name == "onehot" else (1, 0, 1)
        assert (law["t"], law["e"], law["k"]) == pytest.approx(wanted, abs=0.06), name
