"""Loads and their statistics against Python's own numbers, on the golden fixture, and without a look at values."""

import re
import statistics
from pathlib import Path

import pytest
import torch

import moe_course
from moe_course.moe import (
    cv_squared,
    expert_counts,
    expert_load,
    global_load,
    max_violation,
)

# The golden fixture: six tokens over four experts, two slots each; expert 3 gets nothing.
Z = [[2, 1, 0, -1], [2, 0, 1, -1], [0, 2, 1, -1], [1, 2, -1, 0], [3, 1, 0, 0.5], [1.5, 1, 0, -2]]
LOGITS_TE = torch.tensor(Z, dtype=torch.float64)
IDX_TK = torch.tensor([[0, 1], [0, 2], [1, 2], [1, 0], [0, 1], [0, 1]])


def test_the_golden_fixture():
    assert expert_counts(IDX_TK, 4).tolist() == [5, 5, 2, 0]
    load_E = expert_load(IDX_TK, 4)
    assert load_E.tolist() == pytest.approx([5 / 12, 5 / 12, 1 / 6, 0])
    assert max_violation(load_E).item() == pytest.approx(2 / 3, abs=1e-6)
    assert cv_squared(load_E).item() == pytest.approx(0.5, abs=1e-6)


def test_the_fixture_is_the_two_best_of_each_token():
    assert torch.equal(LOGITS_TE.topk(2).indices, IDX_TK)


def test_counts_take_int32_and_any_strides():
    assert expert_counts(IDX_TK.int().T.contiguous().T, 6).tolist() == [5, 5, 2, 0, 0, 0]


@pytest.mark.parametrize("experts", [1, 3, 7])
def test_violation_runs_from_0_to_e_minus_1(experts):
    assert max_violation(torch.full((experts,), 1 / experts)).item() == pytest.approx(0, abs=1e-6)
    assert max_violation(torch.eye(experts)[-1]).item() == pytest.approx(experts - 1)
    assert cv_squared(torch.eye(experts)[0]).item() == pytest.approx(experts - 1)


def test_cv_squared_is_the_population_variance():
    values = [1.0, 4.0, 2.5, 0.5, 7.0]
    expected = statistics.pvariance(values) / statistics.mean(values) ** 2
    assert cv_squared(torch.tensor(values)).item() == pytest.approx(expected)
    assert cv_squared(torch.tensor([3.0])).item() == 0


def test_gradient_of_cv_squared():
    values_E = torch.tensor([1.0, 4.0, 2.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(cv_squared, values_E)


@pytest.mark.parametrize("statistic", [max_violation, cv_squared])
def test_statistics_are_at_least_float32(statistic):
    for dtype, expected in (
        (torch.bfloat16, torch.float32),
        (torch.int64, torch.float32),
        (torch.float64,) * 2,
    ):
        assert statistic(torch.tensor([1, 2, 4]).to(dtype)).dtype == expected


def test_global_load_weighs_micro_batches_by_size():
    counts_ME = torch.tensor([[8, 0], [1, 3]])
    assert global_load(counts_ME).tolist() == [0.75, 0.25]
    mean_of_loads = (counts_ME / counts_ME.sum(dim=1, keepdim=True)).mean(dim=0)
    assert mean_of_loads.tolist() == [0.625, 0.375]
    assert global_load(torch.tensor([[0, 0], [1, 3]])).tolist() == [0.25, 0.75]


def test_nothing_is_read_from_the_device():
    load_E = expert_load(torch.zeros(6, 2, dtype=torch.int64, device="meta"), 4)
    for result in (max_violation(load_E), cv_squared(load_E)):
        assert (result.device.type, result.shape) == ("meta", ())
    assert global_load(torch.zeros(3, 4, device="meta")).shape == (4,)


@pytest.mark.parametrize("function", [max_violation, cv_squared])
def test_wrong_number_of_axes(function):
    with pytest.raises(ValueError, match=r"_E needs 1 axes"):
        function(torch.ones(2, 3))


def test_the_statistics_compile_into_one_graph():
    def measure(idx_TK):
        load_E = expert_load(idx_TK, 4)
        return load_E, max_violation(load_E), cv_squared(load_E)

    compiled = torch.compile(measure, backend="eager", fullgraph=True)
    for actual, expected in zip(compiled(IDX_TK), measure(IDX_TK), strict=True):
        torch.testing.assert_close(actual, expected)


def test_a_mask_leaves_padding_out_of_the_counts():
    mask_T = torch.tensor([True, False, True, True, False, True])
    assert expert_counts(IDX_TK, 4, mask_T).tolist() == expert_counts(IDX_TK[mask_T], 4).tolist()
    assert expert_counts(IDX_TK, 4, mask_T).dtype == torch.int64
    assert expert_counts(IDX_TK, 4, torch.zeros(6, dtype=torch.bool)).tolist() == [0, 0, 0, 0]


def test_assignments_are_counted_in_one_place():
    package = Path(moe_course.__file__).parent
    counting = re.compile(
        r"bincount\(\s*(idx|queue)|(idx|queue)_\w+(\.\w+\(\))*\.bincount|scatter_add\(0, (idx|queue)"
    )
    # On the CPU `fused` counts for itself: bincount is faster there, and it finds an expert that does not exist.
    found = {path.name for path in package.rglob("*.py") if counting.search(path.read_text(encoding="utf-8"))}
    assert found - {"fused.py"} == {"counts.py"}
