"""Measuring: no test looks at a clock, only at what is counted and in which order things run."""

import pytest
import torch

from moe_course.lesson import timing
from moe_course.lesson.timing import Layer, Sweep, Timing
from moe_course.moe import moe_loop


def test_median_and_quartiles():
    odd = Timing((5.0, 1.0, 2.0, 4.0, 3.0))
    assert odd.median == 3
    assert odd.quartiles == (2, 4)
    assert Timing((7.0,)).quartiles == (7, 7)


def test_contestants_take_turns_and_the_first_run_does_not_count(monkeypatch):
    monkeypatch.setattr(timing, "SHORTEST", 0.0)  # one run a measurement
    ran = []
    found = timing.race({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, rounds=3)
    assert "".join(ran) == "ab" + "ababab"
    assert {name: len(taken.seconds) for name, taken in found.items()} == {"a": 3, "b": 3}


def test_short_runs_are_repeated_within_one_measurement(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(timing, "SHORTEST", 5.0)
    ran = []
    found = timing.race({"a": lambda: ran.append("a")}, rounds=2)
    assert len(ran) == 1 + 2 * 5
    assert found["a"].seconds == (1 / 5, 1 / 5)


def test_rounds_must_be_positive():
    with pytest.raises(ValueError, match="rounds must be positive, got 0"):
        timing.race({}, rounds=0)


def test_small_notebooks_measure_twice(monkeypatch):
    monkeypatch.setattr(timing, "SHORTEST", 0.0)
    monkeypatch.setenv("MOE_COURSE_SMALL", "1")
    assert len(timing.race({"a": int})["a"].seconds) == 2
    monkeypatch.delenv("MOE_COURSE_SMALL")
    assert len(timing.race({"a": int})["a"].seconds) == 7


def test_a_layers_arguments_fit_its_sizes():
    x_TD, weights_TK, idx_TK, *experts = Layer(tokens=5, experts=7, top_k=3, d_model=4, d_ff=8).arguments()
    assert [tuple(a.shape) for a in (x_TD, weights_TK, idx_TK)] == [(5, 4), (5, 3), (5, 3)]
    assert [tuple(w.shape) for w in experts] == [(7, 4, 8), (7, 4, 8), (7, 8, 4)]
    assert all(len(row.unique()) == 3 for row in idx_TK)
    torch.testing.assert_close(weights_TK.sum(dim=1), torch.ones(5))


def test_a_training_step_runs_backward_too():
    seen = []

    def way(x_TD, *rest):
        x_TD.register_hook(lambda grad: seen.append(tuple(grad.shape)))
        return moe_loop(x_TD, *rest)

    Layer(tokens=5, experts=3).training_step(way)()
    assert seen == [(5, 64)]


def test_arithmetic_is_the_same_for_any_number_of_experts_and_operations_are_not():
    steps = {E: Layer(tokens=24, experts=E).training_step(moe_loop) for E in (4, 16)}
    assert timing.flops(steps[4]) == timing.flops(steps[16])
    assert timing.operations(steps[16]) > 3 * timing.operations(steps[4])


def test_flops_of_one_product():
    a, b = torch.ones(2, 3), torch.ones(3, 5)
    assert timing.flops(lambda: a @ b) == 2 * 2 * 3 * 5
    assert timing.operations(lambda: (a @ b).relu()) == 2


def test_bytes_are_those_of_arguments_and_results_and_a_view_moves_none():
    a, b = torch.ones(2, 3), torch.ones(3, 5)
    assert timing.bytes_moved(lambda: a @ b) == 4 * (6 + 15 + 10)
    assert timing.bytes_moved(lambda: b.T) == 0
    rows = torch.tensor([1, 1])  # of int64
    assert timing.bytes_moved(lambda: b[rows]) == 4 * (10 + 10) + 8 * 2  # not all of b


def test_a_grouped_product_is_one_operation_and_as_many_products_as_experts_here():
    ends_E = torch.tensor([2, 2, 7], dtype=torch.int32)  # nobody chose expert 1
    x_ND, w_EDF = torch.ones(7, 8), torch.ones(3, 8, 4)
    work = lambda: torch.nn.functional.grouped_mm(x_ND, w_EDF, offs=ends_E)  # noqa: E731
    assert (timing.operations(work), timing.products(work)) == (1, 3)


def test_the_profiler_says_nothing_beside_its_table(capfd):
    assert "aten::mm" in timing.profiled(lambda: torch.ones(2, 2) @ torch.ones(2, 2)).table()
    assert capfd.readouterr().err == ""


def test_a_sweep_tells_who_is_fastest_and_by_how_much():
    times = {8: {"a": Timing((4.0,)), "b": Timing((1.0,))}, 16: {"a": Timing((2.0,)), "b": Timing((6.0,))}}
    found = Sweep("experts", times)
    assert (found.fastest(8), found.fastest(16)) == ("b", "a")
    assert found.ratio("b", 16, ("a", 8)) == 1.5
    assert found.ways == ["a", "b"]


def test_a_sweep_varies_one_size():
    seen = []

    def way(x_TD, weights_TK, idx_TK, *experts):
        seen.append((len(x_TD), len(experts[0])))
        return moe_loop(x_TD, weights_TK, idx_TK, *experts)

    found = timing.sweep({"loop": way}, "tokens", (4, 6), rounds=1, experts=3)
    assert set(seen) == {(4, 3), (6, 3)}
    assert list(found.times) == [4, 6]
    assert found.axis == "tokens"
