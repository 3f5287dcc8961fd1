"""`moe-course bench layer`: what it compares is equal, and it says what it measured. No time is asserted."""

import json

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from moe_course.command.cli import main
from moe_course.moe import bench, memory

SMALL = (16, 24, 4, 2, 40)


def test_every_contender_is_timed_on_every_shape_and_number_of_threads():
    threads = torch.get_num_threads()
    timings = bench.bench([SMALL, (8, 12, 3, 2, 20)], threads=[1], rounds=2)
    assert torch.get_num_threads() == threads
    names = [bench.DENSE, *bench.WAYS, *bench.OTHERS]
    assert [timing.name for timing in timings] == 2 * names
    assert {timing.shape for timing in timings} == {SMALL, (8, 12, 3, 2, 20)}
    for timing in timings:
        assert 0 < timing.fastest <= timing.clock <= timing.slowest
        assert (timing.share == 1) == (timing.name == bench.DENSE)


def test_the_dense_layer_has_the_active_parameters_of_the_experts():
    found = bench.contenders(SMALL)
    d_model, d_ff, _, top_k, _ = SMALL
    assert sum(p.numel() for p in found[bench.DENSE].parameters()) == top_k * 3 * d_model * d_ff


def test_a_contender_that_computes_something_else_stops_the_measurement():
    found = bench.contenders(SMALL)
    x_TD, dy_TD = torch.randn(40, 16), torch.randn(40, 16)
    bench.need_same({name: found[name] for name in ("sorted", "fused")}, x_TD, dy_TD)
    with torch.no_grad():
        found["fused"].layer.w_down[1] *= 1.01
    with pytest.raises(RuntimeError, match="fused: its output differs from that of sorted"):
        bench.need_same({name: found[name] for name in ("sorted", "fused")}, x_TD, dy_TD)

    class Doubled(nn.Module):
        def forward(self, x_TD):
            return found["sorted"](x_TD) + (x_TD - x_TD.detach())

    with pytest.raises(RuntimeError, match="its gradient differs"):
        bench.need_same({"sorted": found["sorted"], "doubled": Doubled()}, x_TD, dy_TD)


def test_only_the_mixture_spends_time_on_rows_and_choices():
    dense, mixture = bench.spent([SMALL], rounds=2)
    assert (dense.name, mixture.name) == ("dense", "auto")
    assert list(dense.milliseconds) == list(mixture.milliseconds) == [*bench.KINDS]
    assert min(dense.milliseconds["products"], dense.milliseconds["elements"]) > 0
    assert dense.milliseconds["choices"] == 0 < min(mixture.milliseconds.values())


def test_an_expert_costs_nine_products_and_so_does_the_dense_layer():
    """So that the kind "products" cannot lose one without a word."""
    x_TD, dy_TD = torch.randn(40, 16), torch.randn(40, 16)
    for name, products in (("dense", 9), ("fused", 4 * 9 + 3)):  # and three of the router
        layer = bench.contenders(SMALL)[name]
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            bench._time(layer, x_TD, dy_TD)
        calls = {event.key.removeprefix("aten::"): event.count for event in seen.key_averages()}
        assert sum(calls.get(operation, 0) for operation in bench.KINDS["products"]) == products


def test_the_command_prints_a_table_and_writes_json(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(bench, "SHAPES", (SMALL,))
    monkeypatch.setattr(bench.bench, "__defaults__", ((SMALL,), (1, 2), 15))
    monkeypatch.setattr(bench.spent, "__defaults__", ((SMALL,), 15))
    monkeypatch.setattr(
        memory.measure, "__defaults__", (((8, 16), (4, 8), (1, 2)), (8, 8), ("sorted", "fused"))
    )
    file = tmp_path / "layer.json"
    assert main(["bench", "layer", "--threads", "1", "--rounds", "1", "--json", str(file)]) == 0
    said = capsys.readouterr().out
    assert "d_model 16, d_ff 24, 4 experts, top-2, 40 tokens, 1 thread\n" in said
    timed, where, counted = said.split("\n\n")
    assert [line.split()[0] for line in timed.splitlines()[2:]] == [
        *[bench.DENSE, *bench.WAYS],
        *["transformers"] * 2,
    ]
    assert [line.split()[-5] for line in where.splitlines()[1:]] == ["dense", "auto"]
    assert counted.startswith("memory with 16 tokens, 8 experts, top-2")
    assert [line.split()[0] for line in counted.splitlines()[2:]] == ["sorted", "fused"]
    figures = json.loads(file.read_text())
    assert [timing["name"] for timing in figures["timings"]][:2] == ["dense", "sorted"]
    assert len(figures["memory"]) == 16
    assert figures["exponents"]["fused"]["kept"]["t"] == pytest.approx(1)
    assert main(["bench", "layer", "--threads", "0"]) == 2
    assert main(["bench", "layer", "--device", "cuda"]) == 2
    assert main(["bench", "layer", "--rounds", "0"]) == 2
