"""The library's versions of notebook 11: against the parts that earlier notebooks build, and in what is refused."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from moe_course.moe import clinic, moe_loop, router_probs, sparse_gates, switch_gate, top_k_gate


def test_gate_is_switch_for_one_expert_and_a_softmax_over_the_selected_for_more():
    logits_TE = torch.randn(9, 5)
    weights_TK, idx_TK = clinic.gate(logits_TE, 1)
    torch.testing.assert_close((weights_TK[:, 0], idx_TK[:, 0]), switch_gate(logits_TE))
    weights_TK, idx_TK = clinic.gate(logits_TE, 3)
    torch.testing.assert_close(torch.zeros(9, 5).scatter(1, idx_TK, weights_TK), sparse_gates(logits_TE, 3))
    with pytest.raises(ValueError, match=r"k must be in 1\.\.5"):
        clinic.gate(logits_TE, 6)


def test_counts_are_kept_for_calls_that_are_trained_on():
    torch.manual_seed(0)
    gate, x_TD = clinic.BalancedGate(6, 5, 2), torch.randn(7, 6)
    gate(x_TD)
    assert gate.counts_E.sum() == 0
    for reentrant in (True, False):
        weights_TK, _ = checkpoint(gate, x_TD.requires_grad_(), use_reentrant=reentrant)
        weights_TK.sin().sum().backward()
    assert gate.counts_E.sum() == 2 * 7 * 2
    before_E = gate.bias_E.clone()
    gate.update_bias(0.5)
    assert gate.counts_E.sum() == 0
    assert (gate.bias_E - before_E).abs().max() == 0.5
    assert gate.bias_E.requires_grad is False


def test_a_router_in_bfloat16_agrees_with_the_same_numbers_in_float32():
    x_TD, router_DE = torch.randn(200, 16).bfloat16(), torch.randn(16, 64).bfloat16()
    weights_TK, idx_TK = clinic.route_in_bf16(x_TD, router_DE, 4)
    want_TK, want_idx_TK = top_k_gate(router_probs(x_TD.float(), router_DE.float()), 4)
    assert torch.equal(idx_TK, want_idx_TK)
    assert torch.equal(weights_TK, want_TK.bfloat16())


def test_the_context_of_a_token_is_its_prefix():
    x_BSD, router_DE = torch.randn(2, 5, 3), torch.randn(3, 4)
    whole_BSE = clinic.context_router(x_BSD, router_DE)
    for length in range(1, 6):
        torch.testing.assert_close(whole_BSE[:, :length], clinic.context_router(x_BSD[:, :length], router_DE))


@pytest.mark.parametrize("tokens", [0, 1, 6])
def test_decoding_equals_the_loop_also_without_tokens(tokens):
    x_TD, weights_TK = torch.randn(tokens, 4), torch.rand(tokens, 2)
    idx_TK = torch.stack([torch.tensor([3, 1])] * tokens) if tokens else torch.empty(0, 2, dtype=torch.long)
    experts = torch.randn(5, 4, 3), torch.randn(5, 4, 3), torch.randn(5, 3, 4)
    y_TD = clinic.decode_experts(x_TD, weights_TK, idx_TK, *experts)
    torch.testing.assert_close(y_TD, moe_loop(x_TD, weights_TK, idx_TK, *experts))


def test_decoding_refuses_an_expert_that_does_not_exist():
    experts = torch.randn(5, 4, 3), torch.randn(5, 4, 3), torch.randn(5, 3, 4)
    for e in (-1, 5):
        with pytest.raises(ValueError, match=rf"{e}.*0\.\.4"):
            clinic.decode_experts(torch.randn(1, 4), torch.ones(1, 1), torch.tensor([[e]]), *experts)
