"""Figures of a run and of the experiment: they draw what they are given, and their titles are computed from it."""

import pytest
import torch

from moe_course.lm.experiment.paired import Paired
from moe_course.viz import training


def result(name, seed, ce, bpb=(2.0, 3.0), steps=40):
    """A result such as `experiment.run` returns, cut down to what figures read."""
    curve = [
        {"step": step, "held_out_ce": ce + 1 / (step + 1), "cpu_seconds": 2.0 * (step + 1)}
        for step in range(9, steps, 10)
    ]
    recipe = {"name": name, "batch_size": 4, "model": {"context": 25}, "plan": {"seed": seed}}
    domains = {domain: {"bpb": value} for domain, value in zip(("code", "names"), bpb, strict=True)}
    return {"recipe": recipe, "flops_per_token": 10**9, "curve": curve, "ce": ce, "by_domain": domains}


def title(ax):
    return ax.get_title(loc="left") or ax.get_title()


def record(step, ce, load_LE, held_out=None):
    written = {"step": step, "ce": ce, "load_LE": load_LE, "seconds": 0.5 * (step + 1)}
    return written if held_out is None else written | {"held_out_ce": held_out}


class TestProgress:
    LOAD = ((0.5, 0.25, 0.25), (0.1, 0.2, 0.7))

    def test_a_panel_for_the_loss_and_one_for_each_layer(self):
        fig = training.progress([record(0, 5.0, self.LOAD), record(9, 4.0, self.LOAD, 4.5)], "moe", 20)
        loss, *loads = fig.axes
        assert [line.get_ydata().tolist() for line in loss.lines] == [[5.0, 4.0], [4.5]]
        assert [title(ax) for ax in loads] == ["load, layer 0", "load, layer 1"]
        assert len(loads[0].collections) == 3
        assert fig.get_suptitle() == "moe: step 10 of 20, 5 s to go"

    def test_a_dense_model_has_no_loads(self):
        fig = training.progress([record(0, 5.0, []), record(19, 4.0, [])], "dense-active", 20)
        assert len(fig.axes) == 1
        assert fig.get_suptitle() == "dense-active: done in 10 s"

    def test_before_the_first_line_of_the_log(self):
        assert training.progress([], "moe", 20).get_suptitle() == "moe: starting"


class TestCurves:
    def test_steps_flops_and_seconds(self):
        fig = training.training_curves([result("moe", 0, 3.0), result("dense-active", 0, 3.5)])
        xs = [ax.lines[0].get_xdata() for ax in fig.axes]
        assert list(xs[0]) == [10, 20, 30, 40]
        assert list(xs[1]) == pytest.approx([1.0, 2.0, 3.0, 4.0])  # 100 tokens a step, a GFLOP each
        assert list(xs[2]) == [20, 40, 60, 80]
        assert fig.get_suptitle() == "Test CE: moe 3.000, dense-active 3.500"

    def test_seconds_of_other_machines_are_left_out(self):
        fig = training.training_curves([result("moe", 0, 3.0)], seconds=False)
        assert [ax.get_xlabel() for ax in fig.axes] == ["steps", "training TFLOPs"]

    def test_the_order_in_the_title_is_that_of_the_losses(self):
        runs = [result("moe", seed, 3.6 + seed / 10) for seed in (0, 2)] + [result("dense-active", 0, 3.5)]
        assert training.training_curves(runs).get_suptitle() == "Test CE: dense-active 3.500, moe 3.700"


def test_directions_are_sorted_shares_of_the_longest():
    matrices = {"steep": torch.diag(torch.tensor([1.0, 4.0, 0.0])), "flat": 3 * torch.eye(3)}
    (ax,) = training.directions(matrices).axes
    lines = {line.get_label(): list(line.get_ydata()) for line in ax.lines}
    assert lines == {"steep": [1.0, 0.25, 0.0], "flat": [1.0, 1.0, 1.0]}
    assert title(ax) == "flat: the median direction is 100% as long as the longest"


class TestPairedGaps:
    def test_the_first_name_is_on_top_with_its_seeds_and_interval(self):
        gaps = {"sure": Paired((0.1, 0.11, 0.12)), "open": Paired((0.1, -0.1, 0.02))}
        (ax,) = training.paired_gaps(gaps, "nats").axes
        assert [tick.get_text() for tick in ax.get_yticklabels()] == ["open", "sure"]
        assert title(ax) == "1 of 2 differences are decided"
        seeds = {line.get_ydata()[0]: list(line.get_xdata()) for line in ax.lines if line.get_marker() == "o"}
        assert seeds[1.2] == [0.1, 0.11, 0.12]
        (interval,) = ax.containers[1].lines[2][0].get_segments()
        assert interval[:, 0] == pytest.approx([0.11 - 4.303 * 0.01 / 3**0.5, 0.11 + 4.303 * 0.01 / 3**0.5])


class TestDomains:
    def test_bars_are_means_of_paired_differences_and_the_title_names_where_all_seeds_agree(self):
        dense = [result("dense-active", 0, 3, (2.0, 3.0)), result("dense-active", 1, 3, (2.2, 3.0))]
        ahead = [result("moe", 0, 3, (1.9, 2.5)), result("moe", 1, 3, (1.9, 2.7))]
        fig = training.domain_gaps({"dense-active": dense, "moe": ahead})
        assert [bar.get_height() for bar in fig.axes[0].patches] == pytest.approx([0.2, 0.4])
        assert title(fig.axes[0]) == "moe gains on every seed: code, names"
        mixed = [result("moe", 0, 3, (1.0, 2.5)), result("moe", 1, 3, (2.3, 2.7))]
        (ax,) = training.domain_gaps({"dense-active": dense, "moe": mixed}).axes
        assert title(ax) == "moe gains on every seed: names"
        (ax,) = training.domain_gaps({"dense-active": dense, "moe": dense}).axes
        assert title(ax) == "moe gains on every seed: in no domain"
