"""What the notebook and docs/results.md say of the recorded runs."""

from itertools import pairwise
from pathlib import Path

import pytest

from moe_course.lm.experiment import results_page, study
from moe_course.lm.experiment.paired import paired
from moe_course.lm.experiment.recipe import ARMS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def main():
    return study.by_arm(study.recorded("main").values())


KINDS = ("tune", "main", "clock", "vary")
DECIDING = ("rate", "whole", "arm", "time", "change")


def test_every_run_has_its_record():
    """Of the first experiment; the one that shall decide is recorded as its runs end."""
    recorded = {name for kind in KINDS for name in study.recorded(kind)}
    assert recorded == set(study.recipes()) - set(study.deciding_recipes())


def test_the_rates_are_those_that_the_registered_rule_chooses():
    def loss(name):
        return study.recorded(name.partition("-")[0])[name]["curve"][-1]["held_out_ce"]

    for arm, rates in study.WHOLE_RATES.items():
        best = min(study.MUON_RATES, key=lambda rate: loss(f"rate-{arm}-{rate:g}"))
        assert rates == (best, best / 2)
    for arm, rate in study.CHOSEN.items():
        assert rate == min(study.WHOLE_RATES[arm], key=lambda rate: loss(f"whole-{arm}-{rate:g}"))


def test_the_page_is_that_of_the_records():
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == results_page.markdown()


def test_all_runs_saw_one_text_and_seeds_their_own_batches(main):
    records = [r for kind in (*KINDS, *DECIDING) for r in study.recorded(kind).values()]
    assert len({record["corpus"] for record in records}) == 1
    for results in main.values():
        assert [result["recipe"]["plan"]["seed"] for result in results] == [*study.SEEDS]
        assert len({result["ce"] for result in results}) == len(results)


def test_the_learning_rate_is_each_arms_best_or_within_a_hundredth_of_it(main):
    tried = study.by_arm(study.recorded("tune").values())
    for arm in ARMS:
        steps = main[arm][0]["recipe"]["plan"]["steps"]
        losses = [r["ce"] for r in tried[arm] if r["recipe"]["plan"]["steps"] == steps]
        assert main[arm][0]["ce"] < losses[0] + 0.01


def test_the_higher_rate_would_have_misled(main):
    """Notebook 07 says so of the first seed."""
    tried = study.by_arm(study.recorded("tune").values())
    high, chosen = ({arm: runs[arm][0]["ce"] for arm in ARMS} for runs in (tried, main))
    assert high["dense-total"] > high["dense-active"]
    assert chosen["dense-total"] < chosen["dense-active"]
    assert high["dense-total"] - high["moe"] > 2 * (chosen["dense-total"] - chosen["moe"])


def test_notebook_07_reads_the_gaps_as_they_are(main):
    assert min(study.gaps(main["dense-active"], main["moe"])) > 0
    assert min(study.gaps(main["dense-active"], main["dense-total"])) > 0
    against_total = study.gaps(main["dense-total"], main["moe"])
    assert sum(gap < 0 for gap in against_total) == 1
    dense = max(study.spread(main["dense-active"]), study.spread(main["dense-total"]))
    assert study.spread(main["moe"]) > 3 * dense


def test_by_the_clock_the_mixture_loses(main):
    clock = list(study.recorded("clock").values())
    assert max(study.gaps(main["dense-active"], clock)) < 0
    for long, short in zip(main["dense-active"], clock, strict=True):
        assert short["curve"][-1]["cpu_seconds"] < long["curve"][-1]["cpu_seconds"]


def test_nobody_knows_the_facts(main):
    """458 guesses among four: three standard deviations are six points."""
    assert all(abs(result["recall"] - 0.25) < 0.061 for results in main.values() for result in results)


def test_seeds_differ_more_than_most_changes(main):
    vary = study.by_arm(study.recorded("vary").values())
    band = [result["ce"] for result in vary.pop("moe")]
    inside = sum(min(band) <= results[0]["ce"] <= max(band) for results in vary.values())
    assert inside > len(vary) / 2
    violation = {
        name: max(max(load) * len(load) - 1 for load in results[0]["curve"][-1]["load_LE"])
        for name, results in vary.items()
    }
    assert max(violation, key=violation.__getitem__) == "no balancing"


def test_curves_go_on_to_the_last_step(main):
    for arm in ARMS:
        for result in main[arm]:
            curve = result["curve"]
            assert curve[-1]["step"] == result["recipe"]["plan"]["steps"] - 1
            assert all(a["cpu_seconds"] < b["cpu_seconds"] for a, b in pairwise(curve))
            assert curve[-1]["held_out_ce"] < curve[0]["held_out_ce"] - 1


def test_notebook_07_reads_the_registered_experiment_as_it_is():
    five = study.by_arm(study.recorded("arm").values())
    seeds = {arm: [result["recipe"]["plan"]["seed"] for result in results] for arm, results in five.items()}
    assert all(found == [*study.FIVE_SEEDS] for found in seeds.values())
    for dense in ("dense-active", "dense-total"):
        gap = paired(five[dense], five["moe"])
        assert gap.decided
        assert gap.mean > 0
    assert not paired(five["dense-active"], five["dense-total"]).decided
    assert set(study.CHOSEN.values()) == {max(study.MUON_RATES)}
    guessing = 0.25 + 3 * (0.25 * 0.75 / 458) ** 0.5
    assert all(result["recall"] > guessing for results in five.values() for result in results)
