"""Figures of specialisation say in their titles what their data say."""

import math

import matplotlib.pyplot as plt
import pytest
import torch

from moe_course import viz
from moe_course.viz import nulls


@pytest.fixture(autouse=True)
def style():
    viz.use_style()
    yield
    plt.close("all")


def words(figure):
    """All titles, in one line."""
    titles = [figure.get_suptitle(), *(ax.get_title(loc="left") for ax in figure.axes)]
    return " ".join(" ".join(titles).split())


SHARES = {
    "layer 0": torch.tensor([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2]]),
    "layer 1": torch.tensor([[0.1, 0.2, 0.7], [0.6, 0.2, 0.2]]),
}
NULL_R = torch.tensor([0.1, 0.2, 0.3])


def made():
    expected = {"layer 0": SHARES["layer 0"], "layer 1": SHARES["layer 1"].flip(0)}
    bars = {"domain": [(0.1, 0.0), (0.2, 0.0)], "token": [(0.5, 0.1), (0.9, 0.15)]}
    ratio_EE = torch.tensor([[0.0, 2.0, 0.5], [2.0, 0.0, 9.0], [0.5, 9.0, 0.0]])
    enough_EE = torch.tensor([[False, True, True], [True, False, False], [True, False, False]])
    deltas = {
        "layer 0": torch.tensor([[0.001, 0.0], [0.0, -0.002]]),
        "layer 1": torch.tensor([[0.0, 0.0], [0.0, 0.05]]),
    }
    halves = torch.tensor([[[0.1, 0.2, 0.3]]]), torch.tensor([[[0.3, 0.2, 0.1]]])
    return {
        "shares": (
            viz.share_tables(SHARES, ["code", "names"]),
            "Layer 1: expert 0 takes 60% of names, 10% of code",
        ),
        "token accounts": (
            viz.token_accounts(SHARES, expected, {"layer 0": 0.1, "layer 1": 0.6}, ["code", "names"]),
            "With the token taken off, 50 of 60 points are left in layer 1 Layer 0: 0 of 10 points",
        ),
        "bits": (viz.bits_bars({"trained": bars}), "Trained: token, 0.75 bits above chance"),
        "false alarms": (
            viz.false_alarms({"tokens": [0.01, 0.02, 0.03, 0.5], "documents": [0.2, 0.4, 0.01, 0.9]}),
            "Coins found: 75% with shuffled tokens, 25% with shuffled documents",
        ),
        "evidence": (
            viz.evidence({"trained": [(0.31, NULL_R), (0.3, NULL_R)], "untrained": [(0.05, NULL_R)] * 2}),
            "Trained: 1 of 2 Untrained: 0 of 2",
        ),
        "repeats": (
            viz.repeat_rates(
                {"trained": [(0.2, 0.1), (0.4, 0.1)], "untrained": [(0.5, 0.2)] * 2},
                {"ArXiv": (0.14, 0.28), "Github": (0.15, 0.2)},
                (0, 31),
                0.125,
            ),
            "Same expert: trained 30%, untrained 50% Mixtral: 20% to 28% in the last",
        ),
        "pairs": (
            viz.pair_tables(
                {"last": ratio_EE, "none": ratio_EE}, {"last": enough_EE, "none": enough_EE & False}
            ),
            "Last: 0 and 1 meet 2.0 times as often as by load; none: no pair has enough tokens",
        ),
        "saturation": (
            viz.saturation_curves([20, 50, 300], [[0.25, 0.3], [0.5, 0.6], [1.0, 1.0]], 0.25),
            "Half of the routing is final by step 50 of 300",
        ),
        "one checkpoint": (viz.saturation_curves([7], [[1.0, 1.0]], 0.25), "by step 7 of 7"),
        "ablation": (
            viz.ablation_tables(deltas, ["code", "names"]),
            "Layer 1: without expert 1, the loss of names rises by 50 thousandths of a nat",
        ),
        "checks": (
            viz.ablation_checks(torch.tensor([[[0.1, 0.5, 0.2]]]), halves),
            "Both halves: rank correlation -1.00",
        ),
        "equal load": (
            viz.equal_load([(0.3, [0.1, 0.2]), (0.1, [0.1, 0.2]), (0.2, [0.1])]),
            "Favourites cost more than equal sets in 2 of 3 cases",
        ),
    }


def test_titles_and_size():
    for name, (figure, claim) in made().items():
        assert claim in words(figure), f"{name}: {words(figure)}"
        assert figure.get_figwidth() <= 8, name


def test_every_number_of_a_table_can_be_read():
    """Each cell of a table of shares has its number, in black or white, whichever is easier to read."""
    figure = viz.share_tables(SHARES, ["code", "names"])
    texts = [text for ax in figure.axes for text in ax.texts]
    assert [text.get_text() for text in texts] == [
        "50",
        "30",
        "20",
        "40",
        "40",
        "20",
        "10",
        "20",
        "70",
        "60",
        "20",
        "20",
    ]
    assert {text.get_color() for text in texts} <= {"black", "white"}


def test_an_empty_row_is_blank_and_no_end_of_a_gap():
    shares = {"layer 0": torch.cat([SHARES["layer 1"], torch.zeros(1, 3)])}
    figure = viz.share_tables(shares, ["code", "names", "nobody"])
    assert "expert 0 takes 60% of names, 10% of code" in words(figure)
    assert len(figure.axes[0].texts) == 6


def test_many_experts_and_layers_leave_room_for_their_numbers():
    """With 64 experts a share is a hundredth or two: the colours reach to the largest one."""
    shares = torch.full((2, 64), 0.015)
    shares[0, 40] = 0.04
    (ax,) = viz.share_tables({"layer 0": shares}, ["code", "names"]).axes
    assert len(ax.get_xticks()) == 8
    assert not ax.texts
    assert ax.images[0].get_clim() == pytest.approx((0, 4))
    left, _ = viz.repeat_rates(
        {"a checkpoint": [(0.2, 0.1)] * 48}, {"text": [0.1] * 3}, (0, 15, 31), 1 / 8
    ).axes
    assert left.get_xticks().tolist() == list(range(0, 48, 6))


def test_a_dot_is_filled_only_above_every_shuffle():
    (ax,) = viz.evidence({"trained": [(0.31, NULL_R), (0.3, NULL_R)]}, columns=1).axes
    fills = [dot.get_markerfacecolor() for dot in ax.lines if dot.get_marker() == "o"]
    assert fills[0] != "white"
    assert fills[1] == "white"


def test_no_dot_is_cut_off():
    """Panels of a column share their scale, also where the lower one reaches higher."""
    figure = viz.evidence({"untrained": [(0.05, NULL_R)], "trained": [(3.0, NULL_R)]}, columns=1)
    assert all(ax.get_ylim()[0] == 0 and ax.get_ylim()[1] > 3.0 for ax in figure.axes)


def test_pairs_without_enough_tokens_stay_blank():
    figure = made()["pairs"][0]
    assert sorted(text.get_text() for text in figure.axes[0].texts) == ["0.5", "0.5", "2.0", "2.0"]
    assert not figure.axes[1].texts


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [([1, 2, 3], [10, 20, 90], 1.0), ([1, 2, 3], [3, 2, 1], -1.0), ([1, 1, 2], [1, 2, 3], math.sqrt(3) / 2)],
)
def test_rank_correlation(first, second, expected):
    """With ties their places are shared: (0.5, 0.5, 2) against (0, 1, 2)."""
    assert nulls._rank_correlation(torch.tensor(first), torch.tensor(second)) == pytest.approx(expected)
