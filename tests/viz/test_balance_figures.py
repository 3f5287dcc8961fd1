"""The figures of notebook 04: titles say what the data say, and the sliders call the learner's arms."""

import matplotlib.pyplot as plt
import pytest
import torch

from moe_course import viz
from moe_course.lesson import collapse, tiny
from moe_course.moe import switch_gate
from moe_course.viz import balance


def titles(figure):
    return [ax.get_title(loc="left") or ax.get_title() for ax in figure.axes]


@pytest.fixture(autouse=True)
def style():
    viz.use_style()
    yield
    plt.close("all")


def runs(loss, load_E, entropy=1.0):
    """Two runs of a made-up arm that never changes: losses `loss` and 1.5 · `loss`."""
    final = torch.tensor([loss, 1.5 * loss])
    load = torch.tensor(load_E).expand(2, 30, len(load_E))
    return collapse.CollapseRuns(
        seeds=(0, 1),
        task_loss=final[:, None].expand(2, 30),
        load=load,
        entropy=torch.full((2, 30), entropy),
        final_loss=final,
        final_load=load[:, -1],
        final_entropy=torch.full((2,), entropy),
        unserved=torch.zeros(2),
    )


@pytest.fixture
def arms():
    return {"no help": runs(0.2, [0.99, 0.005, 0.005]), "bias": runs(0.01, [0.4, 0.3, 0.3], entropy=0.5)}


def test_curves_claim_what_the_arms_did(arms):
    figure = viz.collapse_curves(arms)
    loss, violation, entropy, dead = titles(figure)
    assert loss == "Task loss: no help 0.200, bias 0.010"
    assert violation == "1 of 2 end below 0.6 on every seed"
    assert entropy == "Bias is surest of its choice"
    assert dead == "No help loses 2 experts"
    assert figure.get_figwidth() <= 8


def test_nobody_dead(arms):
    loss, _, _, dead = titles(viz.collapse_curves({"bias": arms["bias"]}))
    assert (loss, dead) == ("Task loss: bias 0.010, the lowest of all", "No arm has dead experts in the end")
    panels = {"bias": arms["bias"].load[0]}
    assert viz.load_over_training(panels)._suptitle.get_text() == "No expert is dead in the end"


def test_small_multiples_count_the_dead(arms):
    figure = viz.load_over_training({name: arm.load[0] for name, arm in arms.items()})
    assert titles(figure) == ["no help: 2 dead", "bias: 0 dead"]
    assert figure._suptitle.get_text() == "1 of 2 end with dead experts; no help with 2"


def test_scores_compare_with_the_reference(arms):
    left, right = titles(viz.arm_scores(arms, reference="no help"))
    assert left == "1 of 1 beat no help on every seed"
    assert right == "1 have dead experts (hollow)"


def test_the_loss_figure_names_the_least_value():
    figure = viz.loss_against_load([0.0, 0.5, 1.0], {"sure": [2.0, 1.0, 2.0], "a hair": [1.8, 0.9, 1.1]})
    assert titles(figure) == ["Uniform routing gives 1, and 0.90 is possible"]


def test_tiny_loads_name_the_worst_seed():
    run = tiny.train(switch_gate, 0, tiny.TinyConfig(steps=12))
    violation = float(run.load_E.max() * 4 - 1)
    figure = viz.tiny_loads({"no help": [run, run]})
    assert figure._suptitle.get_text() == f"Largest max violation: no help {violation:.2f}"
    assert f"violation {violation:.2f}" in titles(figure)[1]


def test_the_explorer_trains_each_setting_once(arms, monkeypatch):
    monkeypatch.setenv("MOE_COURSE_STATIC", "1")
    asked, shown = [], []
    monkeypatch.setattr(
        "moe_course.viz.interact.show", lambda figure, alt: shown.append((titles(figure), alt))
    )

    def train(rate, weight):
        asked.append((rate, weight))
        return arms["bias" if rate else "no help"]

    viz.balance_explorer(train)
    assert asked == [(0.0, 0.0), (0.01, 0.0)]
    (left, right), alt = shown[0]
    assert left == "Max violation 0.20, 0 dead"
    assert right == "Task loss 0.010, without help 0.200"
    assert "0.01" in alt


def test_the_offset_explorer_counts_the_dead_and_the_seeds_that_win(arms, monkeypatch):
    monkeypatch.setenv("MOE_COURSE_STATIC", "1")
    asked, shown = [], []
    monkeypatch.setattr("moe_course.viz.interact.show", lambda figure, alt: shown.append(titles(figure)))

    def train(offset):
        asked.append(offset)
        return (arms["bias"], arms["no help"]) if offset == 0 else (arms["no help"], arms["bias"])

    viz.offset_explorer(train)
    assert asked == [0.0, 1.0]
    seeds, dead = len(arms["bias"].seeds), float(arms["no help"].dead.float().mean())
    assert shown == [
        [
            f"Offset 1: {dead:.1f} of {arms['bias'].load.shape[-1]} experts dead",
            f"The router beats a hash on 0 of {seeds} seeds",
        ]
    ]


def test_the_sliders_stand_at_a_setting_that_exists():
    assert 0.01 in balance.RATES
    assert balance.RATES[0] == balance.WEIGHTS[0] == 0
