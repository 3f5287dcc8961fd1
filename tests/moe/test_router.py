"""The router against oracles written with Python floats and loops, and against its own gradients."""

import math

import pytest
import torch

from moe_course.moe import (
    noisy_logits,
    router_gradient,
    router_probs,
    sparse_gates,
    switch_gate,
    top_k_gate,
)
from moe_course.moe.router import softmax_of_experts

T, D, E, K = 6, 5, 7, 4
DTYPES = [torch.bfloat16, torch.float32, torch.float64]

# Six tokens over four experts, with a tie in the fourth token's second choice and no token for expert 3.
Z = [[2, 1, 0, -1], [2, 0, 1, -1], [0, 2, 1, -1], [1, 2, -1, 0], [3, 1, 0, 0.5], [1.5, 1, 0, -2]]


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def softmax(logits: list[float]) -> list[float]:
    powers = [math.exp(z - max(logits)) for z in logits]
    return [p / sum(powers) for p in powers]


def best(scores: list[float], k: int) -> list[int]:
    """The k highest, the lower index first among equals: Python's sort is stable."""
    return sorted(range(len(scores)), key=lambda e: -scores[e])[:k]


def matmul(a: list[list[float]], b: list[list[float]]) -> list[list[float]]:
    return [[sum(x * b[j][k] for j, x in enumerate(row)) for k in range(len(b[0]))] for row in a]


def close(actual: torch.Tensor, expected, tolerance=1e-6):
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)


class TestRouterProbs:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_is_a_float32_softmax_over_experts(self, dtype):
        x_TD, w_DE = normal(T, D, dtype=dtype), normal(D, E, seed=1, dtype=dtype)
        probs_TE = router_probs(x_TD, w_DE)
        assert probs_TE.dtype == torch.float32
        close(probs_TE, [softmax(row) for row in matmul(x_TD.tolist(), w_DE.tolist())])

    def test_bfloat16_logits_would_lose_the_winner(self):
        x_TD = torch.tensor([[256.0, 1.0]], dtype=torch.bfloat16)  # 257 is not a bfloat16: it rounds to 256
        w_DE = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.bfloat16)
        close(router_probs(x_TD, w_DE), [softmax([256.0, 257.0])])

    def test_autocast_does_not_lower_the_precision(self):
        x_TD, w_DE = torch.tensor([[256.0, 1.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (x_TD @ w_DE).dtype == torch.bfloat16  # autocast is at work
            close(router_probs(x_TD, w_DE), [softmax([256.0, 257.0])])

    def test_huge_logits_do_not_overflow(self):
        close(router_probs(torch.tensor([[1e4]]), torch.tensor([[1.0, -1.0, 0.0]])), [[1.0, 0.0, 0.0]])

    def test_gradient(self):
        x_TD, w_DE = normal(T, D).requires_grad_(), normal(D, E, seed=1).requires_grad_()
        cotangent_TE = normal(T, E, seed=2)
        dx_TD, dw_DE = torch.autograd.grad(router_probs(x_TD, w_DE), (x_TD, w_DE), cotangent_TE)

        x, w, v = x_TD.tolist(), w_DE.tolist(), cotangent_TE.tolist()
        dlogits = []
        for t, p in enumerate(softmax(row) for row in matmul(x, w)):
            mean = sum(p[e] * v[t][e] for e in range(E))
            dlogits.append([p[e] * (v[t][e] - mean) for e in range(E)])
        close(dx_TD, matmul(dlogits, [list(column) for column in zip(*w, strict=True)]), 1e-5)
        close(dw_DE, matmul([list(column) for column in zip(*x, strict=True)], dlogits), 1e-5)

    @pytest.mark.parametrize("shapes", [((T, D), (E, D)), ((2, 3, D), (D, E)), ((T, D), (D,))])
    def test_shapes_that_do_not_fit(self, shapes):
        with pytest.raises(ValueError, match="x_TD"):
            router_probs(*(torch.zeros(shape) for shape in shapes))


class TestTopKGate:
    def test_by_hand(self):
        probs_TE = torch.tensor([[0.2, 0.5, 0.3], [0.7, 0.1, 0.2]])
        weights_TK, idx_TK = top_k_gate(probs_TE, 2)
        assert idx_TK.tolist() == [[1, 2], [0, 2]]
        close(weights_TK, [[0.625, 0.375], [7 / 9, 2 / 9]])
        close(top_k_gate(probs_TE, 2, renormalize=False)[0], [[0.5, 0.3], [0.7, 0.2]])

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("k", [1, K, E])
    @pytest.mark.parametrize("renormalize", [True, False])
    def test_against_a_sort(self, dtype, k, renormalize):
        probs_TE = normal(T, E).softmax(dim=-1).to(dtype)
        weights_TK, idx_TK = top_k_gate(probs_TE, k, renormalize)
        expected_idx = [best(row, k) for row in probs_TE.tolist()]
        expected = [[row[e] for e in idx] for row, idx in zip(probs_TE.tolist(), expected_idx, strict=True)]
        if renormalize:
            expected = [[w / sum(row) for w in row] for row in expected]
        assert idx_TK.tolist() == expected_idx
        assert (weights_TK.dtype, idx_TK.dtype) == (dtype, torch.int64)
        close(weights_TK, expected, 2e-2 if dtype == torch.bfloat16 else 1e-6)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
    def test_many_ties_zeros_of_both_signs_and_infinities_are_sorted_like_a_stable_sort(self, dtype):
        rng = torch.Generator().manual_seed(0)
        scores_TE = torch.randint(-2, 3, (200, 9), generator=rng).to(dtype)
        scores_TE[::3, 4] = -0.0
        scores_TE[::5, 2], scores_TE[::7, 8] = torch.inf, -torch.inf
        order_TE = scores_TE.argsort(dim=-1, descending=True, stable=True)
        for k in (1, 4, 9):
            _, idx_TK = top_k_gate(scores_TE, k, renormalize=False)
            assert idx_TK.tolist() == order_TE[:, :k].tolist()

    def test_ties_go_to_the_lower_index(self):
        _, idx_TK = top_k_gate(torch.full((T, 64), 1 / 64), 3)
        assert idx_TK.tolist() == [[0, 1, 2]] * T

    def test_the_golden_fixture_leaves_expert_3_empty(self):
        _, idx_TK = top_k_gate(torch.tensor(Z, dtype=torch.float64).softmax(dim=-1), 2)
        assert torch.bincount(idx_TK.flatten(), minlength=4).tolist() == [5, 5, 2, 0]

    @pytest.mark.parametrize("renormalize", [True, False])
    def test_gradient(self, renormalize):
        probs_TE = normal(T, E, dtype=torch.float64).softmax(dim=-1).requires_grad_()
        assert torch.autograd.gradcheck(lambda p: top_k_gate(p, K, renormalize)[0], probs_TE)

    def test_indices_can_be_viewed_flat(self):
        weights_TK, idx_TK = top_k_gate(normal(T, E).softmax(dim=-1), K)
        assert idx_TK.view(-1).shape == weights_TK.view(-1).shape == (T * K,)

    @pytest.mark.parametrize("k", [-1, 0, E + 1])
    def test_k_outside_the_experts(self, k):
        with pytest.raises(ValueError, match=rf"1\.\.{E}.*got {k}"):
            top_k_gate(torch.full((T, E), 1 / E), k)

    @pytest.mark.parametrize("shape", [(E,), (2, 3, E)])
    def test_wrong_number_of_dimensions(self, shape):
        with pytest.raises(ValueError, match="probs_TE"):
            top_k_gate(torch.ones(shape), 2)


class TestSparseGates:
    def test_by_hand(self):
        logits_TE = torch.tensor([[0.0, math.log(3.0), -5.0]])
        close(sparse_gates(logits_TE, 2), [[0.25, 0.75, 0.0]])

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("k", [1, K, E])
    def test_against_a_loop(self, dtype, k):
        logits_TE = 3 * normal(T, E, dtype=dtype)
        gates_TE = sparse_gates(logits_TE, k)
        expected = [[0.0] * E for _ in range(T)]
        for t, row in enumerate(logits_TE.tolist()):
            chosen = best(row, k)
            for e, gate in zip(chosen, softmax([row[e] for e in chosen]), strict=True):
                expected[t][e] = gate
        assert gates_TE.dtype == dtype
        assert (gates_TE == 0).sum(dim=-1).tolist() == [E - k] * T  # zero exactly, not nearly
        close(gates_TE, expected, 1e-2 if dtype == torch.bfloat16 else 1e-6)

    @pytest.mark.parametrize("function", [lambda z: sparse_gates(z, K), lambda z: switch_gate(z)[0]])
    def test_the_softmax_is_in_float32_even_for_float64(self, function):
        result = function(normal(T, E, dtype=torch.float64))
        assert result.dtype == torch.float64
        assert torch.equal(result, result.float().double())  # every value is a float32 number

    def test_softmax_and_top_k_commute_only_with_renormalisation(self):
        logits_TE = normal(T, E, dtype=torch.float64)
        probs_TE = logits_TE.softmax(dim=-1)
        renormalised, plain = (
            torch.zeros_like(probs_TE).scatter(-1, idx_TK, weights_TK)
            for weights_TK, idx_TK in (top_k_gate(probs_TE, K, r) for r in (True, False))
        )
        close(sparse_gates(logits_TE, K), renormalised.tolist())
        assert (sparse_gates(logits_TE, K) - plain).abs().amax(dim=-1).min() > 1e-3  # every token differs

    def test_gradient_reaches_the_chosen_only(self):
        logits_TE, cotangent_TE = normal(T, E).requires_grad_(), normal(T, E, seed=1)
        gates_TE = sparse_gates(logits_TE, K)
        (dlogits_TE,) = torch.autograd.grad(gates_TE, logits_TE, cotangent_TE)
        for t in range(T):
            g, v = gates_TE[t].tolist(), cotangent_TE[t].tolist()
            mean = sum(a * b for a, b in zip(g, v, strict=True))
            close(dlogits_TE[t], [g[e] * (v[e] - mean) for e in range(E)])

    @pytest.mark.parametrize("k", [0, E + 1])
    def test_k_outside_the_experts(self, k):
        with pytest.raises(ValueError, match=rf"got {k}"):
            sparse_gates(torch.zeros(T, E), k)


class TestNoisyLogits:
    def arguments(self, dtype=torch.float32):
        shapes = ((T, D), (D, E), (D, E), (T, E))
        return [normal(*shape, seed=seed, dtype=dtype) for seed, shape in enumerate(shapes)]

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("training", [True, False])
    def test_against_a_loop(self, dtype, training):
        arguments = self.arguments(dtype)
        logits_TE = noisy_logits(*arguments, training)
        x, w_gate, w_noise, noise = (a.tolist() for a in arguments)
        expected, std = matmul(x, w_gate), matmul(x, w_noise)
        if training:
            for t in range(T):
                for e in range(E):
                    expected[t][e] += noise[t][e] * math.log1p(math.exp(std[t][e]))
        assert logits_TE.dtype == dtype
        close(logits_TE, expected, 1e-2 if dtype == torch.bfloat16 else 1e-5)

    def test_noise_stops_at_evaluation(self):
        x_TD, w_gate_DE, w_noise_DE, noise_TE = self.arguments()
        poisoned = noisy_logits(x_TD, w_gate_DE, w_noise_DE * math.nan, noise_TE * math.nan, training=False)
        assert torch.equal(poisoned, x_TD @ w_gate_DE)

    def test_without_noise_weights_the_scale_is_log_2(self):
        x_TD, w_gate_DE, w_noise_DE, noise_TE = self.arguments(torch.float64)
        noisy = noisy_logits(x_TD, w_gate_DE, torch.zeros_like(w_noise_DE), noise_TE, training=True)
        close(noisy - x_TD @ w_gate_DE, (noise_TE * math.log(2)).tolist())

    def test_rows_in_bfloat16_and_weights_in_float32(self):
        x_TD, w_gate_DE, w_noise_DE, noise_TE = self.arguments()
        logits_TE = noisy_logits(x_TD.bfloat16(), w_gate_DE, w_noise_DE, noise_TE, training=True)
        assert logits_TE.dtype == torch.bfloat16

    def test_gradient(self):
        arguments = [a.requires_grad_() for a in self.arguments(torch.float64)]
        assert torch.autograd.gradcheck(lambda *a: noisy_logits(*a, training=True), arguments)


class TestSwitchGate:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_the_best_expert_with_its_probability(self, dtype):
        logits_TE = normal(T, E, dtype=dtype)
        weight_T, idx_T = switch_gate(logits_TE)
        rows = logits_TE.tolist()
        assert idx_T.tolist() == [best(row, 1)[0] for row in rows]
        assert (weight_T.shape, weight_T.dtype, idx_T.dtype) == ((T,), dtype, torch.int64)
        close(weight_T, [max(softmax(row)) for row in rows], 1e-2 if dtype == torch.bfloat16 else 1e-6)

    def test_its_router_learns_and_the_renormalised_one_does_not(self):
        """The bug in one assertion: p/p = 1, so top-1 with renormalised weights has no task gradient."""
        logits_TE = normal(T, E, dtype=torch.float64).requires_grad_()
        expert_out_TD, target_TD = normal(T, D, seed=1), normal(T, D, seed=2)

        def router_gradient_of_the_task(weight_T):
            loss = ((weight_T[:, None] * expert_out_TD - target_TD) ** 2).sum()
            return torch.autograd.grad(loss, logits_TE)[0]

        renormalised = top_k_gate(logits_TE.softmax(dim=-1), 1, renormalize=True)[0][:, 0]
        assert router_gradient_of_the_task(renormalised).abs().max() < 1e-12
        assert router_gradient_of_the_task(switch_gate(logits_TE)[0]).abs().amax(dim=-1).min() > 1e-3

    def test_ties_go_to_the_lower_index(self):
        assert switch_gate(torch.zeros(T, 64))[1].tolist() == [0] * T


class TestRouterGradient:
    def arguments(self, dtype=torch.float64):
        logits_TE = normal(T, E, dtype=torch.float64)
        probs_TE = logits_TE.softmax(dim=-1)
        idx_TK = torch.tensor([best(row, K) for row in logits_TE.tolist()])
        dy_TD, out_TKD = normal(T, D, seed=1, dtype=dtype), normal(T, K, D, seed=2, dtype=dtype)
        return logits_TE, dy_TD, out_TKD, probs_TE.to(dtype), idx_TK

    def test_by_hand(self):
        """One token, two experts at p = 1/4, 3/4, expert 0 chosen: ⟨dy, out⟩ = 8, p₀(1−p₀)·8 = 1.5."""
        dy_TD, out_TKD = torch.tensor([[1.0, 2.0]]), torch.tensor([[[2.0, 3.0]]])
        dlogits_TE = router_gradient(dy_TD, out_TKD, torch.tensor([[0.25, 0.75]]), torch.tensor([[0]]))
        close(dlogits_TE, [[1.5, -1.5]])

    def test_against_autograd(self):
        logits_TE, dy_TD, out_TKD, probs_TE, idx_TK = self.arguments()
        logits_TE.requires_grad_()
        weights_TK = logits_TE.softmax(dim=-1).gather(-1, idx_TK)
        y_TD = (weights_TK[..., None] * out_TKD).sum(dim=1)
        (expected_TE,) = torch.autograd.grad(y_TD, logits_TE, dy_TD)
        close(router_gradient(dy_TD, out_TKD, probs_TE, idx_TK), expected_TE.tolist())

    def test_against_finite_differences(self):
        logits_TE, dy_TD, out_TKD, probs_TE, idx_TK = self.arguments()
        dlogits_TE = router_gradient(dy_TD, out_TKD, probs_TE, idx_TK)
        dy, out, idx = dy_TD.tolist(), out_TKD.tolist(), idx_TK.tolist()

        def loss(t, logits):
            p = softmax(logits)
            return sum(p[idx[t][k]] * dy[t][d] * out[t][k][d] for k in range(K) for d in range(D))

        for t, row in enumerate(logits_TE.tolist()):
            for e in range(E):
                up, down = ([*row[:e], row[e] + step, *row[e + 1 :]] for step in (1e-5, -1e-5))
                slope = (loss(t, up) - loss(t, down)) / 2e-5
                assert dlogits_TE[t, e].item() == pytest.approx(slope, abs=1e-7)

    def test_an_expert_named_twice_gets_both_signals(self):
        _, dy_TD, out_TKD, probs_TE, _ = self.arguments()
        idx_TK = torch.full((T, 2), 3)
        twice = router_gradient(dy_TD, out_TKD[:, :2], probs_TE, idx_TK)
        both = out_TKD[:, :2].sum(dim=1, keepdim=True)
        once = router_gradient(dy_TD, both, probs_TE, idx_TK[:, :1])
        close(twice, once.tolist())

    def test_the_unchosen_move_only_together(self):
        """Their gradient is −p times one number per token: no direct signal about the expert itself."""
        _, dy_TD, out_TKD, probs_TE, idx_TK = self.arguments()
        ratio_TE = router_gradient(dy_TD, out_TKD, probs_TE, idx_TK) / probs_TE
        unchosen = [[e for e in range(E) if e not in row] for row in idx_TK.tolist()]
        ratios = ratio_TE.gather(-1, torch.tensor(unchosen))
        close(ratios, ratios[:, :1].expand_as(ratios).tolist())

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_the_gradient_has_the_dtype_of_the_probabilities(self, dtype):
        _, dy_TD, out_TKD, probs_TE, idx_TK = self.arguments()
        dlogits_TE = router_gradient(dy_TD.bfloat16(), out_TKD.bfloat16(), probs_TE.to(dtype), idx_TK)
        assert dlogits_TE.dtype == dtype


def every_function(device="cpu", transposed=False):
    """One call of each router function: name, function, float arguments, other arguments."""

    def make(*shape, seed):
        tensor = normal(*shape, seed=seed)
        if transposed and tensor.ndim == 2:
            tensor = tensor.T.contiguous().T
        return tensor.to(device)

    x_TD, dy_TD, out_TKD = make(T, D, seed=1), make(T, D, seed=2), make(T, K, D, seed=3)
    w_gate_DE, w_noise_DE = make(D, E, seed=4), make(D, E, seed=5)
    logits_TE, noise_TE = make(T, E, seed=6), make(T, E, seed=7)
    probs_TE = logits_TE.softmax(dim=-1)
    idx_TK = torch.tensor([[1, 3, 0, 6]] * T, device=device)
    return [
        ("router_probs", router_probs, (x_TD, w_gate_DE), ()),
        ("top_k_gate", top_k_gate, (probs_TE,), (K,)),
        ("sparse_gates", sparse_gates, (logits_TE,), (K,)),
        ("noisy_logits", noisy_logits, (x_TD, w_gate_DE, w_noise_DE, noise_TE), (True,)),
        ("switch_gate", switch_gate, (logits_TE,), ()),
        ("router_gradient", router_gradient, (dy_TD, out_TKD, probs_TE), (idx_TK,)),
    ]


def first(result):
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize(("name", "function", "tensors", "others"), every_function(device="meta"))
def test_nothing_is_read_from_the_device(name, function, tensors, others):
    """On the meta device there are no values: any .item() or mixed device raises, forward or backward."""
    tensors = [tensor.detach().requires_grad_() for tensor in tensors]
    first(function(*tensors, *others)).sum().backward()
    assert all(tensor.grad is not None and tensor.grad.device.type == "meta" for tensor in tensors)


def test_the_meta_device_does_catch_a_read():
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.zeros(T, device="meta").max().item()


@pytest.mark.parametrize(("name", "function", "tensors", "others"), every_function(transposed=True))
def test_strides_do_not_matter_and_inputs_stay_as_they_were(name, function, tensors, others):
    before = [tensor.clone() for tensor in tensors]
    strided = first(function(*tensors, *others))
    assert all(torch.equal(a, b) for a, b in zip(before, tensors, strict=True))
    torch.testing.assert_close(strided, first(function(*(t.contiguous() for t in tensors), *others)))


@pytest.mark.parametrize(("name", "function", "tensors", "others"), every_function())
def test_tokens_are_routed_each_on_its_own(name, function, tensors, others):
    """Permuting the tokens permutes the result: nothing leaks between the rows."""
    order = torch.tensor([3, 0, 5, 1, 4, 2])

    def permute(argument):
        return argument[order] if isinstance(argument, torch.Tensor) and len(argument) == T else argument

    permuted = function(*(permute(argument) for argument in (*tensors, *others)))
    torch.testing.assert_close(first(permuted), first(function(*tensors, *others))[order])


def test_the_router_compiles_into_one_graph():
    def route(x_TD, w_DE, w_noise_DE, noise_TE, out_TKD):
        logits_TE = noisy_logits(x_TD, w_DE, w_noise_DE, noise_TE, True)
        probs_TE = router_probs(x_TD, w_DE)
        weights_TK, idx_TK = top_k_gate(probs_TE, K)
        dlogits_TE = router_gradient(x_TD, out_TKD, probs_TE, idx_TK)
        return sparse_gates(logits_TE, K), switch_gate(logits_TE)[0], weights_TK, dlogits_TE

    arguments = [normal(*shape) for shape in [(T, D), (D, E), (D, E), (T, E), (T, K, D)]]
    compiled = torch.compile(route, backend="eager", fullgraph=True)
    for actual, expected in zip(compiled(*arguments), route(*arguments), strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("shape", [(256, 2), (300, 15), (300, 16), (255, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_softmax_of_few_experts_is_the_softmax_of_each_row(shape, dtype):
    """On both sides of the sizes from which it is computed across memory; gradients and layout included."""
    logits_TE = (
        torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(dtype).mul(4).requires_grad_()
    )
    probs_TE, want_TE = softmax_of_experts(logits_TE), logits_TE.softmax(dim=-1)
    assert probs_TE.is_contiguous()
    torch.testing.assert_close(probs_TE, want_TE)
    dy_TE = torch.randn(shape, generator=torch.Generator().manual_seed(4)).to(dtype)
    got, want = (torch.autograd.grad(y_TE, logits_TE, dy_TE)[0] for y_TE in (probs_TE, want_TE))
    torch.testing.assert_close(got, want)
