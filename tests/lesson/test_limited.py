"""The tiny MoE behind buffers: without a limit it is the tiny MoE, with one it counts whom it drops."""

import pytest
import torch

from moe_course.lesson import limited, tiny
from moe_course.moe import moe_loop, positions_in_expert, switch_gate, token_major_positions

T, D, F, E, K = 13, 3, 4, 5, 2


@pytest.fixture
def args():
    rng = torch.Generator().manual_seed(0)
    idx_TK = torch.stack([torch.randperm(E, generator=rng)[:K] for _ in range(T)])
    shapes = ((T, D), (T, K), (E, D, F), (E, D, F), (E, F, D))
    x_TD, weights_TK, *weights = (torch.randn(*shape, generator=rng) for shape in shapes)
    return x_TD, weights_TK, idx_TK, *weights


def test_without_a_limit_it_is_the_loop(args):
    moe = limited.LimitedMoE(None)
    torch.testing.assert_close(moe(*args), moe_loop(*args))
    assert moe.dropped[0].tolist() == [0] * T


def test_with_a_limit_it_is_the_loop_without_the_dropped(args):
    x_TD, weights_TK, idx_TK, *weights = args
    moe = limited.LimitedMoE(0.5)  # ceil(13 · 2 / 5 · 0.5) = 3 slots
    kept_TK = positions_in_expert(idx_TK, E) < 3
    torch.testing.assert_close(moe(*args), moe_loop(x_TD, weights_TK * kept_TK, idx_TK, *weights))
    assert moe.dropped[0].tolist() == (~kept_TK).float().mean(1).tolist()
    assert not kept_TK.all()


def test_the_parts_given_are_used(args):
    parts = limited.Parts(
        capacity=lambda tokens, experts, k, factor: 2,
        positions=lambda idx_TK, weights_TK, experts: token_major_positions(idx_TK, experts),
    )
    moe = limited.LimitedMoE(1.0, parts)
    moe(*args)
    assert moe.dropped[0].tolist() == (token_major_positions(args[2], E) >= 2).float().mean(1).tolist()


def test_evaluation_is_not_counted(args):
    moe = limited.LimitedMoE(1.0)
    with torch.no_grad():
        moe(*args)
    assert moe.dropped == []


def test_a_run_reports_loss_and_drops(monkeypatch):
    monkeypatch.setenv("MOE_COURSE_SMALL", "1")
    run = limited.train(switch_gate, 0, factor=1.0)
    assert len(run.loss) == tiny.TinyConfig().steps
    assert run.dropped_T.shape == (32 * 6,)
    assert 0 < run.drop_rate < 1
    free = limited.train(switch_gate, 0, factor=None)
    assert free.drop_rate == 0
    assert free.loss[0] != run.loss[0]


def test_late_lines_lose(monkeypatch):
    """The symptom of notebook 05: in token order the end of the batch is dropped, whatever it says."""
    monkeypatch.setenv("MOE_COURSE_SMALL", "1")
    for seed in range(2):
        first, *_, last = limited.train(switch_gate, seed, factor=1.0).dropped_T.view(4, -1).mean(1)
        assert last > first + 0.1
