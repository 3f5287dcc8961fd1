"""Shared and fine-grained experts, groups, and weights from elsewhere, against loops and against `transformers`."""

import pytest
import torch

from moe_course.moe import (
    from_huggingface,
    group_limited_top_k,
    init_experts,
    moe_loop,
    router_probs,
    shared_expert_moe,
    split_experts,
    swiglu_ffn,
    top_k_gate,
    upcycle,
)
from moe_course.systems.accounting import moe_ffn_params

T, D, F, E, K = 6, 5, 4, 7, 3


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def dense(seed=0, dtype=torch.float64):
    return (
        normal(D, F, seed=seed, dtype=dtype),
        normal(D, F, seed=seed + 1, dtype=dtype),
        normal(F, D, seed=seed + 2, dtype=dtype),
    )


class TestSharedExpert:
    def test_is_one_more_expert_that_every_token_chooses_with_weight_one(self):
        experts, shared = init_experts(E, D, F, dtype=torch.float64), dense(3)
        x_TD, weights_TK = normal(T, D), normal(T, K, seed=1)
        idx_TK = torch.arange(T * K).reshape(T, K) % E
        got_TD = shared_expert_moe(x_TD, moe_loop(x_TD, weights_TK, idx_TK, *experts), *shared)
        more = [torch.cat([w, own[None]]) for w, own in zip(experts, shared, strict=True)]
        weights = torch.cat([weights_TK, torch.ones(T, 1, dtype=torch.float64)], dim=1)
        want_TD = moe_loop(x_TD, weights, torch.cat([idx_TK, torch.full((T, 1), E)], dim=1), *more)
        torch.testing.assert_close(got_TD, want_TD)

    def test_the_tokens_dtype_comes_back(self):
        x_TD = normal(T, D, dtype=torch.bfloat16)
        y_TD = shared_expert_moe(x_TD, normal(T, D, seed=1, dtype=torch.float32), *dense(dtype=torch.float32))
        assert y_TD.dtype == torch.bfloat16

    def test_outputs_of_other_tokens_are_refused(self):
        with pytest.raises(ValueError, match="routed_TD"):
            shared_expert_moe(normal(T, D), normal(T + 1, D), *dense())


class TestSplit:
    @pytest.mark.parametrize("granularity", [1, 2, 6])
    def test_experts_cost_the_same_and_the_router_more(self, granularity):
        d_ff, num_experts, top_k = split_experts(12, E, K, granularity)
        before, after = moe_ffn_params(D, 12, E, K), moe_ffn_params(D, d_ff, num_experts, top_k)
        router = D * E * (granularity - 1)
        assert after == (before[0] + router, before[1] + router)

    @pytest.mark.parametrize(
        ("sizes", "offending"),
        [
            ((10, 5, 2, 4), "10 .*4"),
            ((0, 5, 2, 4), "d_ff .*0"),
            ((12, 5, 6, 4), "6 .*5"),
            ((12, 5, 2, -1), "granularity .*-1"),
        ],
    )
    def test_bad_sizes_are_named(self, sizes, offending):
        with pytest.raises(ValueError, match=offending):
            split_experts(*sizes)


class TestGroups:
    def test_by_hand(self):
        scores_TE = torch.tensor([[0.9, 0.1, 0.1, 0.5, 0.6, 0.2, 0.3, 0.4, 0.35]])
        assert group_limited_top_k(scores_TE, torch.zeros(9), 3, 1, 2).tolist() == [[4, 3]]  # 1.1 beats 1.0
        assert group_limited_top_k(scores_TE, torch.zeros(9), 3, 2, 3).tolist() == [[0, 4, 3]]
        bias_E = torch.tensor([0, 0, 0, 0, 0, 0, 0.5, 0.5, 0])
        assert group_limited_top_k(scores_TE, bias_E, 3, 1, 3).tolist() == [[7, 6, 8]]

    def test_with_all_groups_it_is_plain_top_k(self):
        scores_TE, bias_E = normal(T, 12).sigmoid(), normal(12, seed=1) / 9
        want_TK = (scores_TE + bias_E).topk(5, dim=-1).indices
        for groups in (1, 2, 3, 4, 6, 12):
            assert torch.equal(group_limited_top_k(scores_TE, bias_E, groups, groups, 5), want_TK)

    def test_equals_go_to_the_lower_index(self):
        assert group_limited_top_k(torch.ones(1, 6), torch.zeros(6), 3, 2, 3).tolist() == [[0, 1, 2]]

    @pytest.mark.parametrize("shift", [0.0, -4.0])
    def test_transformers_deepseek_v3_router_chooses_the_same(self, shift):
        deepseek = pytest.importorskip("transformers.models.deepseek_v3")
        config = deepseek.DeepseekV3Config(
            hidden_size=9, n_routed_experts=24, num_experts_per_tok=5, n_group=6, topk_group=3
        )
        router = deepseek.modeling_deepseek_v3.DeepseekV3TopkRouter(config)
        x_TD = normal(200, 9, seed=1, dtype=torch.float32)
        with torch.no_grad():
            router.weight.copy_(normal(24, 9, seed=2))
            router.e_score_correction_bias.copy_(shift + normal(24, seed=3) / 4)
            logits_TE, weights_TK, idx_TK = router(x_TD)
        scores_TE = logits_TE.sigmoid()
        mine_TK = group_limited_top_k(scores_TE, router.e_score_correction_bias, 6, 3, 5)
        assert torch.equal(mine_TK.sort(dim=-1).values, idx_TK.sort(dim=-1).values)
        plain_TK = (scores_TE + router.e_score_correction_bias).topk(5, dim=-1).indices
        assert not torch.equal(plain_TK.sort(dim=-1).values, idx_TK.sort(dim=-1).values)  # groups matter here
        assert torch.equal(scores_TE.gather(1, mine_TK).sum(1) > 0, weights_TK.sum(1) > 0)

    @pytest.mark.parametrize(
        ("groups", "top", "k", "offending"),
        [
            (5, 2, 3, "12 .*5"),
            (0, 1, 1, "12 .*0"),
            (4, 5, 3, "top_groups .*4.*5"),
            (4, 2, 7, "k .*6.*7"),
            (4, 2, 0, "k .*0"),
        ],
    )
    def test_bad_sizes_are_named(self, groups, top, k, offending):
        with pytest.raises(ValueError, match=offending):
            group_limited_top_k(torch.rand(3, 12), torch.zeros(12), groups, top, k)


BLOCKS = {  # class, configuration, whether the gates are renormalised
    "mixtral": ("Mixtral", "MixtralSparseMoeBlock", {"num_local_experts": E, "intermediate_size": F}, True),
    "olmoe": ("Olmoe", "OlmoeSparseMoeBlock", {"num_experts": E, "intermediate_size": F}, False),
    "qwen3_moe": (
        "Qwen3Moe",
        "Qwen3MoeSparseMoeBlock",
        {"num_experts": E, "moe_intermediate_size": F, "norm_topk_prob": True},
        True,
    ),
}


class TestFromHuggingface:
    @pytest.mark.parametrize("name", BLOCKS)
    def test_the_layer_reproduces_the_block_in_output_and_gradients(self, name):
        transformers = pytest.importorskip("transformers")
        family, block_class, sizes, renormalize = BLOCKS[name]
        config = getattr(transformers, f"{family}Config")(hidden_size=D, num_experts_per_tok=K, **sizes)
        modeling = getattr(transformers.models, name)
        block = getattr(getattr(modeling, f"modeling_{name}"), block_class)(config)
        for n, parameter in enumerate(block.parameters()):
            parameter.data.copy_(normal(*parameter.shape, seed=n) / 2)
        x_TD, dy_TD = normal(T, D, seed=9, dtype=torch.float32), normal(T, D, seed=8, dtype=torch.float32)
        y_TD = block(x_TD[None])[0]
        y_TD.backward(dy_TD)

        experts = [block.experts.gate_up_proj, block.experts.down_proj]
        leaves = [w.detach().requires_grad_() for w in (*experts, block.gate.weight)]
        weights = from_huggingface(*leaves[:2])
        gates = top_k_gate(router_probs(x_TD, leaves[2].T), K, renormalize)
        mine_TD = moe_loop(x_TD, *gates, *weights)
        torch.testing.assert_close(mine_TD, y_TD, rtol=1e-5, atol=1e-6)
        mine_TD.backward(dy_TD)
        for leaf, parameter in zip(leaves, (*experts, block.gate.weight), strict=True):
            torch.testing.assert_close(leaf.grad, parameter.grad, rtol=1e-4, atol=1e-6)

    def test_shapes_that_do_not_fit_are_named(self):
        with pytest.raises(ValueError, match=r"\(7, 8, 5\).*\(7, 4, 5\)"):
            from_huggingface(normal(E, F, D), normal(E, D, F))


class TestUpcycle:
    @pytest.mark.parametrize("renormalize", [True, False])
    def test_equals_the_dense_layer_where_gates_sum_to_one(self, renormalize):
        x_TD, weights = normal(T, D), dense()
        gates = top_k_gate(normal(T, E, seed=5).softmax(dim=-1), K, renormalize)
        y_TD, dense_TD = moe_loop(x_TD, *gates, *upcycle(*weights, E)), swiglu_ffn(x_TD, *weights)
        kept_T1 = gates[0].sum(dim=1, keepdim=True)
        torch.testing.assert_close(y_TD, kept_T1 * dense_TD)
        assert torch.allclose(y_TD, dense_TD) == renormalize

    @pytest.mark.parametrize("num_experts", [1, 3])
    def test_no_two_matrices_share_storage(self, num_experts):
        weights = dense()
        experts = [matrix for w in upcycle(*weights, num_experts) for matrix in w.unbind()]
        experts[0].zero_()
        assert all(bool(matrix.any()) for matrix in [*experts[1:], *weights])

    def test_bad_sizes_are_named(self):
        with pytest.raises(ValueError, match=r"num_experts .*0"):
            upcycle(*dense(), 0)


def test_nothing_is_read_on_the_host():
    """The meta device holds no values: reading one raises."""
    with torch.device("meta"):
        x_TD, weights = torch.empty(T, D), [torch.empty(D, F), torch.empty(D, F), torch.empty(F, D)]
        assert shared_expert_moe(x_TD, x_TD, *weights).shape == (T, D)
        assert group_limited_top_k(torch.empty(T, 12), torch.empty(12), 4, 2, 5).shape == (T, 5)
        assert [w.shape for w in upcycle(*weights, E)] == [(E, D, F), (E, D, F), (E, F, D)]
        experts = from_huggingface(torch.empty(E, 2 * F, D), torch.empty(E, D, F))
        assert [w.shape for w in experts] == [(E, D, F), (E, D, F), (E, F, D)]
