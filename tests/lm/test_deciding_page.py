"""The judgement that was registered for the deciding experiment, on made-up and on recorded results."""

import math

import pytest
import torch

from moe_course.lm.experiment import deciding_page, results_page, study
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


def record(arm, seed, ce):
    return {"recipe": {"name": arm, "plan": {"seed": seed}}, "ce": ce}


def test_arms_are_compared_on_equal_seeds():
    dense = [record("dense-active", seed, 3.0 + seed) for seed in (2, 0, 1)]
    moe = [record("moe", seed, 2.9 + seed) for seed in (0, 1, 2)]
    gap = paired(dense, moe)
    assert gap.differences == pytest.approx((0.1, 0.1, 0.1))


def test_a_section_appears_only_when_all_its_runs_are_recorded():
    page = deciding_page.markdown()
    for kind, title in (("arm", "### Its arms"), ("time", "### In equal"), ("change", "### One thing")):
        names = {name for name in study.deciding_recipes() if name.startswith(f"{kind}-")}
        assert (title in page) == bool(names and names == set(study.recorded(kind)))
    assert results_page.markdown().endswith(page)
