"""Figures of notebook 09 say in their titles what their data say."""

import matplotlib.pyplot as plt
import pytest
import torch

from moe_course import viz
from moe_course.lesson.ranks import Split
from moe_course.viz import interact


@pytest.fixture(autouse=True)
def style():
    viz.use_style()
    yield
    plt.close("all")


def titles(figure):
    return [ax.get_title(loc="left") for ax in figure.axes]


def test_who_waits():
    splits = [Split(6.0, 1.0, 1.0, 30), Split(2.0, 1.0, 5.0, 10)]
    assert titles(viz.rank_split({"in blocks": splits, "turned": splits[::-1]})) == [
        "in blocks: rank 1 waits 62%",
        "turned: rank 0 waits 62%",
    ]


def test_the_error_of_a_model():
    (title,) = titles(viz.model_check([1.0, 2.0, 4.0], [1.1, 2.0, 3.0]))
    assert title == "Off by 10% in the median, by 25% at worst"


def test_which_counts_exceed_the_card():
    lines = {"all": [98.0, 40.0], "leaves": [83.0, 41.0], "node": [0.0, 38.0]}
    assert titles(viz.bandwidths([8, 64], lines, card=50)) == ["2 of 3 counts of the bytes exceed the card"]


def test_what_leaves_its_rank():
    assert titles(viz.sent_rows(torch.tensor([[3, 1], [0, 4]]))) == ["12% of the rows leave their rank"]


def test_the_speed_up_and_its_largest_part(monkeypatch):
    monkeypatch.setenv("MOE_COURSE_STATIC", "1")
    shown = []
    monkeypatch.setattr(interact, "show", lambda figure, alt: shown.append((titles(figure), alt)))

    def seconds(ranks, skew, bandwidth):
        parts = {"compute": 1 / ranks, "transfer": skew + 1e9 / bandwidth}
        return sum(parts.values()), parts

    viz.speed_up_explorer(seconds, [1, 2, 4])
    one, two = 1 + 1 / 50, 0.5 + 0.5 + 1 / 50
    assert shown[0][0] == [f"2 ranks are {one / two:.3g} times as fast as one", "Most of it is transfer"]
    assert "50 GB/s" in shown[0][1]
