"""The scaling law of fine-grained MoE: what the paper's authors get out of it, we get too."""

import math

import pytest

from moe_course.systems.scaling import best_plan, budget_table, dense_equivalent, dense_loss, moe_loss

# Krajewski et al. 2024, arXiv 2402.07871, table 2: active parameters, granularity, tokens, FLOPs
PUBLISHED = [
    (100e6, 8, 4.37e9, 2.95e18),
    (1e9, 16, 28.94e9, 1.93e20),
    (7e9, 32, 137.6e9, 6.46e21),
    (1e12, 64, 7.94e12, 4.97e25),
]


@pytest.mark.parametrize(("active", "granularity", "tokens", "flops"), PUBLISHED)
def test_the_best_plan_is_the_published_one(active, granularity, tokens, flops):
    """To the rounding of the constants, of which the paper gives two or three digits."""
    plan = best_plan(flops)
    assert plan.granularity == granularity
    assert plan.active == pytest.approx(active, rel=0.05)
    assert plan.tokens == pytest.approx(tokens, rel=0.04)


@pytest.mark.parametrize(("flops", "loss"), [(6.46e21, 2.076), (4.97e25, 1.367)])
def test_its_loss_is_the_published_one(flops, loss):
    assert best_plan(flops).loss == pytest.approx(loss, abs=0.02)


def test_the_laws_by_hand():
    """With powers of 2: 4^0.58 = 2^1.16, N^0.115 = 2^4.6 and D^0.147 = 2^4.41; 2^3.78 and 2^5.08 in the dense law."""
    moe = 0.47 + (2.1 / 2**1.16 + 18.1) / 2**4.6 + 30.8 / 2**4.41
    assert moe_loss(2.0**40, 2.0**30, 4) == pytest.approx(moe, rel=1e-12)
    assert dense_loss(2.0**30, 2.0**40) == pytest.approx(0.47 + 16.3 / 2**3.78 + 26.7 / 2**5.08, rel=1e-12)


def test_a_plan_spends_its_budget_and_no_neighbour_is_better():
    plan = best_plan(1e20, granularity=8)
    width = (plan.active * 64 / 12) ** (1 / 3)
    router = width * 64 * 8 * (width / 64)
    assert (6 * plan.active + 14 * router) * plan.tokens == pytest.approx(1e20, rel=1e-9)
    for granularity in (1, 2, 4, 16, 32):
        assert best_plan(1e20, granularity).loss >= best_plan(1e20).loss


@pytest.mark.parametrize(("flops", "times", "least"), [(1e20, 20, 18), (1e25, 40, 30)])
def test_dense_models_need_many_times_the_budget(flops, times, least):
    """The paper's figures: about 20 times at 1e20 FLOPs, and a factor that grows to about 40 by 1e25."""
    factor = dense_equivalent(best_plan(flops)) / flops
    assert least < factor < 1.15 * times


@pytest.mark.parametrize(
    "bad", [{"flops": 0}, {"flops": -1e20}, {"flops": math.nan}, {"flops": 1e20, "granularity": 0}]
)
def test_bad_budgets_are_refused(bad):
    with pytest.raises(ValueError, match="must be positive"):
        best_plan(**bad)


def test_the_table_shows_what_the_plans_say():
    lines = budget_table((1e20,)).splitlines()
    plan = best_plan(1e20)
    assert len(lines) == 3
    assert lines[2].split()[:3] == ["MoE", str(plan.granularity), str(64 * plan.granularity)]
    assert lines[2].split()[-3] == f"{plan.loss:.2f}"
