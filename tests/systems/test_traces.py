"""Distinct experts of steps, traces of caches, and requests that share a machine."""

import math

import pytest
import torch

from moe_course.systems.batching import simulate_batching
from moe_course.systems.serving import expected_distinct_experts
from moe_course.systems.traces import (
    chosen_shares,
    distinct_per_step,
    expected_distinct_given_load,
    layer_traces,
    shared_trace,
    steps_of,
)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


class TestSteps:
    def test_distinct_by_hand(self):
        idx_SBK = torch.tensor([[[0, 1], [1, 0]], [[2, 1], [3, 0]]])
        assert distinct_per_step(idx_SBK, 5).tolist() == [2, 4]

    def test_steps_are_neighbours_unless_shuffled(self):
        idx_TK = torch.arange(14).view(7, 2)
        assert steps_of(idx_TK, 3).tolist() == idx_TK[:6].view(2, 3, 2).tolist()
        shuffled = steps_of(idx_TK, 7, rng(1))
        assert shuffled.tolist() != idx_TK[None].tolist()
        assert sorted(shuffled.flatten().tolist()) == list(range(14))

    def test_bad_batches(self):
        for batch in (0, 8):
            with pytest.raises(ValueError, match="batch"):
                steps_of(torch.zeros(7, 2, dtype=torch.int64), batch)

    def test_equal_shares_give_the_uniform_formula(self):
        chosen_E = torch.full((16,), 3 / 16)
        assert expected_distinct_given_load(chosen_E, 5) == pytest.approx(expected_distinct_experts(16, 3, 5))

    def test_skewed_shares_against_monte_carlo(self):
        """Independent tokens with skewed shares use fewer experts than uniform ones, as many as the sum says."""
        logits_E = torch.linspace(0, 3, 8)
        noise_TE = -torch.log(-torch.log(torch.rand(40_000, 8, generator=rng(2))))
        idx_TK = (logits_E + noise_TE).topk(2).indices  # sets drawn without replacement (Gumbel)
        expected = expected_distinct_given_load(chosen_shares(idx_TK, 8), 4)
        counts = distinct_per_step(steps_of(idx_TK, 4), 8).double()
        assert abs(counts.mean() - expected) < 5 * counts.std() / math.sqrt(len(counts))
        assert expected < expected_distinct_experts(8, 2, 4) - 0.2

    def test_bad_shares(self):
        with pytest.raises(ValueError, match=r"0\.\.1"):
            expected_distinct_given_load(torch.tensor([1.5, 0.5]), 2)


def test_traces_by_hand():
    idx_LTK = torch.tensor([[[0, 1], [2, 0]], [[1, 2], [0, 1]]])
    assert layer_traces(idx_LTK) == [[0, 1, 2, 0], [1, 2, 0, 1]]
    assert shared_trace(idx_LTK, 3) == [0, 1, 4, 5, 2, 0, 3, 4]


class TestBatching:
    def test_by_hand(self):
        """Two slots, lengths 1, 3 and 2, all there at once, a second a step."""
        static = simulate_batching([0, 0, 0], [1, 3, 2], 2, lambda batch: 1.0, continuous=False)
        assert static.latencies == [1, 3, 5]
        assert (static.seconds, static.steps) == (5, 5)
        filled = simulate_batching([0, 0, 0], [1, 3, 2], 2, lambda batch: 1.0, continuous=True)
        assert filled.latencies == [1, 3, 3]
        assert (filled.seconds, filled.tokens_per_second, filled.mean_batch) == (3, 2, 2)

    def test_waits_for_the_next_arrival(self):
        served = simulate_batching([1, 10], [2, 1], 4, lambda batch: 1.0, continuous=True)
        assert served.latencies == [2, 1]
        assert served.seconds == 10

    def test_padding_is_computed(self):
        """A static batch of two costs two until its longest member is done."""
        sizes = []
        simulate_batching([0, 0], [1, 3], 2, lambda batch: sizes.append(batch) or 1.0, continuous=False)
        assert sizes == [2, 2, 2]
        sizes.clear()
        simulate_batching([0, 0], [1, 3], 2, lambda batch: sizes.append(batch) or 1.0, continuous=True)
        assert sizes == [2, 1, 1]

    def test_one_slot_is_a_queue(self):
        for continuous in (False, True):
            served = simulate_batching([0, 0, 5], [2, 2, 1], 1, lambda batch: 1.0, continuous)
            assert served.latencies == [2, 4, 1]

    def test_bad_values(self):
        for bad in (([], [], 1), ([0], [0], 1), ([0], [1], 0), ([0, 1], [1], 1)):
            with pytest.raises(ValueError, match="at least 1"):
                simulate_batching(*bad, lambda batch: 1.0, continuous=True)
