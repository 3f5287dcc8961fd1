"""The stopwatch of notebook 09: what it counts, and the line that it fits."""

import time

import pytest
import torch
import torch.distributed as dist

from moe_course.lesson import ranks

SLOW = 0.05  # seconds


def test_the_parts_of_a_step_are_told_apart(monkeypatch):
    """Rank 0 sleeps before the exchange: that is its compute, and the other one's waiting."""
    monkeypatch.setenv("MOE_COURSE_SMALL", "1")

    def forward(x_TD, weights_TK, idx_TK, *rest):
        if dist.get_rank() == 0:
            time.sleep(SLOW)
        room = torch.empty_like(x_TD)
        dist.all_to_all_single(room, x_TD)
        return room

    idx_R = [torch.tensor([[0, 1], [0, 2]]), torch.tensor([[1, 0], [3, 0]])]
    slow, quick = ranks.split_step(forward, idx_R, 4, d_model=3, d_ff=2)
    assert (slow.rows, quick.rows) == (6, 2)
    assert slow.compute >= SLOW
    assert quick.wait > slow.wait
    for split in (slow, quick):
        assert split.total == pytest.approx(split.compute + split.exchange + split.wait)
        assert split.exchange > 0


def test_bytes_that_leave_a_rank(monkeypatch):
    monkeypatch.setenv("MOE_COURSE_SMALL", "1")
    found = ranks.exchange_seconds((2, 5), size=3, width=4)
    assert [num_bytes for num_bytes, _ in found] == [2 * 2 * 4 * 4, 5 * 2 * 4 * 4]
    assert all(seconds > 0 for _, seconds in found)


def test_a_line_is_found_and_never_falls_below_zero():
    assert ranks.fit_line([(x, 3 + 2 * x) for x in (1, 4, 9)]) == pytest.approx((3, 2))
    intercept, slope = ranks.fit_line([(1, 0.5), (2, 2.0), (4, 5.0)])
    assert intercept == 0
    assert 0.5 < slope < 1.3


def test_a_profile_names_the_exchanges():
    from moe_course.systems.expert_parallel import expert_parallel_forward

    idx_R = [torch.tensor([[0, 1]]), torch.tensor([[1, 0]])]
    events = ranks.profile_step(expert_parallel_forward, idx_R, 2)
    calls = {name: count for name, count, _ in events}
    assert calls["c10d::alltoall_base_"] == 3
    assert [ms for *_, ms in events] == sorted((ms for *_, ms in events), reverse=True)
