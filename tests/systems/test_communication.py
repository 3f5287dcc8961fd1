"""Bytes, seconds and placements: against simulation, by hand, and against published numbers."""

import pytest
import torch

from moe_course.systems.communication import (
    all_to_all_bytes,
    distinct_nodes,
    expected_distinct_nodes,
    step_time,
    tensor_parallel_bytes,
)
from moe_course.systems.placement import place_experts, rank_loads, replicate_experts
from moe_course.systems.published_transfers import (
    DEEPEP,
    DEEPEP_BYTES,
    DEEPEP_COPIES,
    EPLB_GPUS,
    EPLB_LOADS,
    EPLB_PLAN,
    planned_loads,
)


def over_mean(load_R):
    return float(load_R.max() / load_R.mean())


class TestBytes:
    def test_against_a_simulation_of_uniform_routing(self):
        generator = torch.Generator().manual_seed(0)
        ranks, tokens, top_k, experts = 4, 20_000, 3, 12
        idx_TK = torch.rand(tokens, experts, generator=generator).argsort(dim=1)[:, :top_k]
        leaves = (idx_TK // (experts // ranks) != 0).sum()  # seen from rank 0
        assert all_to_all_bytes(tokens, top_k, 7, 2, ranks) == pytest.approx(int(leaves) * 7 * 2, rel=0.01)

    def test_one_rank_sends_nothing_and_bytes_may_be_halves(self):
        assert all_to_all_bytes(5, 2, 3, 4, 1) == 0
        assert all_to_all_bytes(4, 2, 3, 0.5, 2) == 6

    @pytest.mark.parametrize("bad", [(0, 2, 3, 4, 2), (4, 0, 3, 4, 2), (4, 2, 3, 0, 2), (4, 2, 3, 4, 0)])
    def test_bad_sizes(self, bad):
        with pytest.raises(ValueError, match="must be positive, got 0"):
            all_to_all_bytes(*bad)

    def test_tensor_parallelism_sends_more_from_as_many_ranks_as_choices_on(self):
        def wins(ranks, top_k):
            return tensor_parallel_bytes(9, 4, 2, ranks) < 2 * all_to_all_bytes(9, top_k, 4, 2, ranks)

        assert [ranks for ranks in range(2, 12) if wins(ranks, top_k=6)] == [2, 3, 4, 5]

    def test_deepseeks_ceiling_of_67_tokens_a_second(self):
        """arXiv 2505.09343, section 2.3.2: 1 byte out and 2 back, 32 tokens, 9 copies, 7000 channels, 50 GB/s."""
        copies = 32 * 9 * 7000
        seconds = step_time(torch.zeros(1), 0, copies * (1 + 2), 50e9, 0)
        assert seconds == pytest.approx(241.92e-6)
        assert 61 * seconds == pytest.approx(14.76e-3, rel=1e-3)
        assert int(1 / (61 * seconds)) == 67


class TestDeepEP:
    def test_all_cells_fit_within_the_rounding_of_the_latency_and_not_every_number_of_copies_does(self):
        assert all(cell.fits(DEEPEP_COPIES * DEEPEP_BYTES[cell.kernel]) for cell in DEEPEP)
        assert sum(cell.fits(1024 * DEEPEP_BYTES[cell.kernel]) for cell in DEEPEP) < len(DEEPEP) / 2

    def test_what_leaves_a_rank_is_another_figure(self):
        fits = 0
        for cell in DEEPEP:
            num_bytes = all_to_all_bytes(128, 8, 7168, 1 if cell.kernel == "dispatch" else 2, cell.ranks)
            fits += cell.fits(num_bytes)
        assert fits < len(DEEPEP) / 2


class TestDistinctNodes:
    def test_by_hand(self):
        idx = torch.tensor([[0, 1, 2], [5, 0, 3], [11, 10, 4]])
        assert distinct_nodes(idx, 12, 4).tolist() == [1, 2, 2]
        assert distinct_nodes(idx, 12, 12).tolist() == [3, 3, 3]
        assert distinct_nodes(idx, 12, 1).tolist() == [1, 1, 1]

    @pytest.mark.parametrize(("experts", "top_k", "nodes"), [(12, 3, 4), (16, 5, 2), (8, 8, 4)])
    def test_the_expectation_against_a_simulation(self, experts, top_k, nodes):
        generator = torch.Generator().manual_seed(1)
        idx_TK = torch.rand(40_000, experts, generator=generator).argsort(dim=1)[:, :top_k]
        mean = float(distinct_nodes(idx_TK, experts, nodes).double().mean())
        assert expected_distinct_nodes(experts, top_k, nodes) == pytest.approx(mean, rel=0.01)

    def test_experts_that_do_not_divide(self):
        with pytest.raises(ValueError, match="12 experts do not divide into 5 nodes"):
            distinct_nodes(torch.zeros(1, 2, dtype=torch.long), 12, 5)


class TestStepTime:
    def test_by_hand(self):
        assert step_time(torch.tensor([3, 8, 5]), 2.0, 30.0, 10.0, 0.5) == 16 + 2 * (0.5 + 3)

    def test_bad_arguments(self):
        good = (torch.ones(2), 1.0, 1.0, 1.0, 1.0)
        for place, bad in ((0, -torch.ones(2)), (1, -1.0), (2, -1.0), (3, 0.0), (4, -1.0)):
            with pytest.raises(ValueError, match=r"nothing takes less|must be positive"):
                step_time(*good[:place], bad, *good[place + 1 :])


class TestPlacement:
    def test_by_hand(self):
        assert place_experts(torch.tensor([1.0, 9.0, 4.0, 4.0, 6.0, 2.0]), 2).tolist() == [0, 0, 1, 0, 1, 1]

    def test_ties_go_to_the_lower_index(self):
        assert place_experts(torch.ones(6), 3).tolist() == [0, 1, 2, 0, 1, 2]

    @pytest.mark.parametrize("ranks", [2, 3, 4, 6])
    def test_every_rank_is_full_and_none_much_above_what_cannot_be_avoided(self, ranks):
        for loads in EPLB_LOADS:
            rank_E = place_experts(loads, ranks)
            assert torch.bincount(rank_E).tolist() == [12 // ranks] * ranks
            assert rank_loads(loads, rank_E, ranks).max() >= max(loads.max(), loads.sum() / ranks)

    @pytest.mark.parametrize(
        ("ranks", "contiguous", "greedy"),
        [(2, 1.146, 1.024), (3, 1.156, 1.031), (4, 1.278, 1.073), (6, 1.562, 1.185)],
    )
    def test_the_example_of_eplb_without_replicas(self, ranks, contiguous, greedy):
        loads = EPLB_LOADS[0]
        assert over_mean(loads.view(ranks, -1).sum(dim=1)) == pytest.approx(contiguous, abs=5e-4)
        assert over_mean(rank_loads(loads, place_experts(loads, ranks), ranks)) == pytest.approx(
            greedy, abs=5e-4
        )

    @pytest.mark.parametrize(("layer", "published"), [(0, 1.208), (1, 1.242)])
    def test_replicas_as_many_as_in_eplbs_example(self, layer, published):
        """EPLB places within groups of experts; the copies of each expert differ where its groups bind."""
        loads, plan = EPLB_LOADS[layer], EPLB_PLAN[layer]
        copies = torch.bincount(plan, minlength=12)
        on_gpu = planned_loads(loads, plan, EPLB_GPUS)
        assert on_gpu.sum() == pytest.approx(float(loads.sum()))
        assert over_mean(on_gpu) == pytest.approx(published, abs=5e-4)
        assert over_mean(on_gpu) < float(loads.max() / (loads.sum() / EPLB_GPUS))
        ours = replicate_experts(loads, 16)
        assert int(ours.sum()) == 16
        assert (loads / ours).max() <= (loads / copies).max()

    def test_bad_sizes(self):
        with pytest.raises(ValueError, match="12 experts do not divide into 5 ranks"):
            place_experts(EPLB_LOADS[0], 5)
        with pytest.raises(ValueError, match="11 slots cannot hold 12 experts"):
            replicate_experts(EPLB_LOADS[0], 11)


@pytest.mark.parametrize(("ranks", "gigabytes"), [(2, 49), (256, 97)])
def test_bandwidth_from_which_compute_covers_the_transfer(ranks, gigabytes):
    """The layer of notebook 09's section 6: D = 7168, F = 2048, 400 TFLOP/s, 1.5 bytes a value."""
    compute = 16384 * 8 / ranks * 6 * 7168 * 2048 / 400e12
    sent = 2 * all_to_all_bytes(16384 / ranks, 8, 7168, 1.5, ranks)
    assert round(sent / compute / 1e9) == gigabytes
