"""The recorded blocks are what `transformers` computes, and a layer of the course computes the same."""

import json

import pytest
import torch

from moe_course.lesson import blocks as module
from moe_course.moe import from_huggingface, moe_loop, router_probs, top_k_gate


@pytest.fixture
def recorded(monkeypatch):
    """The blocks as a machine without `transformers` sees them."""
    monkeypatch.setattr(module, "_installed", lambda: False)
    return module.blocks()


def test_recorded_numbers_say_where_they_come_from(recorded):
    version = json.loads(module.RECORDED.read_text(encoding="utf-8"))["transformers"]
    assert recorded[1] == f"recorded with transformers {version}"
    assert list(recorded[0]) == ["Mixtral", "OLMoE", "Qwen3-MoE"]


def test_the_recorded_numbers_are_fresh(recorded):
    """`python -m moe_course.lesson.blocks` records them."""
    pytest.importorskip("transformers")
    for name, old in recorded[0].items():
        new = module._built(name)
        for key, value in vars(new).items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(vars(old)[key], value, rtol=1e-5, atol=1e-6, msg=f"{name} {key}")
            else:
                assert vars(old)[key] == pytest.approx(value, abs=2 / 4096), (name, key)


def test_a_layer_of_the_course_agrees_to_rounding(recorded):
    for name, block in recorded[0].items():
        experts = from_huggingface(block.gate_up_proj_E2FD, block.down_proj_EDF)
        probs_TE = router_probs(block.x_TD, block.router_ED.T)
        y_TD = moe_loop(block.x_TD, *top_k_gate(probs_TE, block.top_k, block.renormalize), *experts)
        torch.testing.assert_close(y_TD, block.y_TD, rtol=1e-5, atol=1e-6, msg=name)
        other_TD = moe_loop(block.x_TD, *top_k_gate(probs_TE, block.top_k, not block.renormalize), *experts)
        assert (other_TD - block.y_TD).abs().max() > 0.01  # whether gates are renormalised shows


def test_in_bfloat16_the_blocks_send_some_tokens_elsewhere(recorded):
    assert all(0 < block.moved_in_bf16 < 0.05 for block in recorded[0].values())
