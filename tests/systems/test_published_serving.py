"""Which published figures follow from the formulas, and how far; and the bounds of published models."""

import pytest

from moe_course.hardware import DEVICES
from moe_course.published import MODELS, model
from moe_course.systems import accounting, published_serving
from moe_course.systems.footprint import (
    kv_values_per_token,
    serving_sizes,
    tokens_per_verification,
)
from moe_course.systems.published_serving import (
    DEEPSEEK_DAY,
    DEEPSEEK_PUBLISHED,
    HIT_RATES,
    KV_BYTES_PER_TOKEN,
    SGLANG_DECODE,
    STREAMS,
)
from moe_course.systems.serving import critical_batch, expected_distinct_experts

QWEN = serving_sizes(model("qwen3-30b-a3b"))


class TestSizes:
    @pytest.mark.parametrize("name", MODELS)
    def test_parts_add_up_to_the_model(self, name):
        config, sizes = model(name), serving_sizes(model(name))
        total, active = accounting.model_params(config)
        look_up = 0 if config.tied_embeddings else config.vocab_size * config.d_model
        experts = sizes.moe_layers * config.num_experts * sizes.expert_params
        assert sizes.total_params == total == sizes.fixed_params + look_up + experts
        assert sizes.active_params == active - look_up

    def test_qwen_by_hand(self):
        assert QWEN.expert_params == 3 * 2048 * 768
        assert round(QWEN.fixed_params / 1e9, 3) == 1.230
        assert round(QWEN.active_params / 1e9, 3) == 3.042

    def test_a_dense_model_reads_all_of_itself_for_any_batch(self):
        sizes = serving_sizes(model("qwen3-8b"))
        assert sizes.step_bytes(1) == sizes.step_bytes(64) == 2 * sizes.fixed_params

    def test_a_large_batch_reads_the_whole_mixture(self):
        whole = QWEN.fixed_params + QWEN.moe_layers * QWEN.num_experts * QWEN.expert_params
        assert QWEN.step_bytes(4096) == pytest.approx(2 * whole, rel=1e-9)

    def test_the_cache_of_keys_and_values(self):
        """Qwen3: 48 layers, 4 heads of 128, keys and values; each sequence reads its own."""
        assert QWEN.kv_values == 48 * 2 * 4 * 128
        assert QWEN.step_bytes(3, context=10) - QWEN.step_bytes(3) == pytest.approx(
            3 * 10 * 2 * QWEN.kv_values
        )
        assert QWEN.memory_bytes(2, 5) == 2 * QWEN.total_params + 2 * 5 * 2 * QWEN.kv_values

    @pytest.mark.parametrize(("name", "published"), KV_BYTES_PER_TOKEN.items())
    def test_published_bytes_per_token(self, name, published):
        assert 2 * kv_values_per_token(model(name)) == published

    def test_equal_dense_model_goes_from_active_to_total_and_back(self):
        gpu = DEVICES["H100"]
        assert QWEN.equal_dense_params(gpu, 1) == pytest.approx(QWEN.active_params)
        largest = max(QWEN.equal_dense_params(gpu, 2**n) for n in range(15))
        assert 0.95 * QWEN.total_params < largest < QWEN.total_params
        assert QWEN.equal_dense_params(gpu, 100_000) == pytest.approx(QWEN.active_params)

    def test_devices_share_the_work(self):
        gpu = DEVICES["H200"]
        assert QWEN.step_seconds(gpu, 8, 100, devices=4) == pytest.approx(QWEN.step_seconds(gpu, 8, 100) / 4)


class TestBounds:
    def test_speeds_at_batch(self):
        """Upper bounds of Qwen3-30B-A3B in bfloat16, each sequence with 256 tokens in its cache."""
        for name, batch, bound in (
            ("A100", 1, 334), ("A100", 2, 428), ("A100", 4, 518), ("A100", 256, 7804),
            ("H100", 1, 548), ("H100", 256, 12_822), ("H200", 1, 786), ("B200", 256, 30_620),
        ):  # fmt: skip
            speed = batch / QWEN.step_seconds(DEVICES[name], batch, 256)
            assert speed == pytest.approx(bound, abs=1), (name, batch)

    def test_distinct_experts(self):
        rounded = [round(expected_distinct_experts(128, 8, 2**n), 1) for n in range(8)]
        assert rounded == [8, 15.5, 29.1, 51.6, 82.4, 111.8, 125.9, 128.0]

    def test_critical_batches(self):
        """Where arithmetic takes over, for a dense model and, 16 times as many, for 8 of 128 experts."""
        for name, dense, mixture in (
            ("H100", 295, 4724),
            ("H200", 206, 3297),
            ("B200", 281, 4500),
            ("MI300X", 247, 3946),
        ):
            gpu = DEVICES[name]
            assert round(critical_batch(gpu.bandwidth, gpu.peak_flops)) == dense
            assert critical_batch(gpu.bandwidth, gpu.peak_flops, 2, 128, 8) == pytest.approx(mixture, abs=1)

    def test_measured_streams_stay_below_the_bound(self):
        """3 % to 55 % of it: that is why the notebook calls the formula a bound."""
        shares = [published_serving.share_of_bound(speed) for speed in STREAMS]
        assert all(share < 1 for share in shares)
        assert round(100 * min(shares)) == 3
        assert round(100 * max(shares)) == 55

    def test_the_ladder_on_a_cpu(self):
        """The formula puts the mixture just before the dense 3B, the machine just behind it: it is 14 % off."""
        ladder = [speed for speed in STREAMS if speed.machine.startswith("i7")]
        bytes_read = [published_serving.bytes_per_token(speed) for speed in ladder]
        by_speed = sorted(range(5), key=lambda n: -ladder[n].tokens_per_second)
        by_bytes = sorted(range(5), key=lambda n: bytes_read[n])
        assert by_speed == [0, 1, 4, 2, 3]
        assert by_bytes == [0, 4, 1, 2, 3]
        dense, mixture = ladder[1], ladder[4]
        predicted = bytes_read[1] / bytes_read[4]
        measured = mixture.tokens_per_second / dense.tokens_per_second
        assert predicted == pytest.approx(1.04, abs=0.005)
        assert measured / predicted == pytest.approx(0.86, abs=0.005)


class TestDay:
    def test_nodes_follow_from_tokens_and_speeds(self):
        assert round(DEEPSEEK_DAY.prefill_nodes, 2) == 95.48
        assert round(DEEPSEEK_DAY.decode_nodes, 2) == 131.38
        nodes = DEEPSEEK_DAY.prefill_nodes + DEEPSEEK_DAY.decode_nodes
        assert nodes == pytest.approx(DEEPSEEK_DAY.nodes, rel=0.001)

    def test_cost_revenue_and_margin(self):
        assert DEEPSEEK_DAY.cost == DEEPSEEK_PUBLISHED["cost"]
        assert DEEPSEEK_DAY.revenue == pytest.approx(DEEPSEEK_PUBLISHED["revenue"], rel=0.0002)
        assert DEEPSEEK_DAY.margin == pytest.approx(DEEPSEEK_PUBLISHED["margin"], rel=0.002)

    def test_share_of_cached_tokens(self):
        assert DEEPSEEK_DAY.cached_tokens / DEEPSEEK_DAY.input_tokens == pytest.approx(0.563, abs=0.0005)

    def test_dollars_of_sglang(self):
        dollars = 8 * SGLANG_DECODE["gpu_hour"] / 3600 / SGLANG_DECODE["tokens per node and second"] * 1e6
        assert round(dollars, 2) == SGLANG_DECODE["dollars per million"]


def test_hit_rates_differ_by_a_factor_of_five():
    assert max(rate.high for rate in HIT_RATES) / min(rate.high for rate in HIT_RATES) == pytest.approx(
        4.9, abs=0.1
    )


@pytest.mark.parametrize(("name", "tokens"), [("qwen3-30b-a3b", 9_500), ("deepseek-v3", 260_000)])
def test_context_from_which_64_readers_read_more_keys_and_values_than_weights(name, tokens):
    m = serving_sizes(model(name))
    weights = m.step_bytes(64, 0)
    assert weights / (m.step_bytes(64, 1) - weights) == pytest.approx(tokens, rel=0.01)


class TestSpeculation:
    def test_by_hand(self):
        assert tokens_per_verification(0.5, 2) == 1.75
        assert tokens_per_verification(1, 3) == 4
        assert tokens_per_verification(0, 3) == tokens_per_verification(0.7, 0) == 1

    def test_multi_token_prediction(self):
        """One drafted token that is kept with 85 %: 1.85 tokens a step (DeepSeek: 80 to 90 %, about 1.8 times)."""
        assert tokens_per_verification(0.85, 1) == pytest.approx(1.85)

    def test_bad_values(self):
        for bad in ((-0.1, 2), (1.1, 2), (0.5, -1)):
            with pytest.raises(ValueError, match="got"):
                tokens_per_verification(*bad)
