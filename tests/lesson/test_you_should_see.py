"""What "Going deeper" of notebooks 02, 04 and 05 tells a learner to expect."""

import pytest
import torch

from moe_course.lesson import collapse, limited, tiny
from moe_course.moe.router import switch_gate, top_k_gate

pytestmark = pytest.mark.slow
SEEDS = (0, 1, 2)


def test_02_a_slower_router_is_no_clear_winner():
    slow = tiny.TinyConfig(router_learning_rate=0.3)
    runs = [(tiny.train(switch_gate, seed, slow), tiny.train(switch_gate, seed)) for seed in SEEDS]
    assert all(0.23 < slow.router_moved / usual.router_moved < 0.37 for slow, usual in runs)
    assert all(0.075 < slow.final_loss < 0.165 for slow, _ in runs)
    assert all(0.045 < usual.final_loss < 0.225 for _, usual in runs)
    assert len({slow.final_loss < usual.final_loss for slow, usual in runs}) == 2


def test_04_experts_with_room_hardly_die_and_it_costs_next_to_nothing():
    seeds = range(8)
    roomy = collapse.train(collapse.Arm(hidden=64), seeds, collapse.CollapseConfig(offset=0.0))
    pushed = collapse.train(collapse.Arm(hidden=64), seeds)
    assert int(roomy.dead.sum()) == 1
    assert int(((pushed.dead >= 3) & (pushed.dead <= 5)).sum()) > len(seeds) / 2
    assert roomy.final_loss.mean() > pushed.final_loss.mean() - 0.01


def test_05_two_choices_with_and_without_a_limit():
    def gate(logits_TE):
        return top_k_gate(torch.softmax(logits_TE, dim=-1), 2)

    runs = [(limited.train(gate, seed, 1.0), limited.train(gate, seed, None)) for seed in SEEDS]
    dropped = [float(tight.dropped_T.mean()) for tight, _ in runs]
    assert all(0.075 < share < 0.175 for share in dropped)
    losses = [(tight.final_loss, free.final_loss) for tight, free in runs]
    assert [round(tight, 2) for tight, _ in losses[:2]] == [0.06, 0.12]
    assert all(1.6 < tight / free < 2.5 for tight, free in losses[:2])
    assert losses[2][0] - losses[2][1] == pytest.approx(0.01, abs=0.006)
