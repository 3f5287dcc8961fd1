"""The answers of `moe-course explain`: every bound recomputed from the formulas, and clear errors."""

import json

import pytest

from moe_course.command.cli import main
from moe_course.hardware import device
from moe_course.systems.described import describe
from moe_course.systems.explain import BATCHES, Service, serving_rows
from moe_course.systems.serving import decode_bytes, decode_seconds, expected_distinct_experts


def test_published_counts_of_the_presets(capsys):
    """As their authors state them, rounded: 46.7B / 12.9B, 671B / 37B and 30.5B / 3.3B."""
    for name, total, active in (
        ("mixtral-8x7b", 46.7, 12.9),
        ("deepseek-v3", 671.0, 37.6),
        ("qwen3-30b-a3b", 30.5, 3.4),
    ):
        assert main(["explain", name, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["parameters"]
        assert (round(found["total"] / 1e9, 1), round(found["active"] / 1e9, 1)) == (total, active)


def test_a_row_is_the_roofline_of_its_batch():
    sizes = describe("qwen3-30b-a3b").sizes
    service = Service(device=device("h200"), devices=2, context=1000, price=3.0, value_bytes=1)
    for row in serving_rows(sizes, service):
        batch = int(row["batch"])
        read = decode_bytes(
            sizes.fixed_params, sizes.expert_params, 48, 128, 8, batch, 1000 * sizes.kv_values
        )
        seconds = decode_seconds(read, sizes.active_params, batch, 2 * 4.8e12, 2 * 989e12)
        assert row["bytes"] == pytest.approx(read)
        assert row["seconds"] == pytest.approx(seconds)
        assert row["experts read per layer"] == pytest.approx(expected_distinct_experts(128, 8, batch))
        assert row["dollars per million tokens"] == pytest.approx(2 * 3.0 / 3600 * seconds / batch * 1e6)


def test_the_largest_batch_is_the_last_that_fits_and_is_in_time():
    sizes = describe("qwen3-30b-a3b").sizes
    for service in (  # bound by memory, and by the latency
        Service(device=device("h200"), context=4096, latency=1.0),
        Service(device=device("h200"), context=100, latency=0.015),
    ):
        largest = service.largest_batch(sizes)
        held = [sizes.memory_bytes(batch, service.context) <= 141e9 for batch in (largest, largest + 1)]
        late = [service.step_seconds(sizes, batch) > service.latency for batch in (largest, largest + 1)]
        assert held[0]
        assert not late[0]
        assert late[1] or not held[1]


def test_a_model_that_does_not_fit_says_so(capsys):
    assert main(["explain", "deepseek-v3", "--gpu", "h100", "--gpus", "8"]) == 0
    shown = capsys.readouterr().out
    assert "the weights do not fit into it" in shown
    assert "Not even one sequence" in shown


def test_a_machine_of_unknown_memory_serves_every_batch():
    rows = serving_rows(describe("qwen3-8b").sizes, Service(device=device("1e12,1e14"), latency=1e-9))
    assert [row["batch"] for row in rows] == list(BATCHES)
    assert "experts read per layer" not in rows[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mixtral", "--gpu", "h100"], "'mixtral' is neither"),
        (["mixtral-8x7b", "--gpu", "h1000"], "there is no device 'h1000'"),
        (["mixtral-8x7b", "--gpu", "h100", "--gpus", "0"], "devices must be positive, got 0"),
        (["mixtral-8x7b", "--gpu", "h100", "--price", "-1"], "price must be positive, got -1"),
        (["mixtral-8x7b", "--gpu", "h100", "--latency", "nan"], "latency must be positive, got nan"),
        (["mixtral-8x7b", "--text", "README.md"], "--text needs a folder with weights"),
    ],
)
def test_mistakes_are_named(arguments, said, capsys):
    assert main(["explain", *arguments]) == 2
    assert said in capsys.readouterr().err
