"""The formulas of serving: by hand, against Monte Carlo, and against counts on the course's own model."""

import math
import random

import pytest
import torch

from moe_course.hardware import DEVICES, Device, device, limits
from moe_course.systems.serving import (
    critical_batch,
    decode_bytes,
    decode_seconds,
    dequantize_int8,
    expected_distinct_experts,
    quantize_int8,
    simulate_expert_cache,
    tail_latency,
)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def random_sets(steps, batch, experts, k, generator):
    """idx_SBK: uniform independent sets of k different experts."""
    return torch.rand(steps, batch, experts, generator=generator).topk(k).indices


class TestDistinct:
    def test_by_hand(self):
        assert expected_distinct_experts(8, 2, 1) == pytest.approx(2)
        assert expected_distinct_experts(8, 2, 3) == pytest.approx(8 * (1 - 0.75**3)) == 4.625
        assert expected_distinct_experts(5, 5, 7) == 5

    @pytest.mark.parametrize(("experts", "k", "batch"), [(8, 2, 3), (16, 1, 20), (12, 5, 4)])
    def test_monte_carlo(self, experts, k, batch):
        idx_SBK = random_sets(4000, batch, experts, k, rng(1))
        counts = [len(set(step.flatten().tolist())) for step in idx_SBK]
        mean = sum(counts) / len(counts)
        error = torch.tensor(counts, dtype=torch.float64).std().item() / math.sqrt(len(counts))
        assert abs(mean - expected_distinct_experts(experts, k, batch)) < 5 * error + 1e-9

    def test_the_shipped_formula_counts_too_many(self):
        """min(B · K, E) is what a step uses at most: equal for one token, and above the mean for each other batch."""
        assert expected_distinct_experts(128, 8, 1) == pytest.approx(8)
        for batch in (2, 4, 16, 32, 64):
            assert expected_distinct_experts(128, 8, batch) < min(8 * batch, 128) - 0.01

    def test_bad_values(self):
        for bad in ((8, 0, 1), (8, 9, 1), (0, 1, 1), (8, 2, 0), (8, 2, -1)):
            with pytest.raises(ValueError, match="got"):
                expected_distinct_experts(*bad)


class TestRoofline:
    def test_bytes_by_hand(self):
        """100 + 3 layers · 3.5 experts · 10 + 2 · 7."""
        assert decode_bytes(100, 10, 3, 8, 2, 2, 7) == pytest.approx(100 + 3 * 3.5 * 10 + 14)

    def test_a_dense_model_has_no_layer_with_experts(self):
        assert decode_bytes(100, 0, 0, 1, 1, 5, 7) == 135

    def test_seconds_are_the_longer_of_the_two(self):
        assert decode_seconds(100, 3, 2, bandwidth=50, peak_flops=1000) == 2
        assert decode_seconds(100, 3, 200, bandwidth=50, peak_flops=100) == 12

    def test_critical_batch_is_where_the_two_are_equal(self):
        params, gpu = 7e9, DEVICES["H100"]
        batch = critical_batch(gpu.bandwidth, gpu.peak_flops)
        assert 2 * params / gpu.bandwidth == pytest.approx(2 * params * batch / gpu.peak_flops)

    def test_bad_values(self):
        for bad in (
            (-1, 1, 1, 8, 2, 1, 0),
            (1, 1, 1, 8, 9, 1, 0),
            (1, 1, 1, 8, 2, 0, 0),
            (1, 1, 1, 8, 2, 1, -1),
        ):
            with pytest.raises(ValueError, match="got"):
                decode_bytes(*bad)
        for bad in ((1, 1, 0, 1, 1), (1, 1, 1, 0, 1), (1, 1, 1, 1, 0), (1, 1, 1, math.inf, 1)):
            with pytest.raises(ValueError, match="got"):
                decode_seconds(*bad)


def slow_cache(trace, capacity, policy):
    """The cache as two lists: written independently of the library's."""
    order, count, hits = [], {}, 0  # order: least recently used first
    for expert in trace:
        if expert in order:
            hits += 1
            order.remove(expert)
            count[expert] += 1
        else:
            if len(order) == capacity:
                victim = order[0] if policy == "lru" else min(order, key=lambda e: count[e])
                order.remove(victim)
                del count[victim]
            count[expert] = 1
        order.append(expert)
    return hits / len(trace)


class TestCache:
    def test_by_hand(self):
        trace = [0, 1, 0, 2, 0, 1]
        assert simulate_expert_cache(trace, 2, "lru") == pytest.approx(2 / 6)
        assert simulate_expert_cache([0, 0, 0, 1, 2, 1, 2, 0], 2, "lfu") == pytest.approx(3 / 8)

    def test_uses_are_forgotten_on_eviction(self):
        trace = [0, 0, 1, 2, 1, 1, 1, 0, 0, 2, 0]
        assert simulate_expert_cache(trace, 1, "lfu") == slow_cache(trace, 1, "lfu")

    @pytest.mark.parametrize("policy", ["lru", "lfu"])
    def test_against_a_slow_cache(self, policy):
        source = random.Random(3)
        for capacity in (1, 2, 3, 5):
            trace = [min(source.randrange(8), source.randrange(8)) for _ in range(300)]
            assert simulate_expert_cache(trace, capacity, policy) == slow_cache(trace, capacity, policy)

    @pytest.mark.parametrize("policy", ["lru", "lfu"])
    def test_independent_uniform_uses_hit_with_capacity_over_experts(self, policy):
        trace = torch.randint(10, (20_000,), generator=rng(2))
        assert simulate_expert_cache(trace, 3, policy) == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / 20_000))

    def test_tokens_of_k_different_experts_hit_less_often(self):
        """The expert that was used just before is in the cache, and cannot be the next one of the same token."""
        trace = random_sets(10_000, 1, 8, 2, rng(4)).flatten()
        expected = (4 / 8 + 3 / 7) / 2
        assert simulate_expert_cache(trace, 4, "lru") == pytest.approx(expected, abs=0.02)

    def test_bad_values(self):
        for bad in (([1], 0, "lru"), ([1], -1, "lfu"), ([1], 1, "fifo"), ([], 1, "lru")):
            with pytest.raises(ValueError, match=r"capacity|policy|empty"):
                simulate_expert_cache(*bad)


class TestTail:
    def test_one_rank_has_no_tail(self):
        got = tail_latency(torch.ones(4), 1, 10, 0.5, (0, 50, 100), 20, rng())
        assert got == [5.0, 5.0, 5.0]

    def test_one_expert_for_all(self):
        probs_E = torch.tensor([0.0, 0, 1, 0])
        assert tail_latency(probs_E, 2, 7, 2.0, (99,), 5, rng()) == [14.0]

    def test_two_ranks_against_the_binomial_law(self):
        """Two tokens, two equal ranks: both on one rank with probability 1/2, so the time is 2 or 1."""
        times = tail_latency(torch.ones(2), 2, 2, 1.0, [p / 100 for p in range(0, 10_001, 5)], 4001, rng(5))
        share = sum(time > 1.5 for time in times) / len(times)
        assert abs(share - 0.5) < 5 * math.sqrt(0.25 / 4001) + 0.001

    def test_percentiles_are_interpolated_and_in_the_order_asked(self):
        times = tail_latency(torch.ones(6), 3, 9, 1.0, (100, 0, 50), 11, rng(6))
        assert times[0] >= times[2] >= times[1]
        low, high, middle = tail_latency(torch.ones(2), 2, 5, 1.0, (0, 100, 50), 2, rng(11))
        assert middle == pytest.approx((low + high) / 2)

    def test_skew_lengthens_the_tail(self):
        skewed = torch.tensor([4.0, 1, 1, 1, 1, 1, 1, 1])
        even = tail_latency(torch.ones(8), 4, 64, 1.0, (50, 99), 500, rng(7))
        assert all(
            a > b for a, b in zip(tail_latency(skewed, 4, 64, 1.0, (50, 99), 500, rng(7)), even, strict=True)
        )

    def test_bad_values(self):
        good = (torch.ones(4), 2, 3, 1.0, (50,), 5, rng())
        for place, bad in ((1, 3), (1, 0), (2, 0), (4, (101,)), (4, (-1,)), (5, 0)):
            arguments = list(good)
            arguments[place] = bad
            with pytest.raises(ValueError, match=r"positive|divide|percentiles"):
                tail_latency(*arguments)


class TestInt8:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_within_half_a_step(self, dtype):
        w_EDF = torch.randn(3, 17, 5, generator=rng()).to(dtype)
        q_EDF, scale_EF = quantize_int8(w_EDF)
        assert q_EDF.dtype == torch.int8
        assert scale_EF.dtype == dtype
        assert (q_EDF.abs().amax(dim=1) == 127).all()
        error = (dequantize_int8(q_EDF, scale_EF).double() - w_EDF.double()).abs()
        slack = 1.1 if dtype == torch.bfloat16 else 0.5001  # the product is rounded to bfloat16 as well
        assert (error <= slack * scale_EF.double()[:, None]).all()

    def test_each_column_has_its_own_scale(self):
        w_EDF = torch.tensor([[[0.5, 100.0], [-2.0, 25.0]]])
        q_EDF, scale_EF = quantize_int8(w_EDF)
        assert scale_EF[0].tolist() == pytest.approx([2 / 127, 100 / 127])
        assert q_EDF.tolist() == [[[32, 127], [-127, 32]]]

    def test_zeros_stay_zeros(self):
        w_EDF = torch.zeros(2, 3, 4)
        w_EDF[0, 1, 2] = 5
        q_EDF, scale_EF = quantize_int8(w_EDF)
        assert scale_EF.isfinite().all()
        assert torch.equal(dequantize_int8(q_EDF, scale_EF), w_EDF)

    def test_a_column_too_small_for_its_scale(self):
        q_EDF, scale_EF = quantize_int8(torch.full((1, 2, 1), 1e-45))
        assert dequantize_int8(q_EDF, scale_EF).isfinite().all()


class TestHardware:
    def test_by_name_and_by_numbers(self):
        assert device("h100") == DEVICES["H100"]
        assert device("3e12, 8e14") == Device(8e14, 8e14, 3e12)
        assert device("T4").peak_flops == 8.1e12

    def test_unknown_and_impossible(self):
        for text in ("h1000", "3e12", "1,2,3", "0,5", "-1,5", "nan,1", ""):
            with pytest.raises(ValueError, match=r"BYTES/s|positive"):
                device(text)

    def test_names_of_drivers(self):
        assert limits("NVIDIA A100-SXM4-80GB") == DEVICES["A100"]
        assert limits("NVIDIA A100 80GB PCIe") == DEVICES["A100 PCIe"]
        assert limits("NVIDIA GeForce RTX 4090") == DEVICES["RTX 4090"]
        assert limits("AMD Instinct MI300X") == DEVICES["MI300X"]
        assert limits("a CPU") is None
