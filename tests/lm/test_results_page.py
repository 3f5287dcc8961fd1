"""The judgement that was registered for the experiment, on made-up results."""

import math

import pytest
import torch

from moe_course.lm.experiment import results_page, study
from moe_course.lm.experiment.paired import T_975, Paired, paired


@pytest.mark.parametrize("freedom", T_975)
def test_the_quantiles_are_those_of_students_t(freedom):
    """95 % of the distribution lie between them, by the trapezoidal rule."""
    t = torch.linspace(-1, 1, 200_001, dtype=torch.float64) * T_975[freedom]
    density = torch.distributions.StudentT(float(freedom)).log_prob(t).exp()
    assert torch.trapezoid(density, t).item() == pytest.approx(0.95, abs=2e-4)


def test_the_interval_is_that_of_the_mean():
    gap = Paired((0.1, 0.2, 0.3))
    assert gap.mean == pytest.approx(0.2)
    assert gap.half_width == pytest.approx(4.303 * 0.1 / math.sqrt(3))
    assert str(gap).startswith("+0.2000 ± 0.2484 (+0.1000, ")


@pytest.mark.parametrize(
    ("differences", "decided"),
    [
        ((0.10, 0.11, 0.12, 0.11, 0.10), True),
        ((-0.10, -0.11, -0.12, -0.11, -0.10), True),
        ((0.10, 0.11, 0.12, 0.11, -0.001), False),  # one sign differs
        ((0.5, 0.01, 0.01, 0.01, 0.01), False),  # the interval holds 0
        ((0.001, 0.1, 0.1, 0.1, -0.0001), False),
    ],
)
def test_better_means_an_interval_without_zero_and_equal_signs(differences, decided):
    assert Paired(differences).decided is decided


@pytest.mark.parametrize("seeds", [0, 1, 11])
def test_an_interval_without_a_quantile_is_refused_by_the_number_of_seeds(seeds):
    with pytest.raises(ValueError, match=f"2 to 10 seeds that both arms have, not {seeds}"):
        _ = Paired((0.1,) * seeds).half_width


def record(arm, seed, ce, seconds=100.0, steps=1000):
    plan = {"seed": seed, "steps": steps}
    params = {"active": 5, "total": 7}
    loads = [] if arm.startswith("dense") else [[0.5, 0.5], [0.75, 0.25]]
    return {
        "recipe": {"name": arm, "plan": plan}, "ce": ce, "recall": 0.25, "params": params,
        "curve": [{"cpu_seconds": seconds, "load_LE": loads, "drop_rate": 0.125}],
    }  # fmt: skip


def test_arms_are_compared_on_equal_seeds():
    dense = [record("dense-active", seed, 3.0 + seed) for seed in (2, 0, 1)]
    moe = [record("moe", seed, 2.9 + seed) for seed in (0, 1, 2)]
    gap = paired(dense, moe)
    assert gap.differences == pytest.approx((0.1, 0.1, 0.1))


def test_by_the_clock_the_tuning_runs_count_for_nothing():
    arms = {"moe": (2.9, 101.0, 870), "dense-active": (3.0, 100.0, 1000), "dense-total": (3.1, 99.0, 520)}
    runs = [
        record(f"{arm} by the clock", seed, ce + seed / 1000, seconds, steps)
        for arm, (ce, seconds, steps) in arms.items()
        for seed in study.SEEDS
    ]
    tuning = [record(f"{arm} by the clock", study.TUNING_SEED, 9.0, 500.0, 7) for arm in arms]
    page = results_page._time(study.by_arm(runs + tuning))
    rows = {tuple(cell.strip() for cell in line.split("|")[1:4]) for line in page.splitlines()}
    assert {
        ("moe", "870", "1.010"),
        ("dense-active", "1,000", "1.000"),
        ("dense-total", "520", "0.990"),
    } <= rows
    assert "moe lower than dense-active by +0.1000 ± 0.0000" in page
    assert page.count("**better**") == 2
    assert page.count("**worse**") == 1


def test_a_change_is_judged_against_the_same_seeds():
    losses = {
        "moe": (3.0, 3.1, 3.2),
        "top-4": (2.9, 3.0, 3.101),
        "top-1": (3.3, 3.4, 3.501),
        "2 experts": (3, 3, 4),
    }
    runs = [record(name, seed, ce) for name, of in losses.items() for seed, ce in enumerate(of)]
    page = results_page._changes(study.by_arm(runs))
    (*_, plain, first, second, third) = [line for line in page.splitlines() if line.startswith("|")]
    assert (first.split()[1], first.split()[-2]) == ("top-4", "lower")
    assert (second.split()[1:3], second.split()[-2]) == (["2", "experts"], "open")
    assert (third.split()[1], third.split()[-2]) == ("top-1", "higher")
    assert plain.replace(" ", "") == "|nothing|5|7|0.50|12.5|3.1000|||"


def test_a_dense_model_has_no_balance():
    runs = [record(name, seed, 3.0 + seed) for name in ("moe", "dense-active") for seed in (0, 1)]
    page = results_page._changes(study.by_arm(runs))
    assert "|dense-active|5|7|||3.5000|" in page.replace(" ", "")
