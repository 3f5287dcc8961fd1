"""The collapse lab's claims, on every one of three seeds, at the settings of notebook 04."""

import pytest
import torch

from moe_course.lesson import collapse
from moe_course.lesson.collapse import Arm, CollapseConfig
from moe_course.moe import biased_top_k, expert_choice, load_balancing_loss, update_bias

SEEDS = (0, 1, 2)
SHORT = CollapseConfig(steps=6)


def with_loss(weight, **more):
    return Arm(extra_loss=lambda z, idx: weight * load_balancing_loss(z.softmax(dim=1), idx), **more)


BIAS = Arm(
    select=lambda probs_TE, bias_E: biased_top_k(probs_TE, bias_E, 1)[1],
    update=lambda bias_E, counts_E: update_bias(bias_E, counts_E, 0.02),
)


@pytest.fixture(scope="module")
def lab():
    arms = {
        "no help": Arm(),
        "aux loss": with_loss(0.1),
        "bias": BIAS,
        "renormalised": with_loss(0.1, renormalize=True),
        "hash": Arm(fixed="hash"),
        "subject": Arm(fixed="subject"),
    }
    config = CollapseConfig(steps=400)
    return {name: collapse.train(arm, SEEDS, config) for name, arm in arms.items()}


def test_without_help_experts_die_on_every_seed(lab):
    """Dead: under a tenth of the fair load. Twelve seeds gave 2 to 6 of 8."""
    assert (lab["no help"].dead >= 1).all()
    assert (lab["no help"].final_violation > 1).all()
    assert (lab["no help"].violation[:, -50:].mean(dim=1) > 1).all()


def test_collapse_is_paid_for_in_task_loss_on_every_seed(lab):
    harmed = lab["no help"].final_loss
    assert (harmed > 10 * lab["subject"].final_loss).all()
    assert (harmed > 1.5 * lab["aux loss"].final_loss).all()
    assert (harmed > 4 * lab["bias"].final_loss).all()


def test_experts_with_room_cover_up_most_of_it(lab):
    """They die all the same; against a perfect router the loss is still many times as high, if one had it to see."""
    rich = collapse.train(Arm(hidden=64), SEEDS, CollapseConfig(steps=400))
    perfect = collapse.train(Arm(hidden=64, fixed="subject"), SEEDS, CollapseConfig(steps=400))
    assert (rich.dead >= 1).all()
    assert (rich.final_loss < 0.5 * lab["no help"].final_loss).all()
    assert (rich.final_loss > 5 * perfect.final_loss).all()


@pytest.mark.parametrize("rescue", ["aux loss", "bias"])
def test_rescued_on_every_seed(lab, rescue):
    runs = lab[rescue]
    assert (runs.dead == 0).all()
    assert (runs.final_violation < 0.6).all()
    assert (runs.violation[:, -50:].mean(dim=1) < 0.6).all()


def test_a_collapsed_router_is_no_better_than_a_table_drawn_by_lot(lab):
    assert (lab["no help"].final_loss > 0.6 * lab["hash"].final_loss).all()
    assert (lab["bias"].final_loss < 0.3 * lab["hash"].final_loss).all()


def test_the_offset_starts_the_collapse():
    """Eight seeds: without it few experts die, and a router on its own beats the hash; with it half of them do."""
    alone, by_hash = (
        [collapse.train(arm, range(8), CollapseConfig(steps=400, offset=offset)) for offset in (0.0, 1.0)]
        for arm in (Arm(), Arm(fixed="hash"))
    )
    without, pushed = (
        (one.final_loss < lot.final_loss).sum() for one, lot in zip(alone, by_hash, strict=True)
    )
    assert (alone[0].dead <= 3).all()
    assert 1 <= alone[0].dead.float().mean() <= 2
    assert (alone[1].dead >= 3).all()
    assert alone[1].dead.float().mean() >= 4
    assert (int(without), int(pushed)) == (8, 2)


def test_balanced_and_useless(lab):
    """Renormalised top-1 with a balancing loss: nobody is dead, and it does no better than routing by lot."""
    runs = lab["renormalised"]
    assert (runs.dead == 0).all()
    assert (runs.violation[:, -50:].mean(dim=1) < 0.8).all()
    assert (runs.final_loss > 0.8 * lab["hash"].final_loss).all()
    assert (runs.final_loss > 4 * lab["bias"].final_loss).all()


def test_entropy_does_not_tell_collapse_from_rescue(lab):
    """The collapsed router is about as sure as the rescued one."""
    gap = (lab["no help"].final_entropy - lab["bias"].final_entropy).abs()
    assert (gap < 0.5).all()


def test_expert_choice_is_even_and_may_leave_points_alone():
    runs = collapse.train(Arm(expert_choice=lambda p: expert_choice(p, 32)), SEEDS, CollapseConfig(steps=60))
    assert torch.equal(runs.load, torch.full_like(runs.load, 1 / 8))
    assert (runs.final_violation == 0).all()
    assert (runs.unserved > 0).all()


def test_a_seed_is_the_same_alone_and_in_company():
    together, alone = collapse.train(BIAS, SEEDS, SHORT), collapse.train(BIAS, (1,), SHORT)
    torch.testing.assert_close(together.task_loss[1], alone.task_loss[0])
    assert together.final_loss.shape == (3,)


def test_a_seed_repeats_a_run():
    first, second = (collapse.train(Arm(noise=1.0), (3,), SHORT) for _ in range(2))
    assert torch.equal(first.task_loss, second.task_loss)


def test_arms_of_one_seed_share_problem_and_start():
    plain, biased = (collapse.train(arm, SEEDS, SHORT) for arm in (Arm(), BIAS))
    assert torch.equal(plain.load[:, 0], biased.load[:, 0])
    assert torch.equal(plain.task_loss[:, 0], biased.task_loss[:, 0])


def test_frozen_routings_stay():
    for fixed in collapse.FIXED:
        short, longer = (collapse.train(Arm(fixed=fixed), SEEDS, CollapseConfig(steps=n)) for n in (5, 10))
        assert torch.equal(short.load, longer.load[:, :5])


def test_shapes_and_shares():
    runs = collapse.train(Arm(), SEEDS, SHORT)
    assert (
        runs.task_loss.shape
        == runs.entropy.shape
        == runs.violation.shape
        == runs.dead_by_step.shape
        == (3, 6)
    )
    assert runs.load.shape == (3, 6, 8)
    torch.testing.assert_close(runs.load.sum(dim=-1), torch.ones(3, 6))


def test_dead_by_step_looks_back_25_steps():
    """An expert that worked until step 29 is dead once 25 steps hold nothing of it but a tenth of its share."""
    load = torch.full((1, 60, 4), 0.25)
    load[:, 30:] = torch.tensor([0.0, 1 / 3, 1 / 3, 1 / 3])
    runs = collapse.train(Arm(), (0,), SHORT)
    fields = {name: getattr(runs, name) for name in runs.__dataclass_fields__} | {"load": load}
    dead = collapse.CollapseRuns(**fields).dead_by_step[0]
    assert dead[:50].sum() == 0
    assert dead[55:].tolist() == [1] * 5


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="steps must be positive, got 0"):
        CollapseConfig(steps=0)
    with pytest.raises(ValueError, match=r"30 points.*8 subjects"):
        CollapseConfig(points=30)
    with pytest.raises(ValueError, match="'lot'"):
        Arm(fixed="lot")


def test_a_hidden_layer_has_no_negative_width():
    with pytest.raises(ValueError, match="hidden must not be negative, got -1"):
        Arm(hidden=-1)
