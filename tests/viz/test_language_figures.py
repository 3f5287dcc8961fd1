"""Figures of notebook 07 say in their titles what their data say."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch

from moe_course import viz
from moe_course.lm import sample_next
from moe_course.viz import interact, language


@pytest.fixture(autouse=True)
def style():
    viz.use_style()
    yield
    plt.close("all")


def titles(figure):
    return " ".join(ax.get_title(loc="left") for ax in figure.axes)


def plan(power, loss, granularity=0):
    return SimpleNamespace(flops=10.0**power, loss=loss, granularity=granularity)


FALLING = {"light": [3.0, 2.0, 1.0], "heavy": [4.0, 3.5, 3.25]}
LOGITS_V = torch.tensor([2.0, 1.0, -30.0])


@pytest.mark.parametrize(
    ("turned", "claim"), [(False, "heavy ends 2.25 above light"), (True, "light ends 2.25 below")]
)
def test_the_last_curve_is_compared_with_the_first(turned, claim):
    curves = dict(reversed(FALLING.items())) if turned else FALLING
    assert claim in titles(viz.loss_curves(curves, "nats"))


def test_leaks_are_counted():
    causal_SS = torch.ones(4, 4).triu()  # row: the token that changes
    assert "No output hears of a later token" in titles(viz.influence(causal_SS))
    causal_SS[3, 0] = causal_SS[2, 1] = 1
    assert "2 outputs hear of a later token" in titles(viz.influence(causal_SS))


def test_the_schedule_is_read_from_its_numbers():
    figure = viz.schedules({"one": [1.0, 2.0, 4.0, 3.0, 1.0], "other": [1.0, 0.0]})
    assert "Up for 3 steps, then down to 25% of the peak" in titles(figure)


def test_the_two_units_name_their_own_extremes():
    claim = titles(viz.tokenizer_bars({"short": (2.0, 4.0), "long": (5.0, 3.0)}, reference=2.5))
    assert "long: most nats a token" in claim
    assert "long: fewest bits a byte" in claim


@pytest.mark.parametrize(("temperature", "drawn"), [(1.0, 2), (0.0, 1)])
def test_the_nucleus_counts_what_was_drawn(temperature, drawn):
    figure = viz.nucleus(sample_next, ["a", "b", "c"], LOGITS_V, temperature, top_p=1.0)
    assert f"{drawn} of 3 tokens are drawn" in titles(figure)


@pytest.mark.parametrize(("last", "claim"), [(16, "grows with"), (8, "does not grow with")])
def test_granularity_grows_or_does_not(last, claim):
    dense = [plan(18, 3.0), plan(20, 2.5)]
    assert claim in titles(viz.budget_curves(dense, [plan(18, 2.5, 8), plan(20, 2.0, last)]))


def test_the_explorer_has_a_still_for_readers(monkeypatch):
    shown = []
    monkeypatch.setenv("MOE_COURSE_STATIC", "1")
    monkeypatch.setattr(interact, "show", lambda figure, alt: shown.append((figure, alt)))
    language.nucleus_explorer(sample_next, ["a", "b", "c"], LOGITS_V)
    ((figure, alt),) = shown
    assert "top_p 0.85" in titles(figure)
    assert "300 draws" in alt
