"""The figures of notebook 10: titles say what the numbers say."""

import matplotlib.pyplot as plt
import pytest

from moe_course.viz import serving


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


def titles(figure):
    return [ax.get_title(loc="left") or ax.get_title() for ax in figure.axes]


def test_the_title_names_the_widest_gap():
    figure = serving.distinct_curves([1, 2, 4], {"most": [2, 4, 8], "used": [2, 3, 5]}, 8, dashed=("most",))
    assert titles(figure) == ["Batch 4: most 8.0, used 5.0"]


def test_where_arithmetic_takes_over():
    figure = serving.step_times([1, 2, 4], [3, 3, 3], [1, 2, 4], "m")
    assert titles(figure) == ["m: arithmetic takes longer from batch 4 on"]
    assert titles(serving.step_times([1, 2], [3, 3], [1, 2], "m")) == ["m: reading always takes longer"]


def test_equal_dense_names_the_worst():
    figure = serving.equal_dense([1, 2], {"GPU": [13e9, 45e9]}, {"rival": 70e9}, 13e9, 47e9)
    assert titles(figure) == ["Serves like 13B dense at first, like 45B at worst"]


def test_shares_of_the_bound():
    assert titles(serving.bound_bars([("a", 0.03), ("b", 0.55)])) == [
        "Single streams reach 3 to 55 % of the bound"
    ]


def test_speeds_hit_rates_and_tails():
    figure = serving.decode_speeds([1, 4], {"moe": [1, 9], "dense-active": [2, 5]})
    assert titles(figure) == ["Batch 4: moe leads", "The same, relative to dense-active"]
    figure = serving.hit_rates([2, 4], {"LRU": [0.2, 0.8], "LFU": [0.1, 0.7]}, [0.2, 0.4], 2)
    assert titles(figure) == ["One model, and hit rates from 10 to 80 %"]
    figure = serving.tails([1, 2], {"even": [[4, 4], [3, 4]]}, [4, 2])
    assert titles(figure) == ["The slowest of 2 ranks takes up to 2.0 times an even share"]


def test_batching_and_speculation():
    figure = serving.served({"slow": (10, 2, 3), "quick": (20, 1, 2)})
    assert titles(figure) == ["quick: most tokens", "quick: shortest wait"]
    figure = serving.speculation([1, 2], {"a": [1.1, 1.5], "b": [0.9, 0.8]})
    assert titles(figure) == ["At best 1.50 times as fast: a"]


def test_the_explorer_is_a_figure_where_nobody_can_move_a_slider(monkeypatch):
    monkeypatch.setenv("MOE_COURSE_STATIC", "1")
    asked = []

    def step(batch, top_k, bandwidth):
        asked.append((batch, top_k, bandwidth))
        return 5.0, 0.001, 0.002

    serving.serving_explorer(step, 2, 8)
    assert asked == [(16, 2, 3.35e12)]
