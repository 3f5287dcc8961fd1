"""The experts against loops over single numbers, single tokens, and the blocks of `transformers`."""

import math

import pytest
import torch

from moe_course.moe import init_experts, moe_loop, router_probs, swiglu_ffn, top_k_gate

T, D, F, E, K = 6, 5, 3, 7, 4
NAMES = ("x_TD", "weights_TK", "w_gate_EDF", "w_up_EDF", "w_down_EFD")


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def ffn_arguments(dtype=torch.float64):
    return [normal(*s, seed=i, dtype=dtype) for i, s in enumerate([(T, D), (D, F), (D, F), (F, D)])]


def moe_arguments(dtype=torch.float64, num_experts=E):
    """x, weights, idx and the three expert weights; expert 2 is chosen by nobody, expert 5 by everybody."""
    shapes = [(T, D), (T, K), (num_experts, D, F), (num_experts, D, F), (num_experts, F, D)]
    x_TD, weights_TK, *experts = (normal(*s, seed=i, dtype=dtype) for i, s in enumerate(shapes))
    rows = [[5, 0, 1, 3], [4, 5, 6, 0], [0, 1, 5, 6], [3, 4, 0, 5], [5, 6, 4, 1], [1, 5, 3, 0]]
    return x_TD, weights_TK, torch.tensor(rows) % num_experts, *experts


def one_token(x, w_gate, w_up, w_down):
    """SwiGLU of one token with Python floats."""
    hidden = []
    for f in range(len(w_down)):
        gate = sum(x[d] * w_gate[d][f] for d in range(len(x)))
        up = sum(x[d] * w_up[d][f] for d in range(len(x)))
        hidden.append(gate / (1 + math.exp(-gate)) * up)
    return [sum(h * w_down[f][d] for f, h in enumerate(hidden)) for d in range(len(x))]


def assignment_by_assignment(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD):
    """The definition, one assignment at a time: differentiable, and shares nothing with the library."""
    rows = []
    for t in range(len(x_TD)):
        row = torch.zeros_like(x_TD[t])
        for k in range(idx_TK.shape[1]):
            e = int(idx_TK[t, k])
            gate = x_TD[t] @ w_gate_EDF[e]
            hidden = gate * torch.sigmoid(gate) * (x_TD[t] @ w_up_EDF[e])
            row = row + weights_TK[t, k] * (hidden @ w_down_EFD[e])
        rows.append(row)
    return torch.stack(rows)


class TestSwigluFfn:
    def test_by_hand(self):
        """One number in, width 1: silu(2·1)·(2·3)·0.5, where silu(2) = 2/(1 + e⁻²)."""
        y_TD = swiglu_ffn(*(torch.tensor([[v]], dtype=torch.float64) for v in (2.0, 1.0, 3.0, 0.5)))
        assert y_TD.item() == pytest.approx(2 / (1 + math.exp(-2)) * 6 * 0.5)

    def test_against_python_floats(self):
        arguments = ffn_arguments()
        x, *weights = (a.tolist() for a in arguments)
        expected = torch.tensor([one_token(row, *weights) for row in x], dtype=torch.float64)
        torch.testing.assert_close(swiglu_ffn(*arguments), expected)

    def test_gradient(self):
        assert torch.autograd.gradcheck(swiglu_ffn, [a.requires_grad_() for a in ffn_arguments()])

    @pytest.mark.parametrize("rows", [torch.bfloat16, torch.float32, torch.float64])
    @pytest.mark.parametrize("weights", [torch.bfloat16, torch.float32, torch.float64])
    def test_the_dtype_of_the_rows_comes_back(self, rows, weights):
        x_TD, *matrices = ffn_arguments()
        x_TD, matrices = x_TD.to(rows), [w.to(weights) for w in matrices]
        exact = swiglu_ffn(x_TD.double(), *(w.double() for w in matrices))
        actual = swiglu_ffn(x_TD, *matrices)
        assert actual.dtype == rows
        eps = max(torch.finfo(rows).eps, torch.finfo(torch.promote_types(rows, weights)).eps)
        torch.testing.assert_close(actual.double(), exact, rtol=8 * eps, atol=8 * eps)

    def test_mixed_dtypes_are_rounded_once_at_the_end(self):
        x_TD, *weights = ffn_arguments()
        x_TD, weights = x_TD.bfloat16(), [w.float() for w in weights]
        expected = swiglu_ffn(x_TD.float(), *weights).bfloat16()
        assert torch.equal(swiglu_ffn(x_TD, *weights), expected)

    def test_no_tokens_no_rows(self):
        _, *weights = ffn_arguments()
        assert swiglu_ffn(normal(0, D), *weights).shape == (0, D)

    def test_a_transposed_matrix_is_refused(self):
        x_TD, w_gate_DF, w_up_DF, w_down_FD = ffn_arguments()
        with pytest.raises(ValueError, match="w_down_FD"):
            swiglu_ffn(x_TD, w_gate_DF, w_up_DF, w_down_FD.T)


class TestMoeLoop:
    def test_output_and_every_gradient_against_the_definition(self):
        arguments = moe_arguments()
        leaves = [a.requires_grad_() for a in arguments if a.is_floating_point()]
        cotangent_TD = normal(T, D, seed=9)
        outputs, gradients = [], []
        for function in (moe_loop, assignment_by_assignment):
            outputs.append(function(*arguments))
            gradients.append(torch.autograd.grad(outputs[-1], leaves, cotangent_TD))
        torch.testing.assert_close(outputs[0], outputs[1])
        for name, actual, expected in zip(NAMES, *gradients, strict=True):
            torch.testing.assert_close(actual, expected, msg=lambda text, n=name: f"gradient of {n}: {text}")

    def test_gradient_against_finite_differences(self):
        x_TD, weights_TK, idx_TK, *experts = moe_arguments()
        leaves = [a.requires_grad_() for a in (x_TD, weights_TK, *experts)]
        assert torch.autograd.gradcheck(lambda x, w, *e: moe_loop(x, w, idx_TK, *e), leaves)

    def test_an_expert_that_nobody_chose_has_a_gradient_of_zeros(self):
        x_TD, weights_TK, idx_TK, *experts = moe_arguments()
        moe_loop(x_TD, weights_TK, idx_TK, *(w.requires_grad_() for w in experts)).sum().backward()
        assert not (idx_TK == 2).any()
        for w in experts:
            assert not w.grad[2].any()
            assert w.grad[5].any()

    def test_no_tokens(self):
        x_TD, weights_TK, idx_TK, *experts = moe_arguments()
        experts = [w.requires_grad_() for w in experts]
        y_TD = moe_loop(x_TD[:0], weights_TK[:0], idx_TK[:0], *experts)
        assert y_TD.shape == (0, D)
        y_TD.sum().backward()
        assert all(w.grad is not None and not w.grad.any() for w in experts)

    def test_one_expert_is_the_dense_layer(self):
        x_TD, _, _, *experts = moe_arguments(num_experts=1)
        y_TD = moe_loop(x_TD, torch.ones(T, 1).double(), torch.zeros(T, 1, dtype=torch.int64), *experts)
        torch.testing.assert_close(y_TD, swiglu_ffn(x_TD, *(w[0] for w in experts)))

    def test_equal_experts_with_weights_that_sum_to_one_are_the_dense_layer(self):
        x_TD, _, _, *experts = moe_arguments()
        copies = [w[:1].expand_as(w) for w in experts]
        weights_TK, idx_TK = top_k_gate(normal(T, E, seed=8).softmax(dim=-1), E)
        y_TD = moe_loop(x_TD, weights_TK, idx_TK, *copies)
        torch.testing.assert_close(y_TD, swiglu_ffn(x_TD, *(w[0] for w in experts)))

    def test_one_expert_in_two_slots_counts_twice(self):
        x_TD, weights_TK, idx_TK, *experts = moe_arguments()
        twice = moe_loop(x_TD, weights_TK, torch.full_like(idx_TK, 3), *experts)
        once = moe_loop(x_TD, weights_TK.sum(-1, keepdim=True), idx_TK[:, :1] * 0 + 3, *experts)
        torch.testing.assert_close(twice, once)

    def test_relabelling_the_experts_changes_nothing(self):
        x_TD, weights_TK, idx_TK, *experts = moe_arguments()
        order_E = torch.tensor([4, 2, 0, 6, 1, 5, 3])  # new place of each old expert
        moved = [w[order_E.argsort()] for w in experts]
        torch.testing.assert_close(
            moe_loop(x_TD, weights_TK, order_E[idx_TK], *moved), moe_loop(x_TD, weights_TK, idx_TK, *experts)
        )

    def test_tokens_do_not_meet(self):
        x_TD, weights_TK, idx_TK, *experts = moe_arguments()
        alone = [moe_loop(x_TD[t, None], weights_TK[t, None], idx_TK[t, None], *experts) for t in range(T)]
        torch.testing.assert_close(moe_loop(x_TD, weights_TK, idx_TK, *experts), torch.cat(alone))

    @pytest.mark.parametrize("rows", [torch.bfloat16, torch.float32, torch.float64])
    def test_the_dtype_of_the_rows_comes_back(self, rows):
        x_TD, weights_TK, idx_TK, *experts = moe_arguments()
        exact = moe_loop(x_TD.to(rows).double(), weights_TK, idx_TK, *experts)
        actual = moe_loop(x_TD.to(rows), weights_TK.float(), idx_TK, *(w.float() for w in experts))
        assert actual.dtype == rows
        eps = max(torch.finfo(rows).eps, torch.finfo(torch.float32).eps)
        torch.testing.assert_close(actual.double(), exact, rtol=0, atol=8 * eps * exact.abs().max().item())

    def test_strides_do_not_matter_and_inputs_stay_as_they_were(self):
        arguments = moe_arguments()
        strided = [a.transpose(0, -1).contiguous().transpose(0, -1) for a in arguments]
        before = [a.clone() for a in strided]
        torch.testing.assert_close(moe_loop(*strided), moe_loop(*arguments))
        assert all(torch.equal(a, b) for a, b in zip(before, strided, strict=True))

    @pytest.mark.parametrize("wrong", [-1, E])
    def test_an_expert_that_does_not_exist(self, wrong):
        x_TD, weights_TK, idx_TK, *experts = moe_arguments()
        idx_TK[3, 1] = wrong
        with pytest.raises(ValueError, match=rf"expert {wrong},.*0\.\.{E - 1}"):
            moe_loop(x_TD, weights_TK, idx_TK, *experts)

    def test_shapes_that_do_not_fit(self):
        x_TD, weights_TK, idx_TK, *experts = moe_arguments()
        with pytest.raises(ValueError, match=r"idx_TK has K = 3, expected 4"):
            moe_loop(x_TD, weights_TK, idx_TK[:, :3], *experts)


class TestAgainstTransformers:
    """The whole layer, router included, as Mixtral and OLMoE compute it."""

    def mixtral(self):
        configuration = pytest.importorskip("transformers.models.mixtral.configuration_mixtral")
        modeling = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
        config = configuration.MixtralConfig(
            hidden_size=D, intermediate_size=F, num_local_experts=E, num_experts_per_tok=K
        )
        return config, modeling.MixtralSparseMoeBlock, True

    def olmoe(self):
        configuration = pytest.importorskip("transformers.models.olmoe.configuration_olmoe")
        modeling = pytest.importorskip("transformers.models.olmoe.modeling_olmoe")
        config = configuration.OlmoeConfig(
            hidden_size=D, intermediate_size=F, num_experts=E, num_experts_per_tok=K, norm_topk_prob=False
        )
        return config, modeling.OlmoeSparseMoeBlock, False

    @pytest.mark.parametrize("model", ["mixtral", "olmoe"])
    def test_the_layer_is_theirs(self, model):
        config, block_class, renormalize = getattr(self, model)()
        config._experts_implementation = "eager"
        block = block_class(config).eval()
        with torch.no_grad():
            for seed, parameter in enumerate(block.parameters()):  # they are created uninitialised
                parameter.copy_(normal(*parameter.shape, seed=seed))
        x_TD = normal(T, D, seed=11, dtype=torch.float32)

        # Theirs are stored output first, [E, 2F, D] and [E, D, F], and the rows of the gate come first.
        w_gate_EFD, w_up_EFD = block.experts.gate_up_proj.chunk(2, dim=1)
        experts = (w_gate_EFD.mT, w_up_EFD.mT, block.experts.down_proj.mT)
        weights_TK, idx_TK = top_k_gate(router_probs(x_TD, block.gate.weight.T), K, renormalize)
        with torch.no_grad():
            expected = block(x_TD[None])
            expected_TD = expected[0] if expected.ndim == 3 else expected
            torch.testing.assert_close(moe_loop(x_TD, weights_TK, idx_TK, *experts), expected_TD)


class TestInitExperts:
    def test_shapes_dtype_and_repeatability(self):
        draw = [init_experts(E, D, F, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
        assert [tuple(w.shape) for w in draw[0]] == [(E, D, F), (E, D, F), (E, F, D)]
        assert all(torch.equal(a, b) for a, b in zip(*draw, strict=True))
        assert not torch.equal(draw[0][0], draw[0][1])
        assert {w.dtype for w in init_experts(E, D, F, dtype=torch.bfloat16)} == {torch.bfloat16}
        assert {w.device.type for w in init_experts(E, D, F, device="meta")} == {"meta"}

    def test_the_scale_is_one_over_the_root_of_fan_in(self):
        experts = init_experts(16, 64, 256, generator=torch.Generator().manual_seed(3))
        for w, fan_in in zip(experts, (64, 64, 256), strict=True):
            assert w.std().item() == pytest.approx(fan_in**-0.5, rel=0.01)  # of 262,144 draws

    @pytest.mark.parametrize("sizes", [(0, D, F), (E, 0, F), (E, D, -1)])
    def test_sizes_must_be_positive(self, sizes):
        with pytest.raises(ValueError, match="must be positive"):
            init_experts(*sizes)
