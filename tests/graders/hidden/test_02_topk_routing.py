"""Hidden criteria of notebook 02, top-k routing."""

from __future__ import annotations

import torch

from graders import oracles
from graders import test_02_topk_routing as public
from graders.common import expect_values, named, short, wholes
from graders.probes import call, vjp
from moe_course.grading.exercises.expect import expect_gradients, expect_index, returned
from moe_course.grading.exercises.rubric import criterion, grades


def orders(tokens, experts, rng):
    """A new order of the tokens, and one of the experts: column e holds what column names_E[e] held."""
    return torch.randperm(tokens, generator=rng), torch.randperm(experts, generator=rng)


@grades("router_probs")
class HiddenRouterProbs:
    @staticmethod
    def expect_probs(subject, args, want_TE, what, atol=1e-5):
        given = named("x_TD w_DE", args)
        got = returned(subject.run(call, "router_probs", *args), given)
        expect_values(got, want_TE, "TE", given, what=what, rtol=0, atol=atol)

    @criterion(
        1,
        "a token's probabilities are its own; renamed experts; a shift of all logits changes nothing",
        hint="Which other tokens, and which other experts, does a probability depend on?",
    )
    def test_symmetries(self, subject, rng):
        tokens, d_model, experts = wholes(rng, (4, 9), (2, 6), (4, 11))
        x_TD, w_DE = args = public.TestRouterProbs.inputs(tokens, d_model, experts, rng)
        want_TE = oracles.router_probs(*args)
        order_T, names_E = orders(tokens, experts, rng)
        shift_D1 = torch.randn(d_model, 1, generator=rng)
        for case, inputs, want in (
            ("one token alone", (x_TD[:1], w_DE), want_TE[:1]),
            ("shuffled tokens", (x_TD[order_T], w_DE), want_TE[order_T]),
            ("renamed experts", (x_TD, w_DE[:, names_E]), want_TE[:, names_E]),
            ("shifted logits", (x_TD, w_DE + shift_D1), want_TE),
        ):
            self.expect_probs(subject, inputs, want, f"probs_TE, {case}")

    @criterion(
        1,
        "many tokens and experts, large logits too; gradients of all of them",
        hint="Is the result connected with tokens and weights, and does it stay a number when logits are large?",
    )
    def test_sizes(self, subject, rng):
        sizes = wholes(rng, (30, 60), (61, 90), (20, 50))
        x_TD, w_DE = public.TestRouterProbs.inputs(*sizes, rng)
        self.expect_probs(subject, (x_TD, w_DE), oracles.router_probs(x_TD, w_DE), "probs_TE")
        large = (100 * x_TD, w_DE)
        self.expect_probs(subject, large, oracles.router_probs(*large), "probs_TE", atol=1e-3)
        c_TE = short(torch.randn(len(x_TD), w_DE.shape[1], generator=rng))
        given = named("x_TD w_DE dprobs_TE", (x_TD, w_DE, c_TE))
        want = oracles.gradients(oracles.router_probs, (x_TD, w_DE), c_TE, wrt=(0, 1))
        _, got = returned(subject.run(vjp, "router_probs", (x_TD, w_DE), (c_TE,), wrt=(0, 1)), given)
        expect_gradients(got, want, ("x_TD", "w_DE"), given)


@grades("top_k_gate")
class HiddenTopKGate:
    @staticmethod
    def expect_gate(subject, probs_TE, k, renormalize, want, what=""):
        """The experts and their weights, from the largest down."""
        *_, weights_TK, idx_TK, given = public.TestTopKGate.gate(
            subject, probs_TE, k, renormalize=renormalize
        )
        expect_index(idx_TK, want[1], "TK", given, what=f"idx_TK{what}")
        expect_values(weights_TK, want[0], "TK", given, what=f"weights_TK{what}")

    @criterion(
        1,
        "a token's choice is its own; renamed experts keep their weights",
        hint="If another token in the batch were replaced, which of these numbers may change?",
    )
    def test_symmetries(self, subject, rng):
        tokens, experts = wholes(rng, (4, 9), (5, 12))
        (k,) = wholes(rng, (2, experts - 1))
        probs_TE = oracles.distinct_probs(tokens, experts, rng)
        order_T, names_E = orders(tokens, experts, rng)
        for renormalize in (False, True):
            weights_TK, idx_TK = oracles.top_k_gate(probs_TE, k, renormalize)
            for case, probs, want in (
                (", one token alone", probs_TE[:1], (weights_TK[:1], idx_TK[:1])),
                (", shuffled tokens", probs_TE[order_T], (weights_TK[order_T], idx_TK[order_T])),
                (", renamed experts", probs_TE[:, names_E], (weights_TK, names_E.argsort()[idx_TK])),
            ):
                self.expect_gate(subject, probs, k, renormalize, want, case)

    @criterion(
        1,
        "many tokens, many experts, any k; gradients too",
        hint="Does anything in your code hold for a few experts only?",
    )
    def test_sizes(self, subject, rng):
        tokens, experts = wholes(rng, (30, 60), (16, 28))
        for k in (1, *wholes(rng, (2, 15)), experts):
            probs_TE = oracles.distinct_probs(tokens, experts, rng)
            for renormalize in (False, True):
                want = oracles.top_k_gate(probs_TE, k, renormalize)
                self.expect_gate(subject, probs_TE, k, renormalize, want)
                self.expect_gradient(subject, probs_TE, k, renormalize, rng)

    @staticmethod
    def expect_gradient(subject, probs_TE, k, renormalize, rng):
        """The gradient of Σ c_e·weight_e: each expert's weight has its number, in whichever slot it comes."""
        args = (probs_TE, k, renormalize)
        *_, idx_TK, given = public.TestTopKGate.gate(subject, probs_TE, k, renormalize=renormalize)
        c_TE = short(torch.randn(probs_TE.shape, generator=rng))
        c_TK, want_TK = (c_TE.gather(1, idx.long()) for idx in (idx_TK, oracles.top_k(probs_TE, k)))
        want = oracles.gradients(lambda *a: oracles.top_k_gate(*a)[0], args, want_TK, wrt=(0,))
        _, got = returned(subject.run(vjp, "top_k_gate", args, (c_TK,), wrt=(0,)), given)
        expect_gradients(got, want, ("probs_TE",), given)


@grades("sparse_gates")
class HiddenSparseGates:
    @staticmethod
    def expect_gates(subject, logits_TE, k, want_TE, what="gates_TE"):
        _, got, given = public.TestSparseGates.gates(subject, logits_TE, k)
        expect_values(got, want_TE, "TE", given, what=what)

    @criterion(
        1,
        "gates are a token's own, do not feel a shift of its logits, nor those left out",
        hint="Which of a token's logits do its gates depend on, and only on which differences of theirs?",
    )
    def test_symmetries(self, subject, rng):
        tokens, experts = wholes(rng, (4, 9), (5, 12))
        (k,) = wholes(rng, (2, experts - 2))
        logits_TE = oracles.distinct_logits(tokens, experts, rng)
        gates_TE = oracles.sparse_gates(logits_TE, k)
        order_T, names_E = orders(tokens, experts, rng)
        shift_T1 = 5 * torch.randn(tokens, 1, generator=rng)
        lowered_TE = torch.where(gates_TE == 0, logits_TE - 3, logits_TE)
        for case, logits, want_TE in (
            ("one token alone", logits_TE[:1], gates_TE[:1]),
            ("shuffled tokens", logits_TE[order_T], gates_TE[order_T]),
            ("renamed experts", logits_TE[:, names_E], gates_TE[:, names_E]),
            ("shifted logits", logits_TE + shift_T1, gates_TE),
            ("the others' logits lowered", lowered_TE, gates_TE),
        ):
            self.expect_gates(subject, logits, k, want_TE, f"gates_TE, {case}")

    @criterion(
        1,
        "many tokens, many experts, any k; gradients too",
        hint="Does anything in your code hold for a few experts only?",
    )
    def test_sizes(self, subject, rng):
        tokens, experts = wholes(rng, (30, 60), (16, 40))
        for k in (1, *wholes(rng, (2, 15)), experts):
            args = (oracles.distinct_logits(tokens, experts, rng), k)
            self.expect_gates(subject, *args, oracles.sparse_gates(*args))
            large = (args[0] + 300 * (2 * torch.rand(tokens, 1, generator=rng) - 1), k)
            self.expect_gates(subject, *large, oracles.sparse_gates(*large), "gates_TE of large logits")
            c_TE = short(torch.randn(tokens, experts, generator=rng))
            given = named("logits_TE k dgates_TE", (*args, c_TE))
            want = oracles.gradients(oracles.sparse_gates, args, c_TE, wrt=(0,))
            _, got = returned(subject.run(vjp, "sparse_gates", args, (c_TE,), wrt=(0,)), given)
            expect_gradients(got, want, ("logits_TE",), given)


@grades("noisy_logits")
class HiddenNoisyLogits:
    @criterion(
        1,
        "the noise counts linearly: none, the opposite, three times as much",
        hint="What should be left when all noise is 0, and what when its sign turns round?",
    )
    def test_linear_in_the_noise(self, subject, rng):
        sizes = wholes(rng, (4, 9), (2, 6), (3, 8))
        x_TD, w_gate_DE, w_noise_DE, noise_TE, _ = public.TestNoisyLogits.inputs(*sizes, True, rng)
        clean_TE = oracles.noisy_logits(x_TD, w_gate_DE, w_noise_DE, noise_TE, False)
        added_TE = oracles.noisy_logits(x_TD, 0 * w_gate_DE, w_noise_DE, noise_TE, True)
        for times in (0, -1, 3):
            args = (x_TD, w_gate_DE, w_noise_DE, times * noise_TE, True)
            given = named(public.NOISY, args)
            got = returned(subject.run(call, "noisy_logits", *args), given)
            expect_values(got, clean_TE + times * added_TE, "TE", given, what="logits_TE", atol=1e-4)

    @criterion(
        1,
        "many tokens and experts; the noise of one touches no other; a large scale; gradients",
        hint="Which token and which expert does each number in noise_TE belong to?",
    )
    def test_sizes(self, subject, rng):
        sizes = tokens, d_model, experts = wholes(rng, (30, 60), (8, 20), (21, 40))
        x_TD, w_gate_DE, w_noise_DE, noise_TE, _ = public.TestNoisyLogits.inputs(*sizes, True, rng)
        order_T, names_E = orders(tokens, experts, rng)
        quiet_TE = short(noise_TE * (torch.rand(tokens, experts, generator=rng) < 0.2))
        x_TD = x_TD / d_model**0.5
        for args in (
            (x_TD, w_gate_DE, w_noise_DE, noise_TE, False),
            (x_TD, w_gate_DE, w_noise_DE, quiet_TE, True),
            (
                x_TD[order_T],
                w_gate_DE[:, names_E],
                w_noise_DE[:, names_E],
                quiet_TE[order_T][:, names_E],
                True,
            ),
        ):
            given = named(public.NOISY, args)
            got = returned(subject.run(call, "noisy_logits", *args), given)
            expect_values(got, oracles.noisy_logits(*args), "TE", given, what="logits_TE", atol=1e-5)
        large = (100 * x_TD.abs(), w_gate_DE, w_noise_DE.abs(), noise_TE, True)
        got = returned(subject.run(call, "noisy_logits", *large), named(public.NOISY, large))
        expect_values(
            got, oracles.noisy_logits(*large), "TE", named(public.NOISY, large), what="logits_TE", atol=1e-2
        )
        for training in (False, True):
            args, wrt = (x_TD, w_gate_DE, w_noise_DE, noise_TE, training), (0, 1, 2)[: 2 + training]
            given = named(public.NOISY, args)
            want = oracles.gradients(oracles.noisy_logits, args, quiet_TE, wrt)
            _, got = returned(subject.run(vjp, "noisy_logits", args, (quiet_TE,), wrt), given)
            expect_gradients(got, want, [public.NOISY.split()[i] for i in wrt], given)


@grades("moe_loop")
class HiddenMoeLoop:
    @staticmethod
    def expect_y(subject, args, want_TD, what="y_TD", **tolerance):
        given = named(public.MOE, args)
        got = returned(subject.run(call, "moe_loop", *args), given)
        expect_values(got, want_TD, "TD", given, what=what, **{"atol": 1e-5, **tolerance})

    @criterion(
        1,
        "slots may be reordered, a weight of 0 removes an expert, equal experts are one dense layer",
        hint="What would the layer be if all its experts were alike and the weights of a token summed to 1?",
    )
    def test_symmetries(self, subject, rng):
        tokens, d_model, d_ff, experts = wholes(rng, (4, 9), (2, 6), (3, 8), (5, 9))
        args = public.TestMoeLoop.inputs(tokens, d_model, d_ff, experts, 3, rng)
        x_TD, weights_TK, idx_TK, *experts_E = args
        self.expect_y(
            subject,
            (x_TD, weights_TK[:, [2, 0, 1]], idx_TK[:, [2, 0, 1]], *experts_E),
            oracles.moe(*args),
            "y_TD with its slots reordered",
        )
        keep_K = torch.tensor([1.0, 0, 1])
        fewer = (x_TD, (weights_TK * keep_K)[:, ::2], idx_TK[:, ::2], *experts_E)
        self.expect_y(
            subject, (x_TD, weights_TK * keep_K, *args[2:]), oracles.moe(*fewer), "y_TD, one weight 0"
        )
        alike = tuple(w_E[:1].repeat(experts, 1, 1) for w_E in experts_E)
        whole_TK = weights_TK / weights_TK.sum(1, keepdim=True)
        dense_TD = oracles.swiglu(x_TD, *(w_E[0] for w_E in experts_E))
        self.expect_y(subject, (x_TD, whole_TK, idx_TK, *alike), dense_TD, "y_TD of equal experts")

    @criterion(
        1,
        "many tokens and experts, most of them without a token; gradients of those are 0",
        hint="What happens to the experts that nobody chose, in the result and in the gradient?",
    )
    def test_sizes(self, subject, rng):
        tokens, d_model, d_ff, experts = wholes(rng, (20, 40), (4, 8), (9, 14), (20, 40))
        among = torch.randperm(experts, generator=rng)[:6].tolist()
        args = public.TestMoeLoop.inputs(tokens, d_model, d_ff, experts, 4, rng, among=among)
        self.expect_y(subject, args, oracles.moe(*args))
        dy_TD = short(torch.randn(tokens, d_model, generator=rng))
        wrt = (0, 1, 3, 4, 5)
        given = {**named(public.MOE, args), "dy_TD": dy_TD}
        _, got = returned(subject.run(vjp, "moe_loop", args, (dy_TD,), wrt), given)
        expect_gradients(
            got, oracles.gradients(oracles.moe, args, dy_TD, wrt), [public.MOE.split()[i] for i in wrt], given
        )


@grades("switch_gate")
class HiddenSwitchGate:
    @staticmethod
    def expect_gate(subject, logits_TE, want, what=""):
        _, weight_T, idx_T, given = public.TestSwitchGate.gate(subject, logits_TE)
        expect_index(idx_T, want[1], "T", given, what=f"idx_T{what}")
        expect_values(weight_T, want[0], "T", given, what=f"weight_T{what}")

    @criterion(
        1,
        "a token's choice and weight are its own, and do not feel a shift of its logits",
        hint="Which other tokens does the softmax see, and what does adding 5 to all logits of a token change?",
    )
    def test_symmetries(self, subject, rng):
        tokens, experts = wholes(rng, (4, 9), (4, 12))
        logits_TE = oracles.distinct_logits(tokens, experts, rng)
        weight_T, idx_T = oracles.switch_gate(logits_TE)
        order_T, names_E = orders(tokens, experts, rng)
        shift_T1 = 5 * torch.randn(tokens, 1, generator=rng)
        for case, logits, want in (
            (", one token alone", logits_TE[:1], (weight_T[:1], idx_T[:1])),
            (", shuffled tokens", logits_TE[order_T], (weight_T[order_T], idx_T[order_T])),
            (", renamed experts", logits_TE[:, names_E], (weight_T, names_E.argsort()[idx_T])),
            (", shifted logits", logits_TE + shift_T1, (weight_T, idx_T)),
        ):
            self.expect_gate(subject, logits, want, case)

    @criterion(
        1,
        "many tokens and experts; the gradients of a token's logits sum to 0",
        hint="If all logits of a token rise together, how does its weight change?",
    )
    def test_sizes(self, subject, rng):
        logits_TE = oracles.distinct_logits(*wholes(rng, (30, 60), (16, 28)), rng)
        self.expect_gate(subject, logits_TE, oracles.switch_gate(logits_TE))
        large_TE = logits_TE + 300 * (2 * torch.rand(len(logits_TE), 1, generator=rng) - 1)
        self.expect_gate(subject, large_TE, oracles.switch_gate(large_TE), " of large logits")
        c_T = short(torch.randn(len(logits_TE), generator=rng))
        given = {"logits_TE": logits_TE, "dweight_T": c_T}
        want = oracles.gradients(lambda z: oracles.switch_gate(z)[0], (logits_TE,), c_T, wrt=(0,))
        _, got = returned(subject.run(vjp, "switch_gate", (logits_TE,), (c_T,), wrt=(0,)), given)
        expect_gradients(got, want, ("logits_TE",), given)


@grades("router_gradient")
class HiddenRouterGradient:
    @staticmethod
    def expect_gradient(subject, args, want_TE, what="dlogits_TE"):
        given = named(public.GRADIENT, args)
        got = returned(subject.run(call, "router_gradient", *args), given)
        expect_values(got, want_TE, "TE", given, what=what, atol=1e-5)

    @criterion(
        1,
        "each token's gradient is its own, linear in dy; what all experts have in common cancels",
        hint="If all outputs of a token's experts were alike and all were chosen, what could the router win?",
    )
    def test_symmetries(self, subject, rng):
        tokens, d_model, experts = wholes(rng, (4, 9), (2, 6), (4, 8))
        args = dy_TD, out_TKD, probs_TE, idx_TK = public.TestRouterGradient.inputs(
            tokens, d_model, experts, experts, rng
        )
        want_TE = oracles.router_gradient(*args)
        order_T, names_E = orders(tokens, experts, rng)
        common_T1D = torch.randn(tokens, 1, d_model, generator=rng)
        for case, inputs, want in (
            ("one token alone", [arg[:1] for arg in args], want_TE[:1]),
            ("shuffled tokens", [arg[order_T] for arg in args], want_TE[order_T]),
            (
                "renamed experts",
                (*args[:2], probs_TE[:, names_E], names_E.argsort()[idx_TK]),
                want_TE[:, names_E],
            ),
            ("opposite dy", (-dy_TD, *args[1:]), -want_TE),
            ("a common part added", (dy_TD, out_TKD + common_T1D, *args[2:]), want_TE),
        ):
            self.expect_gradient(subject, inputs, want, f"dlogits_TE, {case}")

    @criterion(
        1,
        "many tokens, wide outputs, one expert of many or all of them",
        hint="How large is the gradient of a token that chose one expert only, and where does it go?",
    )
    def test_sizes(self, subject, rng):
        tokens, d_model, experts = wholes(rng, (20, 40), (8, 20), (10, 16))
        for k in (1, *wholes(rng, (2, 9)), experts):
            args = public.TestRouterGradient.inputs(tokens, d_model, experts, k, rng)
            self.expect_gradient(subject, args, oracles.router_gradient(*args))
