"""Graders of notebook 02, top-k routing."""

from __future__ import annotations

import torch

from graders import oracles
from graders.common import dtypes, expect_values, finite, named, refusal, seed, short, strided, together
from graders.probes import call, vjp
from moe_course.grading.exercises.expect import (
    expect,
    expect_gradients,
    expect_index,
    expect_raises,
    expect_tensor,
    expect_tuple,
    expect_untouched,
    returned,
)
from moe_course.grading.exercises.rubric import criterion, grades

HUGE_TE = torch.tensor([[300.0, 299, -200], [-400, -401, -403], [-100, -102, 650]])


@grades("router_probs", hidden=2)
class TestRouterProbs:
    @staticmethod
    def inputs(tokens, d_model, experts, rng, dtype=torch.float32):
        """x (T, D) and w (D, E), with logits of order 1."""
        x_TD = torch.randn(tokens, d_model, generator=rng)
        w_DE = torch.randn(d_model, experts, generator=rng) / d_model**0.5
        return x_TD.to(dtype), w_DE.to(dtype)

    def compare(self, subject, *args, atol=1e-5):
        given = named("x_TD w_DE", args)
        out = subject.run(call, "router_probs", *args)
        want_TE = oracles.router_probs(*args)
        expect_values(returned(out, given), want_TE, "TE", given, what="probs_TE", rtol=0, atol=atol)
        return out

    @criterion(
        3,
        "one probability for each token and expert, the softmax of x·w",
        hint="Which numbers should add up to 1: those of a token, or those of an expert?",
    )
    def test_values(self, subject, rng):
        for tokens, d_model, experts in ((1, 2, 3), (4, 3, 5), (7, 6, 4), (3, 2, 1)):
            self.compare(subject, *self.inputs(tokens, d_model, experts, rng))
        self.compare(subject, *strided(self.inputs(6, 5, 4, rng)))

    @criterion(
        1,
        "probabilities are float32 whatever the dtype of the tokens; no input is edited",
        hint="Which dtype comes back when bfloat16 or float64 tokens go in?",
    )
    def test_float32_result(self, subject, rng):
        for dtype in (torch.bfloat16, torch.float64):
            args = self.inputs(3, 4, 5, rng, dtype)
            given = named("x_TD w_DE", args)
            got = returned(subject.run(call, "router_probs", *args), given)
            want_TE = oracles.router_probs(*args)
            # How precise the logits of bfloat16 tokens are is the next criterion's question.
            atol = 5e-2 if dtype == torch.bfloat16 else 1e-6
            expect_tensor(got, want_TE, "TE", given, what="probs_TE", rtol=0, atol=atol)
        args = self.inputs(3, 4, 5, rng)
        expect_untouched(self.compare(subject, *args), args, ("x_TD", "w_DE"))

    @criterion(
        1,
        "logits too are float32, also for bfloat16 tokens and weights",
        hint="Before or after the matrix product: where do you leave bfloat16?",
    )
    def test_float32_logits(self, subject, rng):
        for tokens, d_model, experts in ((2, 3, 4), (8, 6, 5)):
            x_TD, w_DE = self.inputs(tokens, d_model, experts, rng, torch.bfloat16)
            self.compare(subject, x_TD, w_DE, atol=1e-6)

    @criterion(
        1,
        "gradients reach the tokens and the router's weights",
        hint="Is the graph cut anywhere between w_DE and the result?",
    )
    def test_gradients(self, subject, rng):
        for tokens, d_model, experts in ((1, 2, 3), (4, 3, 5)):
            args = self.inputs(tokens, d_model, experts, rng)
            dprobs_TE = short(torch.randn(tokens, experts, generator=rng))
            given = named("x_TD w_DE dprobs_TE", (*args, dprobs_TE))
            want = oracles.gradients(oracles.router_probs, args, dprobs_TE, wrt=(0, 1))
            _, got = returned(subject.run(vjp, "router_probs", args, (dprobs_TE,), wrt=(0, 1)), given)
            expect_gradients(got, want, ("x_TD", "w_DE"), given)

    @criterion(
        1,
        "large logits give probabilities, not nan or inf",
        hint="What is exp(300) in float32, and which shift of a token's logits leaves its softmax alone?",
    )
    def test_stable(self, subject, rng):
        for w_DE in (HUGE_TE[:2], HUGE_TE[1:]):
            self.compare(subject, torch.tensor([[1.0, 0], [0, 1], [0.5, 0.5], [0, 0]]), w_DE)

    test_together = together(3, test_values, test_gradients, test_stable)

    def behaviour(self, subject):
        args = self.inputs(3, 4, 2, seed(201))
        x_TD, w_DE = self.inputs(3, 4, 2, seed(202), torch.bfloat16)
        return [
            subject.run(call, "router_probs", *args),
            subject.run(call, "router_probs", 8 * x_TD, w_DE),  # large logits show what bfloat16 rounds away
            subject.run(call, "router_probs", torch.eye(2), HUGE_TE[:2]),
            subject.run(vjp, "router_probs", args, (torch.randn(3, 2, generator=seed(203)),), wrt=(0, 1)),
        ]


@grades("top_k_gate", hidden=2)
class TestTopKGate:
    cases = ((1, 3, 2), (4, 5, 2), (2, 4, 1), (6, 7, 3), (5, 4, 4), (3, 1, 1))  # T, E, k

    @staticmethod
    def gate(subject, probs_TE, k, **options):
        given = {"probs_TE": probs_TE, "k": k, **options}
        out = subject.run(call, "top_k_gate", probs_TE, k, **options)
        weights_TK, idx_TK = expect_tuple(returned(out, given), 2, given, "weights_TK, idx_TK")
        return out, weights_TK, idx_TK, given

    @staticmethod
    def expect_weights(got, want_TK, given, expect=expect_values, **tolerance):
        """Compare the weights of each token from the largest down: the order has a criterion of its own."""
        if isinstance(got, torch.Tensor):
            got = got.sort(-1, descending=True).values
        expect(got, want_TK, "TK", given, what="weights_TK", **tolerance)

    @criterion(
        2,
        "each token chooses its k most probable experts",
        hint="Along which axis are the k largest taken, and which result comes first?",
    )
    def test_chooses(self, subject, rng):
        for tokens, experts, k in self.cases:
            probs_TE = oracles.distinct_probs(tokens, experts, rng)
            _, _, idx_TK, given = self.gate(subject, probs_TE, k, renormalize=False)
            want_TK = oracles.top_k(probs_TE, k)
            expect_index(idx_TK, want_TK, "TK", given, what="idx_TK", any_order=True)

    @criterion(
        1,
        "slots come in descending weight",
        hint="Which expert belongs into slot 0, and does each weight stand beside its own expert?",
    )
    def test_descending(self, subject, rng):
        for tokens, experts, k in self.cases:
            probs_TE = oracles.distinct_probs(tokens, experts, rng)
            _, weights_TK, idx_TK, given = self.gate(subject, probs_TE, k, renormalize=False)
            want_TK, chosen_TK = oracles.top_k_gate(probs_TE, k, False)
            expect_index(idx_TK, chosen_TK, "TK", given, what="idx_TK")
            if isinstance(weights_TK, torch.Tensor) and weights_TK.shape == want_TK.shape:
                want_TK = weights_TK.sort(-1, descending=True).values
            expect_values(weights_TK, want_TK, "TK", given, what="weights_TK")

    @criterion(
        1,
        "renormalize=False: the weights are the probabilities themselves",
        hint="What should happen to the weights when `renormalize` is False?",
    )
    def test_probabilities(self, subject, rng):
        for tokens, experts, k in self.cases:
            probs_TE = oracles.distinct_probs(tokens, experts, rng)
            _, weights_TK, _, given = self.gate(subject, probs_TE, k, renormalize=False)
            self.expect_weights(weights_TK, oracles.top_k_gate(probs_TE, k, False)[0], given)

    @criterion(
        2,
        "renormalize=True, the default: the k weights of a token are scaled to sum to 1",
        hint="What do you divide by, and over which of the experts does that sum run?",
    )
    def test_renormalised(self, subject, rng):
        asked, by_default = {"renormalize": True}, {}
        for options, (tokens, experts, k) in ((asked, self.cases[1]), *((by_default, c) for c in self.cases)):
            probs_TE = oracles.distinct_probs(tokens, experts, rng)
            _, weights_TK, _, given = self.gate(subject, probs_TE, k, **options)
            self.expect_weights(weights_TK, oracles.top_k_gate(probs_TE, k, True)[0], given)

    @criterion(
        1,
        "the gradient flows through the weights, and through their sum",
        hint="How does the router learn, if the weights do not lead back to the probabilities?",
    )
    def test_gradients(self, subject, rng):
        for tokens, experts, k in ((1, 3, 2), (5, 6, 3), (3, 4, 1)):
            for renormalize in (False, True):
                args = (oracles.distinct_probs(tokens, experts, rng), k, renormalize)
                _, _, idx_TK, given = self.gate(subject, *args[:2], renormalize=renormalize)
                want_TK = oracles.top_k(*args[:2])
                expect_index(idx_TK, want_TK, "TK", given, what="idx_TK", any_order=True)
                # Each expert's weight has its short, in whichever slot it comes.
                dgates_TE = short(torch.randn(tokens, experts, generator=rng))
                dweights_TK = dgates_TE.gather(1, idx_TK.long())
                given |= {"dweights_TK": dweights_TK}
                want = oracles.gradients(
                    lambda *a: oracles.top_k_gate(*a)[0], args, dgates_TE.gather(1, want_TK), wrt=(0,)
                )
                _, got = returned(subject.run(vjp, "top_k_gate", args, (dweights_TK,), wrt=(0,)), given)
                expect_gradients(got, want, ("probs_TE",), given)

    test_together = together(
        5, test_chooses, test_descending, test_probabilities, test_renormalised, test_gradients
    )

    @criterion(
        1,
        "k outside 1..E raises ValueError",
        hint="Which are the smallest and the largest k that make sense?",
    )
    def test_bad_k(self, subject, rng):
        probs_TE = oracles.distinct_probs(3, 5, rng)
        for k in (1, 5):  # both ends are fine
            *_, idx_TK, given = self.gate(subject, probs_TE, k, renormalize=False)
            expect_index(idx_TK, oracles.top_k(probs_TE, k), "TK", given, what="idx_TK", any_order=True)
        for k in (6, 0, -1):
            given = {"probs_TE": probs_TE, "k": k}
            expect_raises(subject.run(call, "top_k_gate", probs_TE, k), "ValueError", given)

    @criterion(
        1,
        "anything but a (T, E) matrix raises ValueError",
        hint="What would your code make of the probabilities of a whole batch, (B, S, E)?",
    )
    def test_bad_axes(self, subject, rng):
        flat_TE = oracles.distinct_probs(6, 4, rng)
        for probs in (flat_TE[0], flat_TE.reshape(2, 3, 4)):
            given = {"probs": probs, "k": 2}
            expect_raises(subject.run(call, "top_k_gate", probs, 2), "ValueError", given)

    @criterion(
        1,
        "bfloat16, float64 and strided inputs work; no input is edited",
        hint="Which dtype do the weights have, and do you write into probs_TE?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype, rtol in ((torch.float64, 1e-9), (torch.bfloat16, 2e-2), (torch.float32, 1e-5)):
            for renormalize in (False, True):
                (probs_TE,) = strided((oracles.distinct_probs(3, 5, rng, dtype),))
                out, weights_TK, idx_TK, given = self.gate(subject, probs_TE, 2, renormalize=renormalize)
                want_TK, chosen_TK = oracles.top_k_gate(probs_TE, 2, renormalize)
                self.expect_weights(weights_TK, want_TK, given, expect_tensor, rtol=rtol)
                expect_index(idx_TK, chosen_TK, "TK", given, what="idx_TK", any_order=True)
                expect_untouched(out, (probs_TE, 2), ("probs_TE", "k"))

    def behaviour(self, subject):
        probs_TE = oracles.distinct_probs(5, 4, seed(211))
        unscaled_TE = 3 * probs_TE  # tells a sum over the chosen from a sum over all
        out = subject.run(call, "top_k_gate", unscaled_TE, 2)
        return [
            out,
            out.inputs,
            subject.run(call, "top_k_gate", probs_TE, 2, renormalize=False),
            subject.run(call, "top_k_gate", probs_TE, 2, renormalize=True),
            subject.run(call, "top_k_gate", unscaled_TE, 1),
            dtypes(subject.run(call, "top_k_gate", probs_TE.bfloat16(), 2)),
            subject.run(vjp, "top_k_gate", (probs_TE, 2), (torch.tensor([[1.0, -2]] * 5),), wrt=(0,)),
            *(refusal(subject.run(call, "top_k_gate", probs_TE, k)) for k in (-1, 0, 4, 5)),
            *(refusal(subject.run(call, "top_k_gate", p, 2)) for p in (probs_TE[0], probs_TE[None])),
        ]


@grades("sparse_gates", hidden=2)
class TestSparseGates:
    cases = ((1, 3, 2), (4, 5, 2), (7, 6, 3), (3, 4, 4), (2, 1, 1))  # T, E, k

    @staticmethod
    def gates(subject, logits_TE, k):
        given = {"logits_TE": logits_TE, "k": k}
        out = subject.run(call, "sparse_gates", logits_TE, k)
        return out, returned(out, given), given

    def compare(self, subject, logits_TE, k, expect=expect_values, **tolerance):
        out, got, given = self.gates(subject, logits_TE, k)
        want_TE = oracles.sparse_gates(logits_TE, k)
        expect(got, want_TE, "TE", given, what="gates_TE", **tolerance)
        return out

    @criterion(
        2,
        "the k largest logits of each token get a gate; all other gates are exactly 0",
        hint="Which logit becomes a gate of exactly 0 after a softmax?",
    )
    def test_zeros(self, subject, rng):
        for tokens, experts, k in self.cases:
            logits_TE = oracles.distinct_logits(tokens, experts, rng)
            _, got, given = self.gates(subject, logits_TE, k)
            open_TE = got != 0 if isinstance(got, torch.Tensor) else got
            want_TE = oracles.sparse_gates(logits_TE, k) != 0
            expect_tensor(open_TE, want_TE, "TE", given, what="gates_TE != 0")

    @criterion(
        2,
        "those k gates are the softmax over the k logits alone",
        hint="Over how many logits does the sum in the softmax run?",
    )
    def test_values(self, subject, rng):
        for tokens, experts, k in self.cases:
            self.compare(subject, oracles.distinct_logits(tokens, experts, rng), k)

    @criterion(
        1,
        "the gradient reaches the chosen logits, and no other",
        hint="Which logits would change the result if they moved a little?",
    )
    def test_gradients(self, subject, rng):
        for tokens, experts, k in ((1, 3, 2), (4, 6, 3)):
            args = (oracles.distinct_logits(tokens, experts, rng), k)
            dgates_TE = short(torch.randn(tokens, experts, generator=rng))
            given = named("logits_TE k dgates_TE", (*args, dgates_TE))
            want = oracles.gradients(oracles.sparse_gates, args, dgates_TE, wrt=(0,))
            _, got = returned(subject.run(vjp, "sparse_gates", args, (dgates_TE,), wrt=(0,)), given)
            expect_gradients(got, want, ("logits_TE",), given)

    @criterion(
        1,
        "large logits give gates, not nan or inf",
        hint="What is exp(300) in float32, and which shift of a token's logits leaves its softmax alone?",
    )
    def test_stable(self, subject, rng):
        self.compare(subject, HUGE_TE, 2)
        self.compare(subject, HUGE_TE, 3)

    test_together = together(3, test_zeros, test_values, test_gradients, test_stable)

    @criterion(
        1,
        "bfloat16, float64 and strided inputs work; no input is edited",
        hint="Which dtype do the gates have, and do you write into logits_TE?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype, rtol in ((torch.float64, 1e-5), (torch.bfloat16, 3e-2), (torch.float32, 1e-5)):
            args = strided((oracles.distinct_logits(3, 5, rng, dtype), 2))
            expect_untouched(self.compare(subject, *args, expect_tensor, rtol=rtol), args, ("logits_TE", "k"))

    def behaviour(self, subject):
        logits_TE = oracles.distinct_logits(3, 4, seed(221))
        out = subject.run(call, "sparse_gates", logits_TE, 2)
        return [
            out,
            out.inputs,
            dtypes(subject.run(call, "sparse_gates", logits_TE.bfloat16(), 3)),
            subject.run(call, "sparse_gates", HUGE_TE, 2),
            subject.run(vjp, "sparse_gates", (logits_TE, 2), (torch.randn(3, 4, generator=seed(222)),), (0,)),
        ]


NOISY = "x_TD w_gate_DE w_noise_DE noise_TE training"


@grades("noisy_logits", hidden=2)
class TestNoisyLogits:
    @staticmethod
    def inputs(tokens, d_model, experts, training, rng, dtype=torch.float32):
        shapes = ((tokens, d_model), (d_model, experts), (d_model, experts), (tokens, experts))
        return (*(torch.randn(*shape, generator=rng).to(dtype) for shape in shapes), training)

    def compare(self, subject, *args, expect=expect_values, **tolerance):
        given = named(NOISY, args)
        out = subject.run(call, "noisy_logits", *args)
        got, want_TE = returned(out, given), oracles.noisy_logits(*args)
        expect(got, want_TE, "TE", given, what="logits_TE", **tolerance)
        return out

    @criterion(
        2,
        "outside training: x·w_gate, whatever the noise",
        hint="Would you want the same token to be routed differently each time you evaluate?",
    )
    def test_plain(self, subject, rng):
        for tokens, d_model, experts in ((1, 2, 3), (5, 4, 3), (3, 6, 7)):
            self.compare(subject, *self.inputs(tokens, d_model, experts, False, rng))

    @criterion(
        2,
        "in training: noise_TE times softplus(x·w_noise) is added",
        hint="What is the scale of the noise for this token and this expert, and can it be negative?",
    )
    def test_noise_added(self, subject, rng):
        for tokens, d_model, experts in ((1, 2, 3), (5, 4, 3), (3, 6, 7)):
            self.compare(subject, *self.inputs(tokens, d_model, experts, True, rng))

    @criterion(
        1,
        "gradients reach x and the router's matrix, in training the noise's matrix too",
        hint="How does the router learn how much noise to add?",
    )
    def test_gradients(self, subject, rng):
        dlogits_TE = short(torch.randn(2, 4, generator=rng))
        for training, names in ((False, "x_TD w_gate_DE"), (True, "x_TD w_gate_DE w_noise_DE")):
            args = self.inputs(2, 3, 4, training, rng)
            given = {**named(NOISY, args), "dlogits_TE": dlogits_TE}
            wrt = tuple(range(len(names.split())))
            want = oracles.gradients(oracles.noisy_logits, args, dlogits_TE, wrt)
            _, got = returned(subject.run(vjp, "noisy_logits", args, (dlogits_TE,), wrt), given)
            expect_gradients(got, want, names.split(), given)

    @criterion(
        1,
        "a large scale of the noise stays a number",
        hint="What is softplus(120), and what is exp(120) in float32?",
    )
    def test_stable(self, subject, rng):
        _, w_gate_DE, _, noise_TE, _ = self.inputs(4, 2, 3, True, rng)
        x_TD = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
        w_noise_DE = torch.tensor([[240.0, -120, 3], [-60, 300, 2]])
        self.compare(subject, x_TD, w_gate_DE, w_noise_DE, noise_TE, True)

    test_together = together(3, test_plain, test_noise_added, test_gradients, test_stable)

    @criterion(
        1,
        "bfloat16, float64 and strided inputs work; no input is edited",
        hint="Do you scale noise_TE in place, or fix a dtype?",
    )
    def test_other_inputs(self, subject, rng):
        for training in (False, True):
            for dtype in (torch.float64, torch.float32):
                args = strided(self.inputs(2, 3, 4, training, rng, dtype))
                expect_untouched(self.compare(subject, *args, expect=expect_tensor), args, NOISY.split())
            args = self.inputs(2, 3, 4, training, rng, torch.bfloat16)
            given = named(NOISY, args)
            got, want_TE = (
                returned(subject.run(call, "noisy_logits", *args), given),
                oracles.noisy_logits(*args),
            )
            if isinstance(got, torch.Tensor) and got.dtype == torch.float32:
                got = got.bfloat16()  # a router in float32 is as good
            expect_tensor(got, want_TE, "TE", given, what="logits_TE", rtol=5e-2, atol=5e-2)

    def behaviour(self, subject):
        args = self.inputs(3, 4, 2, True, seed(231))
        quiet = subject.run(call, "noisy_logits", *args[:-1], False)
        out, again = (subject.run(call, "noisy_logits", *args) for _ in range(2))
        if isinstance(out.value, torch.Tensor) and not torch.equal(out.value, again.value):
            return [quiet, "another result each time"]
        double = (*(arg.double() for arg in args[:-1]), True)
        large = (args[0].abs(), args[1], 300 * args[2].abs(), *args[3:])
        dlogits_TE = torch.randn(3, 2, generator=seed(232))
        return [
            quiet,
            out,
            out.inputs,
            subject.run(call, "noisy_logits", *large),
            dtypes(subject.run(call, "noisy_logits", *double)),
            subject.run(vjp, "noisy_logits", args, (dlogits_TE,), wrt=(0, 1, 2)),
            subject.run(vjp, "noisy_logits", (*args[:-1], False), (dlogits_TE,), wrt=(0, 1)),
        ]


def unweighted(args):
    """The arguments of moe_loop with every weight 1."""
    x_TD, weights_TK, *rest = args
    return x_TD, torch.ones_like(weights_TK), *rest


MOE = "x_TD weights_TK idx_TK w_gate_EDF w_up_EDF w_down_EFD"


@grades("moe_loop", hidden=2)
class TestMoeLoop:
    sizes = ((1, 2, 3, 1, 1), (4, 3, 5, 2, 1), (2, 3, 5, 4, 2), (9, 5, 4, 6, 3))  # T, D, F, E, K

    @staticmethod
    def inputs(tokens, d_model, d_ff, experts, k, rng, dtype=torch.float32, among=None):
        """All arguments of moe_loop. Each of the experts `among` is some token's; weights sum to anything."""
        among = torch.tensor(among or range(experts))
        idx_TK = among[:0]
        while len(idx_TK.unique()) < len(among):
            draws = [torch.randperm(len(among), generator=rng)[:k] for _ in range(tokens)]
            idx_TK = among[torch.stack(draws)]
        shapes = ((experts, d_model, d_ff), (experts, d_model, d_ff), (experts, d_ff, d_model))
        weights = (torch.randn(*shape, generator=rng) / shape[1] ** 0.5 for shape in shapes)
        x_TD, weights_TK = torch.randn(tokens, d_model, generator=rng), torch.rand(tokens, k, generator=rng)
        floats = [tensor.to(dtype) for tensor in (x_TD, weights_TK + 0.2, *weights)]
        return (*floats[:2], idx_TK, *floats[2:])

    def compare(self, subject, args, expect=expect_values, **tolerance):
        given = named(MOE, args)
        out = subject.run(call, "moe_loop", *args)
        expect(returned(out, given), oracles.moe(*args), "TD", given, what="y_TD", **tolerance)
        return out

    @criterion(
        2,
        "each token visits the experts in its slots, and their outputs are summed",
        hint="A token has k experts: what happens to the first one's output when the second one's arrives?",
    )
    def test_routes(self, subject, rng):
        for sizes in (*self.sizes, (5, 2, 6, 3, 3)):
            self.compare(subject, unweighted(self.inputs(*sizes, rng)))

    @criterion(
        2,
        "each output counts with the weight of its slot",
        hint="Expert e is some token's slot 0 and another one's slot 1: which weight belongs to which?",
    )
    def test_weights(self, subject, rng):
        for sizes in self.sizes:
            self.compare(subject, self.inputs(*sizes, rng))

    @criterion(
        1,
        "experts that nobody chose change nothing",
        hint="What does your loop do with an expert that gets no token, and with the experts after it?",
    )
    def test_empty_experts(self, subject, rng):
        self.compare(subject, unweighted(self.inputs(2, 3, 4, 5, 2, rng, among=(1, 4))))
        self.compare(subject, unweighted(self.inputs(6, 4, 3, 8, 2, rng, among=(1, 3, 6))))

    @criterion(
        1,
        "shuffled tokens give shuffled outputs; renamed experts give the same outputs",
        hint="Does row t of the result belong to token t, in whatever order the experts ran?",
    )
    def test_order(self, subject, rng):
        args = unweighted(self.inputs(7, 3, 4, 5, 2, rng))
        y_TD = self.compare(subject, args).value
        order_T, names_E = torch.randperm(7, generator=rng), torch.randperm(5, generator=rng)
        shuffled = (*(arg[order_T] for arg in args[:3]), *args[3:])
        renamed = (*args[:2], names_E.argsort()[args[2]], *(w[names_E] for w in args[3:]))
        for other, want_TD, what in (
            (shuffled, y_TD[order_T], "y_TD after shuffling the tokens"),
            (renamed, y_TD, "y_TD after renaming the experts"),
        ):
            given = named(MOE, other)
            got = returned(subject.run(call, "moe_loop", *other), given)
            expect_values(got, want_TD, "TD", given, what=what)

    @criterion(
        2,
        "gradients reach tokens, gate weights and experts",
        hint="Through which of the arguments shall the layer be able to learn?",
    )
    def test_gradients(self, subject, rng):
        wrt = (0, 1, 3, 4, 5)
        for sizes in self.sizes[2:]:
            args = self.inputs(*sizes, rng)
            dy_TD = short(torch.randn(*args[0].shape, generator=rng))
            given = {**named(MOE, args), "dy_TD": dy_TD}
            want = oracles.gradients(oracles.moe, args, dy_TD, wrt)
            _, got = returned(subject.run(vjp, "moe_loop", args, (dy_TD,), wrt), given)
            expect_gradients(got, want, [MOE.split()[i] for i in wrt], given)

    test_together = together(5, test_routes, test_weights, test_empty_experts, test_order, test_gradients)

    @criterion(
        1,
        "bfloat16 tokens come back as bfloat16, also when their gate weights are float32",
        hint="Which dtype has bfloat16 times float32, and which dtype has the tensor you add it to?",
    )
    def test_mixed_dtypes(self, subject, rng):
        args = self.inputs(4, 3, 5, 6, 2, rng, torch.bfloat16)
        self.compare(subject, args, expect_tensor, rtol=6e-2, atol=6e-2)
        self.compare(subject, (args[0], args[1].float(), *args[2:]), expect_tensor, rtol=6e-2, atol=6e-2)

    @criterion(
        1,
        "float64 and strided inputs work; no input is edited",
        hint="Do you collect the outputs in a new tensor, of the right dtype?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype, rtol in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
            args = strided(self.inputs(4, 3, 5, 6, 2, rng, dtype))
            out = self.compare(subject, args, expect_tensor, rtol=rtol, atol=rtol / 100)
            expect_untouched(out, args, MOE.split())

    def behaviour(self, subject):
        args = self.inputs(4, 3, 2, 5, 2, seed(241))
        half = self.inputs(3, 2, 4, 3, 2, seed(242), torch.bfloat16)
        double = self.inputs(2, 3, 4, 3, 2, seed(243), torch.float64)
        out = subject.run(call, "moe_loop", *args)
        dy_TD = torch.randn(2, 3, generator=seed(244))
        return [
            out,
            out.inputs[0],
            subject.run(call, "moe_loop", *self.inputs(3, 2, 3, 6, 2, seed(245), among=(1, 2, 4))),
            dtypes(subject.run(call, "moe_loop", half[0], half[1].float(), *half[2:])),
            # 1e20 cubed is more than float32 can hold, so this tells in which dtype the sums ran.
            finite(subject.run(call, "moe_loop", *(arg * 1e20 if arg.dim() > 2 else arg for arg in double))),
            subject.run(vjp, "moe_loop", double, (dy_TD,), wrt=(0, 1, 3)),
        ]


@grades("switch_gate", hidden=2)
class TestSwitchGate:
    @staticmethod
    def gate(subject, logits_TE):
        given = {"logits_TE": logits_TE}
        out = subject.run(call, "switch_gate", logits_TE)
        weight_T, idx_T = expect_tuple(returned(out, given), 2, given, "weight_T, idx_T")
        return out, weight_T, idx_T, given

    @criterion(
        1,
        "each token chooses its most probable expert",
        hint="Is there one expert for each token, and is it named by its number?",
    )
    def test_chooses(self, subject, rng):
        for tokens, experts in ((2, 3), (4, 5), (6, 3)):
            logits_TE = oracles.distinct_logits(tokens, experts, rng)
            _, _, idx_T, given = self.gate(subject, logits_TE)
            expect_index(idx_T, oracles.switch_gate(logits_TE)[1], "T", given, what="idx_T")

    @criterion(
        2,
        "its weight is that expert's probability, as it is",
        hint="Which numbers does the softmax run over before you look at the largest?",
    )
    def test_weight(self, subject, rng):
        for tokens, experts in ((2, 3), (4, 5), (6, 3), (3, 1)):
            logits_TE = oracles.distinct_logits(tokens, experts, rng)
            _, weight_T, _, given = self.gate(subject, logits_TE)
            expect_values(weight_T, oracles.switch_gate(logits_TE)[0], "T", given, what="weight_T")

    @criterion(
        2,
        "the weight's gradient reaches every logit of the token",
        hint="If another expert's logit rose, would this weight change, and does your gradient know it?",
    )
    def test_gradients(self, subject, rng):
        for tokens, experts in ((2, 3), (4, 5)):
            logits_TE = oracles.distinct_logits(tokens, experts, rng)
            dweight_T = short(1 + torch.rand(tokens, generator=rng))
            given = {"logits_TE": logits_TE, "dweight_T": dweight_T}
            want = oracles.gradients(lambda z: oracles.switch_gate(z)[0], (logits_TE,), dweight_T, wrt=(0,))
            _, got = returned(subject.run(vjp, "switch_gate", (logits_TE,), (dweight_T,), wrt=(0,)), given)
            expect_gradients(got, want, ("logits_TE",), given)

    @criterion(
        1,
        "large logits give a weight, not nan or inf",
        hint="What is exp(300) in float32, and which shift of a token's logits leaves its softmax alone?",
    )
    def test_stable(self, subject, rng):
        _, weight_T, _, given = self.gate(subject, HUGE_TE[:2])
        expect_values(weight_T, oracles.switch_gate(HUGE_TE[:2])[0], "T", given, what="weight_T")

    test_together = together(4, test_chooses, test_weight, test_gradients, test_stable)

    @criterion(
        1,
        "bfloat16 logits: the softmax is float32, only the weight is rounded to bfloat16",
        hint="In which dtype are the exponentials added up and divided?",
    )
    def test_float32_softmax(self, subject, rng):
        logits_TE = oracles.distinct_logits(60, 7, rng, torch.bfloat16)
        _, weight_T, _, given = self.gate(subject, logits_TE)
        exact_T = oracles.softmax(logits_TE).amax(dim=1)
        expect_tensor(weight_T, exact_T.bfloat16(), "T", given, what="weight_T", rtol=1e-2)
        near_T = (weight_T.double() - exact_T).abs() <= exact_T * 2**-8 + 1e-6  # one rounding, no more
        first = int(near_T.int().argmin())
        expect(
            bool(near_T.all()),
            f"weight_T: {int((~near_T).sum())} of 60 weights are off by more than one rounding to bfloat16, "
            f"first at token {first}: {weight_T[first]:.6f}, before rounding {exact_T[first]:.6f}",
            given,
        )

    @criterion(
        1,
        "the weight has the dtype of the logits; strided inputs work; no input is edited",
        hint="Which dtype should a float64 logit's weight have, and do you write into logits_TE?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype, rtol in ((torch.float64, 1e-5), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
            args = strided((oracles.distinct_logits(5, 4, rng, dtype),))
            out, weight_T, idx_T, given = self.gate(subject, *args)
            want_T, chosen_T = oracles.switch_gate(*args)
            expect_tensor(weight_T, want_T, "T", given, what="weight_T", rtol=rtol)
            expect_index(idx_T, chosen_T, "T", given, what="idx_T")
            expect_untouched(out, args, ("logits_TE",))

    def behaviour(self, subject):
        logits_TE = oracles.distinct_logits(3, 4, seed(251))
        out = subject.run(call, "switch_gate", logits_TE)
        return [
            out,
            out.inputs,
            subject.run(call, "switch_gate", HUGE_TE[:2]),
            subject.run(call, "switch_gate", oracles.distinct_logits(12, 5, seed(252), torch.bfloat16)),
            subject.run(vjp, "switch_gate", (logits_TE,), (torch.tensor([1.0, 2, 3]),), wrt=(0,)),
        ]


GRADIENT = "dy_TD expert_out_TKD probs_TE idx_TK"


@grades("router_gradient", hidden=2)
class TestRouterGradient:
    @staticmethod
    def inputs(tokens, d_model, experts, k, rng, dtype=torch.float32):
        """All arguments, the experts of each token in descending probability."""
        dy_TD = torch.randn(tokens, d_model, generator=rng).to(dtype)
        expert_out_TKD = torch.randn(tokens, k, d_model, generator=rng).to(dtype)
        probs_TE = oracles.distinct_probs(tokens, experts, rng, dtype)
        return dy_TD, expert_out_TKD, probs_TE, oracles.top_k(probs_TE, k)

    def compare(self, subject, args, expect=expect_values, **tolerance):
        given = named(GRADIENT, args)
        out = subject.run(call, "router_gradient", *args)
        got, want_TE = returned(out, given), oracles.router_gradient(*args)
        expect(got, want_TE, "TE", given, what="dlogits_TE", **tolerance)
        return out

    @criterion(
        2,
        "every expert chosen: ⟨dy, out⟩, then back through the softmax",
        hint="What is ∂p_i/∂z_j, for i = j and for i ≠ j?",
    )
    def test_all_experts(self, subject, rng):
        for tokens, d_model, experts in ((1, 3, 2), (4, 2, 3), (3, 6, 5)):
            dy_TD, out_TKD, probs_TE, _ = self.inputs(tokens, d_model, experts, experts, rng)
            idx_TK = torch.arange(experts).expand(tokens, experts).contiguous()
            self.compare(subject, (dy_TD, out_TKD, probs_TE, idx_TK), atol=1e-5)

    @criterion(
        3,
        "k < E: the others get no direct signal, only what the softmax passes on",
        hint="When a chosen expert's probability rises, where does it come from?",
    )
    def test_unselected(self, subject, rng):
        for tokens, d_model, experts, k in ((1, 2, 3, 1), (2, 4, 5, 3), (5, 6, 7, 4)):
            self.compare(subject, self.inputs(tokens, d_model, experts, k, rng), atol=1e-5)

    @criterion(
        1,
        "a signal belongs to the expert in its slot, in whatever order the slots come",
        hint="Slot k of token t: which column of the result does idx_TK name for it?",
    )
    def test_slots(self, subject, rng):
        dy_TD, out_TKD, probs_TE, _ = self.inputs(6, 4, 5, 3, rng)
        idx_TK = torch.stack([torch.randperm(5, generator=rng)[:3] for _ in range(6)])
        for order in ([0, 1, 2], [2, 0, 1]):
            self.compare(subject, (dy_TD, out_TKD[:, order], probs_TE, idx_TK[:, order]), atol=1e-5)

    @criterion(
        1,
        "float64 and strided inputs work; no input is edited",
        hint="Do you make a new tensor with the dtype of probs_TE, or write into an old one?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype in (torch.float64, torch.float32):
            args = strided(self.inputs(3, 4, 5, 2, rng, dtype))
            expect_untouched(self.compare(subject, args, expect_tensor, atol=1e-5), args, GRADIENT.split())

    def behaviour(self, subject):
        dy_TD, out_TKD, probs_TE, idx_TK = self.inputs(3, 4, 5, 2, seed(261))
        out = subject.run(call, "router_gradient", dy_TD, out_TKD, probs_TE, idx_TK)
        return [
            out,
            out.inputs[2],
            subject.run(call, "router_gradient", *self.inputs(2, 3, 4, 2, seed(262), torch.float64)),
        ]
