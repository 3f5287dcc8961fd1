"""The balancing functions on the golden fixture, against transformers, by hand, and without a look at values."""

import math

import pytest
import torch

from moe_course.moe import (
    biased_top_k,
    expert_choice,
    expert_load,
    load_balancing_loss,
    router_z_loss,
    top_k_gate,
    update_bias,
)

T, D, E, K = 6, 5, 7, 4
Z = [[2, 1, 0, -1], [2, 0, 1, -1], [0, 2, 1, -1], [1, 2, -1, 0], [3, 1, 0, 0.5], [1.5, 1, 0, -2]]
LOGITS_TE = torch.tensor(Z, dtype=torch.float64)
PROBS_TE = LOGITS_TE.softmax(dim=1)
IDX_TK = LOGITS_TE.topk(2).indices


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def close(actual, expected, tolerance=1e-6):
    torch.testing.assert_close(
        actual.double(), torch.as_tensor(expected).double(), rtol=tolerance, atol=tolerance
    )


class TestLoadBalancingLoss:
    def test_the_golden_fixture(self):
        close(load_balancing_loss(PROBS_TE, IDX_TK), 1.467869)

    def test_the_mistakes_that_the_fixture_tells_apart(self):
        """f from the first choice only; P in the place of f; P over the selected only."""
        p_E, f_E = PROBS_TE.mean(dim=0), expert_load(IDX_TK, 4)
        close(load_balancing_loss(PROBS_TE, IDX_TK[:, :1]), 1.760468)
        close(4 * (p_E * p_E).sum(), 1.494731)
        selected_TE = torch.zeros_like(PROBS_TE).scatter(1, IDX_TK, 1.0) * PROBS_TE
        close(4 * (f_E * selected_TE.mean(dim=0)).sum(), 1.388516)

    @pytest.mark.parametrize("k", [1, 2, 5])
    def test_uniform_routing_gives_1_for_every_k(self, k):
        idx_TK = (torch.arange(5)[:, None] + torch.arange(k)) % 5
        close(load_balancing_loss(torch.full((5, 5), 0.2), idx_TK), 1)

    def test_1_is_not_its_minimum(self):
        """f favours expert 0 by a hair at a time, P favours expert 1: these are the choices of top-1."""
        probs_TE = torch.tensor([[0.51, 0.49]] * 3 + [[0.1, 0.9]] * 2)
        loss = load_balancing_loss(probs_TE, probs_TE.argmax(dim=1, keepdim=True))
        close(loss, 2 * (0.6 * 0.346 + 0.4 * 0.654))
        assert loss < 0.95

    def test_the_gradient_is_e_times_f_over_t(self):
        probs_TE = PROBS_TE.clone().requires_grad_()
        (gradient_TE,) = torch.autograd.grad(load_balancing_loss(probs_TE, IDX_TK), probs_TE)
        close(gradient_TE, (4 * expert_load(IDX_TK, 4) / 6).expand(6, 4))

    def test_a_mask_is_the_same_as_leaving_the_tokens_out(self):
        mask_T = torch.tensor([True, False, True, True, False, True])
        dirty_TE = torch.where(mask_T[:, None], PROBS_TE, torch.nan)
        close(
            load_balancing_loss(dirty_TE, IDX_TK, mask_T),
            load_balancing_loss(PROBS_TE[mask_T], IDX_TK[mask_T]),
        )

    def test_all_tokens_masked_give_0(self):
        assert load_balancing_loss(PROBS_TE, IDX_TK, torch.zeros(6, dtype=torch.bool)).item() == 0

    def test_two_opposite_collapses_pool_to_a_perfect_score(self):
        probs_TE = torch.tensor([[0.9, 0.1]] * 3 + [[0.1, 0.9]] * 3, dtype=torch.float64)
        idx_TK = probs_TE.argmax(dim=1, keepdim=True)
        halves = [load_balancing_loss(probs_TE[part], idx_TK[part]) for part in (slice(3), slice(3, 6))]
        close(torch.stack(halves), [1.8, 1.8])
        close(load_balancing_loss(probs_TE, idx_TK), 1)

    def test_bfloat16_probabilities_are_averaged_in_float32(self):
        loss = load_balancing_loss(PROBS_TE.bfloat16(), IDX_TK)
        assert loss.dtype == torch.float32
        close(loss, load_balancing_loss(PROBS_TE.bfloat16().double(), IDX_TK))

    @pytest.mark.parametrize("masked", [False, True])
    def test_transformers_gives_k_times_this(self, masked):
        mixtral = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
        logits_TE = normal(24, 6, seed=3)
        idx_TK = top_k_gate(logits_TE.softmax(dim=1), 3)[1]
        mask_T = torch.arange(24) % 12 < 9 if masked else None
        attention_mask = mask_T.view(2, 12).long() if masked else None
        theirs = mixtral.load_balancing_loss_func((logits_TE,), 6, 3, attention_mask)
        close(theirs, 3 * load_balancing_loss(logits_TE.softmax(dim=1), idx_TK, mask_T), 1e-5)
        if not masked:
            close(mixtral.load_balancing_loss_func((LOGITS_TE,), 4, 2), 2.935739)

    def test_megatron_writes_it_with_sums(self):
        """E / (T·T·K) · Σ assignments · summed probabilities, as `switch_load_balancing_loss_func` has it."""
        counts_E = torch.bincount(IDX_TK.flatten(), minlength=4)
        close(load_balancing_loss(PROBS_TE, IDX_TK), (counts_E * PROBS_TE.sum(dim=0)).sum() * 4 / (6 * 6 * 2))


class TestRouterZLoss:
    def test_the_golden_fixture(self):
        close(router_z_loss(LOGITS_TE), 6.465267)

    def test_large_logits(self):
        close(router_z_loss(torch.tensor([[300.0, 300.0]])), (300 + math.log(2)) ** 2, 1e-5)

    def test_bfloat16_logits_in_float32(self):
        assert router_z_loss(LOGITS_TE.bfloat16()).dtype == torch.float32

    def test_gradient(self):
        assert torch.autograd.gradcheck(router_z_loss, normal(T, E).requires_grad_())


class TestBiasedTopK:
    def test_by_hand(self):
        """Scores 0.5, 0.3, 0.2 and a bias that lifts expert 2 over expert 1; the weights know nothing of it."""
        weights_TK, idx_TK = biased_top_k(
            torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([0.0, 0, 0.2]), 2, 2.5
        )
        assert idx_TK.tolist() == [[0, 2]]
        close(weights_TK, [[2.5 * 5 / 7, 2.5 * 2 / 7]])

    def test_without_a_bias_it_is_the_renormalised_gate(self):
        for actual, expected in zip(
            biased_top_k(PROBS_TE, torch.zeros(4), 3), top_k_gate(PROBS_TE, 3), strict=True
        ):
            close(actual, expected)

    def test_the_same_weights_as_deepseek_v3(self):
        """The scores' sigmoid, top-k of the biased ones, gather, divide by the sum, scale: `DeepseekV3TopkRouter`
        of transformers, one group."""
        scores_TE, bias_E = normal(T, E).sigmoid(), normal(E, seed=1)
        weights_TK, idx_TK = biased_top_k(scores_TE, bias_E, K, scale=2.5)
        for t in range(T):
            chosen = sorted(range(E), key=lambda e: -(scores_TE[t, e] + bias_E[e]))[:K]
            assert idx_TK[t].tolist() == chosen
            close(weights_TK[t], 2.5 * scores_TE[t, chosen] / scores_TE[t, chosen].sum())

    def test_no_gradient_reaches_the_bias(self):
        scores_TE, bias_E = normal(T, E).sigmoid().requires_grad_(), normal(E, seed=1).requires_grad_()
        weights_TK, _ = biased_top_k(scores_TE, bias_E, K)
        gradients = torch.autograd.grad((weights_TK**2).sum(), (scores_TE, bias_E), allow_unused=True)
        assert gradients[0].abs().sum() > 0
        assert gradients[1] is None

    def test_bfloat16_scores_with_a_float32_bias(self):
        assert biased_top_k(PROBS_TE.bfloat16(), torch.zeros(4), 2)[0].dtype == torch.bfloat16

    @pytest.mark.parametrize("k", [0, 5])
    def test_k_outside_the_experts(self, k):
        with pytest.raises(ValueError, match=f"got {k}"):
            biased_top_k(PROBS_TE, torch.zeros(4), k)


class TestUpdateBias:
    def test_by_hand(self):
        close(update_bias(torch.tensor([0.5, 0, 0]), torch.tensor([5, 1, 3]), 0.1), [0.4, 0.1, 0])

    def test_an_even_load_moves_nothing(self):
        bias_E = torch.randn(7)
        assert torch.equal(update_bias(bias_E, torch.full((7,), 10**9), 0.1), bias_E)

    def test_a_new_tensor_without_gradient(self):
        bias_E = torch.zeros(3, requires_grad=True)
        moved_E = update_bias(bias_E, torch.tensor([1, 1, 1]), 0.1)
        assert not moved_E.requires_grad
        moved_E += 1
        assert bias_E.tolist() == [0, 0, 0]

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
    def test_the_bias_keeps_its_dtype(self, dtype):
        assert (
            update_bias(torch.zeros(3, dtype=dtype), torch.tensor([1.0, 2, 3]).double(), 0.1).dtype == dtype
        )

    def test_it_balances_a_router(self):
        """A softmax router of fixed scores, one favourite: the bias alone brings the load to nearly even."""
        probs_TE = (normal(512, 4, dtype=torch.float32) + torch.tensor([2.0, 0, 0, -1])).softmax(dim=1)
        bias_E = torch.zeros(4)
        for _ in range(300):
            _, idx_TK = biased_top_k(probs_TE, bias_E, 1)
            bias_E = update_bias(bias_E, torch.bincount(idx_TK.flatten(), minlength=4), 0.005)
        before, after = (
            expert_load(biased_top_k(probs_TE, b, 1)[1], 4).max() for b in (torch.zeros(4), bias_E)
        )
        assert before > 0.6
        assert after < 0.28


class TestExpertChoice:
    def test_by_hand(self):
        probs_TE = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
        weights_EC, idx_EC = expert_choice(probs_TE, 2)
        assert idx_EC.tolist() == [[0, 1], [2, 1]]
        close(weights_EC, [[0.9, 0.6], [0.8, 0.4]])

    def test_ties_go_to_the_earlier_token(self):
        assert expert_choice(torch.full((40, 3), 1 / 3), 2)[1].tolist() == [[0, 1]] * 3

    def test_a_later_token_changes_who_serves_an_earlier_one(self):
        before_TE = torch.tensor([[0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
        after_TE = torch.cat([before_TE[:2], torch.tensor([[0.9, 0.1]])])
        assert 0 in expert_choice(before_TE, 2)[1][0]
        assert 0 not in expert_choice(after_TE, 2)[1][0]

    @pytest.mark.parametrize("capacity", [-1, 0, 7])
    def test_capacity_outside_the_tokens(self, capacity):
        with pytest.raises(ValueError, match=rf"1\.\.6.*got {capacity}"):
            expert_choice(PROBS_TE, capacity)


def every_function(device="cpu"):
    logits_TE, probs_TE = normal(T, E).to(device), normal(T, E, seed=1).softmax(dim=1).to(device)
    idx_TK = torch.tensor([[1, 3, 0, 6]] * T, device=device)
    mask_T = torch.tensor([True, False] * 3, device=device)
    bias_E = normal(E, seed=2).to(device)
    return [
        ("loss", lambda p: load_balancing_loss(p, idx_TK), probs_TE),
        ("masked loss", lambda p: load_balancing_loss(p, idx_TK, mask_T), probs_TE),
        ("z-loss", router_z_loss, logits_TE),
        ("biased", lambda s: biased_top_k(s, bias_E, K)[0], probs_TE),
        ("expert choice", lambda p: expert_choice(p, 3)[0], probs_TE),
    ]


@pytest.mark.parametrize(("name", "function", "tensor"), every_function("meta"))
def test_nothing_is_read_from_the_device(name, function, tensor):
    tensor = tensor.detach().requires_grad_()
    function(tensor).sum().backward()
    assert tensor.grad.device.type == "meta"


def test_the_update_reads_nothing_from_the_device():
    counts_E = torch.ones(E, dtype=torch.int64, device="meta")
    assert update_bias(torch.zeros(E, device="meta"), counts_E, 0.1).shape == (E,)


@pytest.mark.parametrize(("name", "function", "tensor"), every_function())
def test_inputs_stay_and_gradients_are_right(name, function, tensor):
    before = tensor.clone()
    assert torch.autograd.gradcheck(function, tensor.requires_grad_())
    assert torch.equal(tensor, before)


@pytest.mark.parametrize(("name", "function", "tensor"), every_function())
def test_one_graph(name, function, tensor):
    compiled = torch.compile(function, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(tensor), function(tensor))
