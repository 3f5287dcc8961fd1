"""What notebook 06 says about the tiny MoE holds with three seeds, not on one lucky one."""

import pytest
import torch

from moe_course.lesson import tiny
from moe_course.moe import moe_loop, shared_expert_moe, top_k_gate

NARROW = tiny.TinyConfig(d_ff=4, num_experts=12, steps=600)


def gate(k, experts=None):
    return lambda logits_TE: top_k_gate(logits_TE[:, :experts].softmax(dim=-1), k, renormalize=False)


def with_shared(x_TD, weights_TK, idx_TK, *experts):
    routed_TD = moe_loop(x_TD, weights_TK, idx_TK, *(w[:-1] for w in experts))
    return shared_expert_moe(x_TD, routed_TD, *(w[-1] for w in experts))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_shared_expert_heals_what_splitting_broke(seed):
    torch.set_num_threads(1)
    wide = tiny.train(gate(1), seed, tiny.TinyConfig(d_ff=12, num_experts=4, steps=600)).final_loss
    narrow = tiny.train(gate(3), seed, NARROW).final_loss
    shared = tiny.train(gate(2, 11), seed, NARROW, with_shared).final_loss
    frozen = tiny.train(gate(2, 11), seed, NARROW, with_shared, frozen_router=True).final_loss
    assert narrow > 1.5 * wide
    assert shared < 0.6 * narrow
    assert shared < 0.8 * frozen
