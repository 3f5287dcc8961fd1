"""Dispatch by sorting, against tables written by hand, against the loop, and without a transfer from the device."""

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from moe_course.moe import combine, gather_tokens, grouped_ffn, init_experts, moe_loop, plan_dispatch
from moe_course.moe.dispatch import _in_groups, _in_tiles
from moe_course.moe.minimal import MoELayer

T, D, F, E, K = 6, 5, 3, 7, 4
NAMES = ("x_TD", "weights_TK", "w_gate_EDF", "w_up_EDF", "w_down_EFD")
COUNTS = (
    [700, 0, 200, 30],
    [3, 0, 5, 2],
    [0, 0, 10, 0],
    [10, 0, 0, 0],
    [0, 0, 0, 10],
    [1, 1, 1, 7],
    [2, 3, 3, 2],
)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def arguments(dtype=torch.float64):
    """x, weights, idx and experts; expert 2 is chosen by nobody, expert 5 by everybody."""
    rows = [[5, 0, 1, 3], [4, 5, 6, 0], [0, 1, 5, 6], [3, 4, 0, 5], [5, 6, 4, 1], [1, 5, 3, 0]]
    experts = [w.to(dtype) for w in init_experts(E, D, F, torch.Generator().manual_seed(1), torch.float64)]
    return normal(T, D, dtype=dtype), normal(T, K, seed=2, dtype=dtype), torch.tensor(rows), *experts


def sorted_moe(x_TD, weights_TK, idx_TK, *experts, ffn=grouped_ffn):
    order_N, counts_E = plan_dispatch(idx_TK, len(experts[0]))
    y_ND = ffn(gather_tokens(x_TD, order_N, idx_TK.shape[1]), counts_E, *experts)
    return combine(y_ND, order_N, weights_TK)


def grouped_rows(counts, dtype=torch.float64):
    return normal(sum(counts), D, dtype=dtype), torch.tensor(counts), *arguments(dtype)[3:]


class TestPlanDispatch:
    def test_by_hand(self):
        order_N, counts_E = plan_dispatch(torch.tensor([[2, 0], [1, 2], [2, 1], [0, 2]]), 4)
        assert order_N.tolist() == [1, 6, 2, 5, 0, 3, 4, 7]
        assert counts_E.tolist() == [2, 2, 4, 0]

    def test_golden_fixture(self):
        """The course's fixture: six tokens, four experts, the two largest logits of each."""
        logits_TE = torch.tensor(
            [[2, 1, 0, -1], [2, 0, 1, -1], [0, 2, 1, -1], [1, 2, -1, 0], [3, 1, 0, 0.5], [1.5, 1, 0, -2]]
        )
        order_N, counts_E = plan_dispatch(logits_TE.topk(2).indices, 4)
        assert counts_E.tolist() == [5, 5, 2, 0]
        assert order_N.tolist() == [0, 2, 7, 8, 10, 1, 4, 6, 9, 11, 3, 5]

    def test_stable_over_many_assignments(self):
        order_N, _ = plan_dispatch(torch.zeros(500, 2, dtype=torch.int64), 3)
        assert torch.equal(order_N, torch.arange(1000))

    @pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
    def test_both_kinds_of_index(self, dtype):
        order_N, counts_E = plan_dispatch(torch.tensor([[1, 0]], dtype=dtype), 2)
        assert (order_N.tolist(), counts_E.tolist()) == ([1, 0], [1, 1])
        assert order_N.dtype == counts_E.dtype == torch.int64

    def test_bad_arguments(self):
        with pytest.raises(ValueError, match="num_experts must be positive, got 0"):
            plan_dispatch(torch.zeros(2, 1, dtype=torch.int64), 0)
        with pytest.raises(ValueError, match="idx_TK needs 2 axes"):
            plan_dispatch(torch.zeros(2, dtype=torch.int64), 3)


class TestGroupedFfn:
    @pytest.mark.parametrize("counts", COUNTS)
    def test_tiles_equal_groups_in_output_and_every_gradient(self, counts):
        x_ND, counts_E, *experts = grouped_rows(counts)
        experts = [w[: len(counts)] for w in experts]
        leaves = [leaf.requires_grad_() for leaf in (x_ND, *(w.clone() for w in experts))]
        dy_ND = normal(*x_ND.shape, seed=9)
        outs = _in_groups(leaves[0], counts, *leaves[1:]), _in_tiles(leaves[0], counts_E, *leaves[1:])
        torch.testing.assert_close(*outs)
        for found in zip(*(torch.autograd.grad(out, leaves, dy_ND) for out in outs), strict=True):
            torch.testing.assert_close(*found)

    @pytest.mark.parametrize("rows", [1000, 4000])
    def test_tiles_pad_a_quarter_of_the_rows_at_most(self, rows):
        """And no tile is lower than 128 rows where the rows allow it. In doubt whatever the counts are."""
        with FakeTensorMode():
            x_ND, counts_E = torch.empty(rows, D), torch.empty(4, dtype=torch.int64)
            w_EDF, w_EFD = torch.empty(4, D, F), torch.empty(4, F, D)
            with FlopCounterMode(display=False) as counter:
                grouped_ffn(x_ND, counts_E, w_EDF, w_EDF, w_EFD)
        computed = counter.get_total_flops() / (6 * D * F)
        assert rows <= computed <= max(1.25 * rows + 4, rows + 4 * 128)

    def test_an_empty_expert_has_a_gradient_of_zeros(self):
        for ffn in (lambda x, n, *w: _in_groups(x, n.tolist(), *w), _in_tiles):
            x_ND, counts_E, *experts = grouped_rows([3, 0, 5, 2, 0, 0, 1])
            ffn(x_ND, counts_E, *(w.requires_grad_() for w in experts)).sum().backward()
            for w in experts:
                assert [bool(w.grad[e].any()) for e in range(E)] == [n > 0 for n in counts_E.tolist()]

    @pytest.mark.parametrize("rows", [torch.bfloat16, torch.float32])
    def test_the_dtype_of_the_rows_comes_back(self, rows):
        x_ND, counts_E, *experts = grouped_rows([2, 0, 3, 1, 1, 0, 4], torch.float32)
        exact = grouped_ffn(x_ND.to(rows).float(), counts_E, *experts)
        for ffn in (grouped_ffn, _in_tiles):
            out = ffn(x_ND.to(rows), counts_E, *experts)
            assert out.dtype == rows
            torch.testing.assert_close(out.float(), exact, rtol=1e-2, atol=1e-2)

    def test_no_rows_at_all(self):
        x_ND, counts_E, *experts = grouped_rows([0] * E)
        assert grouped_ffn(x_ND, counts_E, *experts).shape == (0, D)
        assert _in_tiles(x_ND, counts_E, *experts).shape == (0, D)

    def test_counts_must_add_up(self):
        x_ND, counts_E, *experts = grouped_rows([2, 0, 3, 1, 1, 0, 4])
        with pytest.raises(ValueError, match="adds up to 11, there are 10 rows"):
            grouped_ffn(x_ND[1:], counts_E, *experts)


class TestCombine:
    def test_by_hand(self):
        """Token 0 has rows 2 and 0 of y, token 1 has rows 1 and 3."""
        y_ND, order_N = torch.tensor([[1.0], [2], [3], [4]]), torch.tensor([1, 2, 0, 3])
        y_TD = combine(y_ND, order_N, torch.tensor([[10.0, 100], [1000, 10_000]]))
        assert y_TD.tolist() == [[130.0], [42_000.0]]

    def test_the_dtype_of_the_rows_comes_back(self):
        y_ND, order_N = normal(6, D).bfloat16(), torch.tensor([4, 0, 2, 5, 1, 3])
        assert combine(y_ND, order_N, torch.ones(3, 2)).dtype == torch.bfloat16
        assert combine(y_ND, order_N.int(), torch.ones(3, 2)).shape == (3, D)

    def test_rows_and_weights_must_fit(self):
        with pytest.raises(ValueError, match=r"6 rows for weights of shape \(2, 2\)"):
            combine(normal(6, D), torch.arange(6), torch.ones(2, 2))
        with pytest.raises(ValueError, match="3 tokens with top_k = 3 do not make 6 assignments"):
            gather_tokens(normal(3, D), torch.arange(6), 3)


class TestTogether:
    @pytest.mark.parametrize("ffn", [grouped_ffn, _in_tiles])
    def test_output_and_every_gradient_against_the_loop(self, ffn):
        given = arguments()
        leaves = [a.requires_grad_() for a in given if a.is_floating_point()]
        outputs = moe_loop(*given), sorted_moe(*given, ffn=ffn)
        torch.testing.assert_close(*outputs)
        dy_TD = normal(T, D, seed=9)
        found = [torch.autograd.grad(output, leaves, dy_TD) for output in outputs]
        for name, loop, fast in zip(NAMES, *found, strict=True):
            torch.testing.assert_close(fast, loop, msg=lambda text, n=name: f"gradient of {n}: {text}")

    def test_a_token_adds_its_slots_in_one_order_whatever_the_plan(self):
        """Renaming the experts turns the plan over; the sum over slots must not notice, to the last bit."""
        x_TD, weights_TK, idx_TK, *experts = arguments(torch.float32)
        names_E = torch.randperm(E, generator=torch.Generator().manual_seed(4))
        moved = (x_TD, weights_TK, names_E.argsort()[idx_TK], *(w[names_E] for w in experts))
        assert torch.equal(sorted_moe(*moved), sorted_moe(x_TD, weights_TK, idx_TK, *experts))


class TestMinimalLayer:
    def test_equals_the_loop_with_its_own_weights(self):
        torch.manual_seed(0)
        layer, x_BSD = MoELayer(D, F, E, 2, renormalize=False), normal(2, 3, D, dtype=torch.float32)
        y_BSD, idx_TK = layer(x_BSD)
        probs_TE = torch.softmax(x_BSD.flatten(0, 1) @ layer.router, dim=-1)
        assert torch.equal(idx_TK, probs_TE.topk(2).indices)
        expected = moe_loop(
            x_BSD.flatten(0, 1), probs_TE.gather(1, idx_TK), idx_TK, layer.w_gate, layer.w_up, layer.w_down
        )
        torch.testing.assert_close(y_BSD, expected.view(2, 3, D))

    def test_no_value_is_read_back_from_the_device(self):
        with torch.device("meta"):
            layer = MoELayer(D, F, E, K)
            y_BSD, idx_TK = layer(torch.empty(2, 3, D))
            y_BSD.sum().backward()
        assert (tuple(y_BSD.shape), tuple(idx_TK.shape)) == ((2, 3, D), (6, K))
        assert all(parameter.grad.shape == parameter.shape for parameter in layer.parameters())

    def test_bfloat16_comes_back(self):
        y_BSD, _ = MoELayer(D, F, E, K).bfloat16()(normal(2, 3, D).bfloat16())
        assert y_BSD.dtype == torch.bfloat16

    def test_bad_arguments(self):
        with pytest.raises(ValueError, match="x_BSD needs 3 axes"):
            MoELayer(D, F, E, K)(normal(3, D))
        with pytest.raises(ValueError, match="8"):
            MoELayer(D, F, E, 8)(normal(2, 3, D, dtype=torch.float32))
