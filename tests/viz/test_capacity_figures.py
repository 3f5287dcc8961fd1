"""Figures of capacity say in their titles what their data say."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch

from moe_course import viz
from moe_course.moe.capacity import drop_and_waste, expert_capacity, positions_in_expert
from moe_course.viz import capacity, interact


@pytest.fixture(autouse=True)
def style():
    viz.use_style()
    yield
    plt.close("all")


def titles(figure):
    return " ".join(ax.get_title(loc="left") for ax in figure.axes).replace("\n", " ")


def run(loss, dropped_T):
    rate = float(torch.tensor(dropped_T).mean())
    return SimpleNamespace(
        loss=[loss] * 20, final_loss=loss, dropped_T=torch.tensor(dropped_T), drop_rate=rate
    )


RUNS = {
    "no limit": [run(0.5, [0.0] * 24), run(0.7, [0.0] * 24)],
    "factor 1": [run(1.5, [0.0] * 12 + [0.5] * 12), run(1.0, [0.0] * 12 + [0.3] * 12)],
}
IDX_TK = torch.tensor([[0, 1], [0, 2], [1, 2], [1, 0], [0, 1], [0, 1]])


def figures():
    measured = {"K = 1": {"dropped": torch.tensor([[0.2, 0.05]]), "empty": torch.tensor([[0.0, 0.25]])}}
    return {
        "symptom": (
            viz.capacity_symptom(RUNS),
            "Final loss 1.25 with factor 1, 0.60 with no limit "
            "With factor 1: 0% of the first lines are dropped, 40% of the last",
        ),
        "symptom of another": (
            viz.capacity_symptom(RUNS, focus="no limit"),
            "no limit: 0% of the first lines",
        ),
        "drops": (viz.loss_against_drops(RUNS), "correlate by 0.97 over 4 runs"),
        "queues": (
            viz.queues(positions_in_expert(IDX_TK, 4), IDX_TK, 3, 4, title="Choice-major"),
            "Choice-major: 4 of 12 dropped",
        ),
        "dropped_by": (
            viz.dropped_by({"choice": {"a": [0.1, 0.4], "b": [0.2, 0.3]}}, {"choice": ["first", "second"]}),
            "a: 10% to 40% dropped",
        ),
        "overflow": (
            viz.overflow_curves([1.0, 1.25], measured, {"K = 1": [0.2, 0.05]}, {"K = 1": 0.2}),
            "factor 1: 20.00% dropped Factor 1.25: 25% of the slots empty",
        ),
        "leaks": (
            viz.leak_table({"x": {"q": True, "r": False}, "y": {"q": True, "r": True}}),
            "2, 1 of 2 layers leak",
        ),
    }


def test_every_title_states_what_the_data_say():
    for name, (figure, claim) in figures().items():
        assert claim in titles(figure), (name, titles(figure))
        assert figure.get_figwidth() <= 8, name
        for ax in figure.axes:
            assert ax.get_xlabel(), name


def test_the_queue_shows_every_assignment_in_its_place():
    figure = viz.queues(positions_in_expert(IDX_TK, 4), IDX_TK, 3, 4)
    texts = {
        (round(x.get_position()[0]), int(x.get_position()[1])): x.get_text() for x in figure.axes[0].texts
    }
    assert len(texts) == 12
    assert texts[0, 0] == "0 · 1st"
    assert texts[1, 4] == "5 · 2nd"


def test_the_explorer_calls_the_learners_functions(monkeypatch):
    asked, shown = [], []

    def my_capacity(*sizes):
        asked.append(sizes)
        return expert_capacity(*sizes)

    def my_shares(*args):
        asked.append(args[1:])
        return drop_and_waste(*args)

    monkeypatch.setenv("MOE_COURSE_STATIC", "1")
    monkeypatch.setattr(interact, "show", lambda figure, alt: shown.append((titles(figure), alt)))
    capacity.capacity_explorer(my_capacity, my_shares, tokens=64, experts=4)
    assert asked == [(64, 4, 2, 1.0), (4, 32)]
    assert "Factor 1:" in shown[0][0]
    assert "room for 32" in shown[0][1]
