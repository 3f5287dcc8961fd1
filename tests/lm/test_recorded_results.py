"""What the notebook and docs/results.md say of the recorded runs."""

from itertools import pairwise
from pathlib import Path
from statistics import mean

import pytest

from moe_course.lm.experiment import results_page, study
from moe_course.lm.experiment.paired import paired
from moe_course.lm.experiment.recipe import ARMS

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("rate", "whole", "arm", "time", "change")


@pytest.fixture(scope="module")
def five():
    return study.by_arm(study.recorded("arm").values())


@pytest.fixture(scope="module")
def race():
    return study.raced(study.by_arm(study.recorded("time").values()))


@pytest.fixture(scope="module")
def effects():
    """How much each change lowers the loss of the mixture."""
    runs = study.by_arm(study.recorded("change").values())
    plain = runs.pop("moe")
    return {name: paired(plain, results) for name, results in runs.items()}


def held_out(name):
    return study.recorded(name.partition("-")[0])[name]["curve"][-1]["held_out_ce"]


def test_every_run_has_its_record_and_no_record_is_left_over():
    recorded = {name for kind in KINDS for name in study.recorded(kind)}
    assert recorded == {*study.recipes()}
    assert recorded == {path.stem for path in study.RECORDED.glob("*.json")}


def test_the_rates_are_those_that_the_registered_rule_chooses():
    for arm, rates in study.WHOLE_RATES.items():
        best = min(study.RATES, key=lambda rate: held_out(f"rate-{arm}-{rate:g}"))
        assert rates == (best, best / 2)
        assert study.CHOSEN[arm] == min(rates, key=lambda rate: held_out(f"whole-{arm}-{rate:g}"))
        if arm != "dense-active":
            tried = {rate: held_out(f"time-{arm}-{study.TUNING_SEED}-{rate:g}") for rate in rates}
            assert study.CHOSEN_FOR_TIME[arm] == min(tried, key=tried.__getitem__)
    assert study.CHOSEN_FOR_TIME["dense-active"] == study.CHOSEN["dense-active"]


def test_the_page_is_that_of_the_records():
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == results_page.markdown()


def test_all_runs_saw_one_text_and_seeds_their_own_batches(five, race):
    records = [r for kind in KINDS for r in study.recorded(kind).values()]
    assert len({record["corpus"] for record in records}) == 1
    for results in (*five.values(), *race.values()):
        assert [result["recipe"]["plan"]["seed"] for result in results] == [*study.SEEDS]
        assert len({result["ce"] for result in results}) == len(results)


def test_curves_go_on_to_the_last_step(five):
    for results in five.values():
        for result in results:
            curve = result["curve"]
            assert curve[-1]["step"] == result["recipe"]["plan"]["steps"] - 1
            assert all(a["cpu_seconds"] < b["cpu_seconds"] for a, b in pairwise(curve))
            assert curve[-1]["held_out_ce"] < curve[0]["held_out_ce"] - 1


def test_the_mixture_is_below_both_dense_models_and_they_are_level(five):
    for dense in ("dense-active", "dense-total"):
        gap = paired(five[dense], five["moe"])
        assert gap.decided
        assert gap.mean > 0
    assert not paired(five["dense-active"], five["dense-total"]).decided
    assert set(study.CHOSEN.values()) == {max(study.RATES)}


def test_by_the_clock_it_is_level_with_dense_active_and_dense_total_is_far_behind(race):
    seconds = {arm: mean(run["curve"][-1]["cpu_seconds"] for run in runs) for arm, runs in race.items()}
    assert all(0.95 < taken / seconds["dense-active"] < 1.01 for taken in seconds.values())
    level = paired(race["dense-active"], race["moe"])
    assert not level.decided
    assert abs(level.mean) < 0.03
    for arm in ("moe", "dense-active"):
        far = paired(race["dense-total"], race[arm])
        assert far.decided
        assert far.mean > 0.3


def test_facts(five):
    guessing = 0.25 + 3 * (0.25 * 0.75 / 458) ** 0.5
    assert all(result["recall"] > guessing for results in five.values() for result in results)
    above_total = paired(five["moe"], five["dense-total"], "recall")
    assert above_total.decided
    assert above_total.mean > 0
    assert not paired(five["moe"], five["dense-active"], "recall").decided


def test_one_rate_for_all_would_have_misled():
    low, best = (
        {arm: held_out(f"rate-{arm}-{rate:g}") for arm in ARMS}
        for rate in (min(study.RATES), max(study.RATES))
    )
    assert min(low, key=low.__getitem__) == "dense-total"
    assert best["moe"] < best["dense-total"] - 0.1
    assert best["dense-total"] == pytest.approx(best["dense-active"], abs=0.01)


def test_the_shared_expert_is_worse_beside_half_experts_without_one_on_every_seed():
    runs = study.by_arm(study.recorded("change").values())
    lower = paired(runs["15 half experts, top-3, one shared"], runs["16 half experts, top-4"])
    assert (round(lower.mean, 3), round(lower.half_width, 3)) == (0.108, 0.068)
    assert min(lower.differences) > 0


def test_the_mixture_gains_on_every_seed_on_code_technical_prose_and_names_and_not_on_facts(five):
    pairs = list(zip(five["dense-active"], five["moe"], strict=True))
    sure = {
        domain
        for domain in five["moe"][0]["by_domain"]
        if all(base["by_domain"][domain]["bpb"] > run["by_domain"][domain]["bpb"] for base, run in pairs)
    }
    assert sure == {"code", "technical", "names"}


def test_six_changes_are_decided_and_all_to_the_worse(effects):
    decided = {name for name, gap in effects.items() if gap.decided}
    shared = "15 half experts, top-3, one shared"
    assert decided == {"no balancing", "frozen routing", "capacity factor 1", shared, "dense-active", "AdamW"}
    assert len(effects) == 13
    assert all(effects[name].mean < 0 for name in decided)
    runs = study.by_arm(study.recorded("change").values())
    uneven = {
        name: mean(results_page.worst_violation(run["curve"][-1]) for run in results)
        for name, results in runs.items()
        if name != "dense-active"
    }
    assert max(uneven, key=uneven.__getitem__) == "no balancing"
