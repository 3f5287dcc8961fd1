"""Graders of notebook 04, load balancing."""

from __future__ import annotations

from dataclasses import replace

import torch

from graders import oracles, oracles_balance
from graders.common import (
    dtypes,
    expect_values,
    random_idx,
    refusal,
    seed,
    short,
    strided,
    together,
    whole,
)
from graders.probes import call, vjp
from graders.probes.balance import after_editing_the_result
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
from moe_course.grading.exercises.protocol import Outcome
from moe_course.grading.exercises.rubric import criterion, grades


def expect_statistic(got, want, given, *, what="the result", axes="", form=False, **tolerance):
    """`got` has the shape and values of `want`: a number, or a tensor with the axes `axes`.

    With `form` it must also be a tensor of float32 or float64, which only the criteria about form ask for.
    """
    wide = isinstance(got, torch.Tensor) and got.dtype == torch.float64
    want = want.double() if wide else want.float()
    compare = expect_tensor if form else expect_values
    compare(got, want, axes, given, what=what, **tolerance)


def widened(got):
    """A loss of bfloat16 inputs may be bfloat16 itself: nothing says otherwise."""
    narrow = isinstance(got, torch.Tensor) and got.dtype == torch.bfloat16
    return got.float() if narrow else got


def even_idx(experts, k):
    """Every expert once in every slot: E tokens, perfectly even."""
    return (torch.arange(experts)[:, None] + torch.arange(k)) % experts


@grades("expert_load", hidden=1)
class TestExpertLoad:
    def compare(self, subject, idx_TK, experts, form=False):
        given = {"idx_TK": idx_TK, "num_experts": experts}
        out = subject.run(call, "expert_load", idx_TK, experts)
        want_E = oracles_balance.load(idx_TK, experts)
        expect_statistic(returned(out, given), want_E, given, axes="E", what="load_E", form=form)
        return out

    @criterion(
        2,
        "K = 1: the share of the tokens that each expert gets",
        hint="How many tokens chose each expert, and what do you divide by?",
    )
    def test_shares(self, subject, rng):
        self.compare(subject, torch.tensor([[0], [1], [1]]), 2)
        for experts in (3, whole(rng, 4, 6)):
            idx_TK = torch.cat([torch.arange(experts), torch.randint(experts, (experts + 2,), generator=rng)])
            self.compare(subject, idx_TK[torch.randperm(len(idx_TK), generator=rng), None], experts)

    @criterion(
        2,
        "K > 1: every slot counts, and the shares still sum to 1",
        hint="How many assignments do T tokens with K slots make?",
    )
    def test_slots(self, subject, rng):
        self.compare(subject, torch.tensor([[0, 1], [1, 2], [1, 2]]), 3)
        for experts, k in ((5, 3), (4, 4), (whole(rng, 5, 8), 2)):
            rest_TK = random_idx(whole(rng, 3, 9), experts, k, rng)
            self.compare(subject, torch.cat([rest_TK, even_idx(experts, k)]), experts)

    @criterion(
        1,
        "an expert that nobody chose has load 0, also when it is the last one",
        hint="How long is the result when the last experts get nothing?",
    )
    def test_empty_experts(self, subject, rng):
        self.compare(subject, torch.tensor([[1], [1]]), 3)
        experts = whole(rng, 6, 9)
        self.compare(subject, random_idx(5, experts, 2, rng, among=(1, 3, 4)), experts)

    test_together = together(2, test_shares, test_slots, test_empty_experts)

    @criterion(
        1,
        "a tensor of float32 or float64; strided indices work; nothing is edited",
        hint="Do you reshape or view, and what type has the result?",
    )
    def test_other_inputs(self, subject, rng):
        idx_TK = torch.cat([random_idx(4, 5, 3, rng), even_idx(5, 3)])
        args = (strided(idx_TK), 5)
        expect_untouched(self.compare(subject, *args, form=True), args, ("idx_TK", "num_experts"))

    def behaviour(self, subject):
        idx_TK = torch.tensor([[2, 0], [2, 1], [0, 4], [2, 4]])
        out = subject.run(call, "expert_load", idx_TK, 6)
        full = subject.run(call, "expert_load", torch.tensor([[2], [0], [1], [2], [3]]), 4)
        columns = subject.run(call, "expert_load", strided(idx_TK), 6)
        return [_alike(out), out.inputs, _alike(full), _alike(columns)]


@grades("max_violation", hidden=1)
class TestMaxViolation:
    @staticmethod
    def loads(experts, rng):
        load_E = torch.rand(experts, generator=rng, dtype=torch.float64) + 0.1
        return (load_E / load_E.sum()).float()

    def compare(self, subject, load_E, form=False):
        given = {"load_E": load_E}
        out = subject.run(call, "max_violation", load_E)
        expect_statistic(
            returned(out, given), oracles_balance.max_violation(load_E), given, atol=1e-5, form=form
        )
        return out

    @criterion(
        2,
        "largest load over mean load, minus 1",
        hint="What is the mean load of E experts, and by how much does the busiest one exceed it?",
    )
    def test_values(self, subject, rng):
        self.compare(subject, torch.tensor([0.75, 0.25]))
        for experts in (3, whole(rng, 4, 9)):
            self.compare(subject, self.loads(experts, rng))

    @criterion(
        1,
        "0 when the load is even, E − 1 when one expert takes all",
        hint="Which two loads are the best and the worst there can be?",
    )
    def test_extremes(self, subject, rng):
        for experts in (4, whole(rng, 5, 9), 1):
            self.compare(subject, torch.full((experts,), 1 / experts))
            self.compare(subject, torch.eye(experts)[whole(rng, 0, experts - 1)])

    @criterion(
        1,
        "experts that are far below the mean, or empty, do not count as violations",
        hint="Does a starving expert make a step slower, and is it in the mean all the same?",
    )
    def test_only_the_busiest(self, subject, rng):
        self.compare(subject, torch.tensor([0.0, 0.5, 0.5]))
        experts = whole(rng, 4, 8)
        spread_E = torch.rand(experts, generator=rng)
        load_E = 1 + 0.05 * spread_E
        load_E[whole(rng, 0, experts - 1)] = 0.01
        self.compare(subject, load_E / load_E.sum())

    test_together = together(2, test_values, test_extremes, test_only_the_busiest)

    @criterion(
        1,
        "a tensor without axes; float64 and strided loads work; nothing is edited",
        hint="Is the result a tensor without axes, and does load_E stay as it was?",
    )
    def test_other_inputs(self, subject, rng):
        for load_E in (self.loads(5, rng).double(), strided(self.loads(5, rng))):
            expect_untouched(self.compare(subject, load_E, form=True), (load_E,), ("load_E",))

    def behaviour(self, subject):
        out = subject.run(call, "max_violation", torch.tensor([0.1, 0.2, 0.25, 0.45]))
        starved = subject.run(call, "max_violation", torch.tensor([0.0, 0.3, 0.32, 0.38]))
        return [_alike(out), _alike(starved), starved.inputs]


@grades("cv_squared", hidden=1)
class TestCvSquared:
    @staticmethod
    def values(experts, rng, dtype=torch.float32):
        return (0.5 + 3 * torch.rand(experts, generator=rng)).to(dtype)

    def compare(self, subject, values_E, **tolerance):
        given = {"values_E": values_E}
        out = subject.run(call, "cv_squared", values_E)
        expect_statistic(returned(out, given), oracles_balance.cv_squared(values_E), given, **tolerance)
        return out

    @criterion(
        2,
        "variance over the mean squared",
        hint="Is it the standard deviation over the mean, and squared?",
    )
    def test_values(self, subject, rng):
        self.compare(subject, torch.tensor([1.0, 3.0]))
        for experts in (3, whole(rng, 4, 9)):
            self.compare(subject, self.values(experts, rng))

    @criterion(
        1,
        "the same for loads, counts and percentages: only the proportions matter",
        hint="If every value is ten times as large, by how much do variance and mean squared grow?",
    )
    def test_scale(self, subject, rng):
        for values_E in (self.values(4, rng), self.values(whole(rng, 5, 8), rng)):
            for factor in (0.01, 1.0, 250.0):
                self.compare(subject, factor * values_E)

    @criterion(
        1,
        "0 for even values, also for a single expert",
        hint="Do you divide the sum of squares by E or by E − 1, and what does E = 1 give?",
    )
    def test_even(self, subject, rng):
        for experts in (whole(rng, 3, 8), 1):
            self.compare(subject, torch.full((experts,), 2.0))

    @criterion(
        1,
        "its gradient reaches the values, through variance and mean",
        hint="If this is a loss, what does it tell the gates?",
    )
    def test_gradients(self, subject, rng):
        for experts in (3, whole(rng, 4, 7)):
            args, dloss = (self.values(experts, rng),), torch.tensor(1.5)
            given = {"values_E": args[0], "dloss": dloss}
            want = oracles.gradients(oracles_balance.cv_squared, args, dloss, wrt=(0,))
            _, got = returned(subject.run(vjp, "cv_squared", args, (dloss,), wrt=(0,)), given)
            expect_gradients(got, want, ("values_E",), given)

    test_together = together(2, test_values, test_scale, test_even, test_gradients)

    @criterion(
        1,
        "bfloat16 values are worked on in float32; float64 and strided ones work; nothing is edited",
        hint="How many digits does a bfloat16 variance have?",
    )
    def test_other_inputs(self, subject, rng):
        for values_E in (self.values(7, rng, torch.bfloat16), self.values(5, rng, torch.float64)):
            self.compare(subject, values_E, rtol=1e-4, form=True)
        values_E = strided(self.values(6, rng))
        expect_untouched(self.compare(subject, values_E, form=True), (values_E,), ("values_E",))

    def behaviour(self, subject):
        values_E = self.values(5, seed(431))
        out = subject.run(call, "cv_squared", values_E)
        return [
            _alike(out),
            out.inputs,
            _alike(subject.run(call, "cv_squared", 10 * values_E)),
            dtypes(_alike(subject.run(call, "cv_squared", values_E.bfloat16()))),
            _alike(subject.run(vjp, "cv_squared", (values_E,), (torch.tensor(2.0),), wrt=(0,))),
        ]


BALANCING = ("probs_TE", "idx_TK", "mask_T")


@grades("load_balancing_loss", hidden=2)
class TestLoadBalancingLoss:
    @staticmethod
    def inputs(tokens, experts, k, rng, dtype=torch.float32):
        """Probabilities and choices that are not theirs, so that neither can stand in for the other."""
        probs_TE = oracles.distinct_probs(tokens, experts, rng, dtype)
        return probs_TE, random_idx(tokens, experts, k, rng)

    @staticmethod
    def mask(tokens, rng):
        """Some tokens kept, some not, at least one of either."""
        mask_T = torch.rand(tokens, generator=rng) < 0.6
        kept, dropped = torch.randperm(tokens, generator=rng)[:2]
        mask_T[kept], mask_T[dropped] = True, False
        return mask_T

    def compare(self, subject, *args, **tolerance):
        given = dict(zip(BALANCING, args, strict=False))
        out = subject.run(call, "load_balancing_loss", *args)
        want = oracles_balance.load_balancing_loss(*args)
        got = returned(out, given)
        expect_statistic(
            widened(got) if tolerance.get("form") else got, want, given, what="the loss", **tolerance
        )
        return out

    @criterion(
        2,
        "uniform routing gives 1, for every E and K",
        hint="For uniform routing, what are f and P, and what should the sum be multiplied by?",
    )
    def test_uniform(self, subject, rng):
        for experts, k in ((4, 1), (3, 2), (whole(rng, 5, 8), 3)):
            idx_TK = even_idx(experts, k)
            self.compare(subject, torch.full((experts, experts), 1 / experts), idx_TK)

    @criterion(
        2,
        "E times the sum of f·P: fraction of assignments times mean probability",
        hint="Does f count all K slots, and is P a mean over all tokens and all experts' columns?",
    )
    def test_values(self, subject, rng):
        self.compare(subject, torch.tensor([[0.8, 0.2], [0.6, 0.4]]), torch.tensor([[0], [0]]))
        for tokens, experts, k in ((4, 3, 1), (5, 4, 2), (whole(rng, 6, 9), 6, 4)):
            self.compare(subject, *self.inputs(tokens, experts, k, rng))

    @criterion(
        1,
        "the gradient flows through P only: E·f/T for each probability",
        hint="A count does not change when a probability moves a little: which factor is left for the gradient?",
    )
    def test_gradients(self, subject, rng):
        for tokens, experts, k in ((3, 4, 1), (5, 3, 2), (whole(rng, 4, 8), 5, 3)):
            probs_TE, dloss = oracles.distinct_probs(tokens, experts, rng), torch.tensor(1.5)
            args = (probs_TE, oracles.top_k(probs_TE, k))
            given = {**dict(zip(BALANCING, args, strict=False)), "dloss": dloss}
            want = oracles.gradients(oracles_balance.load_balancing_loss, args, dloss, wrt=(0,))
            _, got = returned(subject.run(vjp, "load_balancing_loss", args, (dloss,), wrt=(0,)), given)
            expect_gradients(got, want, ("probs_TE",), given)

    @criterion(
        2,
        "tokens whose mask is False count nowhere: not in f, not in P, not in what you divide by",
        hint="Delete the masked rows from both inputs: is your loss the same?",
    )
    def test_mask(self, subject, rng):
        for tokens, experts, k in ((4, 3, 1), (7, 5, 2), (whole(rng, 8, 12), 4, 3)):
            self.compare(subject, *self.inputs(tokens, experts, k, rng), self.mask(tokens, rng))
        self.compare(subject, *self.inputs(5, 4, 2, rng), torch.ones(5, dtype=torch.bool))

    test_together = together(2, test_uniform, test_values, test_gradients, test_mask)

    @criterion(
        1,
        "float64, bfloat16 and strided inputs work; nothing is edited",
        hint="Do you set masked rows to 0 in a tensor of your own?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype, rtol in ((torch.float64, 1e-5), (torch.bfloat16, 3e-2), (torch.float32, 1e-5)):
            probs_TE, idx_TK = self.inputs(9, 5, 2, rng, dtype)
            args = (strided(probs_TE), strided(idx_TK), self.mask(9, rng))
            expect_untouched(self.compare(subject, *args, rtol=rtol, form=True), args, BALANCING)

    def behaviour(self, subject):
        probs_TE = oracles.distinct_probs(6, 4, seed(441))
        idx_TK = torch.tensor([[0, 1], [2, 3], [0, 2], [0, 1], [3, 2], [3, 2]])
        mask_T = torch.tensor([True, False, True, True, False, False])
        chosen_TK = oracles.top_k(probs_TE, 2)
        out = subject.run(call, "load_balancing_loss", probs_TE, idx_TK)
        masked = subject.run(call, "load_balancing_loss", probs_TE, idx_TK, mask_T)
        return [
            _alike(out),
            out.inputs,
            _alike(masked),
            masked.inputs,
            _alike(
                subject.run(vjp, "load_balancing_loss", (probs_TE, chosen_TK), (torch.tensor(2.0),), wrt=(0,))
            ),
        ]


@grades("router_z_loss", hidden=1)
class TestRouterZLoss:
    @staticmethod
    def logits(tokens, experts, rng, dtype=torch.float32):
        return (2 * torch.randn(tokens, experts, generator=rng)).to(dtype)

    def compare(self, subject, logits_TE, **tolerance):
        given = {"logits_TE": logits_TE}
        out = subject.run(call, "router_z_loss", logits_TE)
        want = oracles_balance.router_z_loss(logits_TE)
        got = returned(out, given)
        expect_statistic(
            widened(got) if tolerance.get("form") else got, want, given, what="the loss", **tolerance
        )
        return out

    @criterion(
        1,
        "one token: the square of its logsumexp over the experts",
        hint="What is log(exp(0) + exp(0))?",
    )
    def test_one_token(self, subject, rng):
        self.compare(subject, torch.zeros(1, 2))
        for experts in (3, whole(rng, 4, 8)):
            self.compare(subject, self.logits(1, experts, rng))

    @criterion(
        2,
        "several tokens: the mean of their squares",
        hint="Which comes first, the square or the mean over the tokens?",
    )
    def test_mean(self, subject, rng):
        for tokens, experts in ((2, 3), (5, 4), (whole(rng, 6, 9), 3)):
            self.compare(subject, self.logits(tokens, experts, rng))

    @criterion(
        1,
        "its gradient reaches the logits",
        hint="Which way must the loss push logits that are far from 0?",
    )
    def test_gradients(self, subject, rng):
        for tokens, experts in ((1, 3), (whole(rng, 3, 6), 4)):
            args, dloss = (self.logits(tokens, experts, rng),), torch.tensor(1.5)
            given = {"logits_TE": args[0], "dloss": dloss}
            want = oracles.gradients(oracles_balance.router_z_loss, args, dloss, wrt=(0,))
            _, got = returned(subject.run(vjp, "router_z_loss", args, (dloss,), wrt=(0,)), given)
            expect_gradients(got, want, ("logits_TE",), given)

    @criterion(
        1,
        "large logits give a loss, not nan or inf",
        hint="exp(300) is more than float32 holds: which function takes the largest logit out first?",
    )
    def test_stable(self, subject, rng):
        level = whole(rng, 200, 400)
        self.compare(subject, torch.tensor([[0.0, 1.0, -2.0], [2.0, 0.5, 1.0]]) + level)
        self.compare(subject, torch.tensor([[0.0, 1.0], [-30.0, 2.0]]) - level)

    test_together = together(2, test_one_token, test_mean, test_gradients, test_stable)

    @criterion(
        1,
        "float64, bfloat16 and strided inputs work; nothing is edited",
        hint="Do you shift the logits in place?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype, rtol in ((torch.float64, 1e-5), (torch.bfloat16, 3e-2), (torch.float32, 1e-5)):
            logits_TE = strided(self.logits(8, 5, rng, dtype))
            expect_untouched(
                self.compare(subject, logits_TE, rtol=rtol, form=True), (logits_TE,), ("logits_TE",)
            )

    def behaviour(self, subject):
        logits_TE = self.logits(3, 4, seed(451))
        out = subject.run(call, "router_z_loss", logits_TE)
        return [
            _alike(out),
            out.inputs,
            _alike(subject.run(call, "router_z_loss", logits_TE[:2] + 300)),
            _alike(subject.run(vjp, "router_z_loss", (logits_TE,), (torch.tensor(2.0),), wrt=(0,))),
        ]


@grades("biased_top_k", hidden=2)
class TestBiasedTopK:
    cases = ((2, 3, 1), (4, 5, 2), (6, 7, 3), (5, 4, 4))  # T, E, k

    @staticmethod
    def gates(subject, scores_TE, bias_E, k, *scale, **options):
        """The call's outcome, the experts, and the weights as a dense matrix, which no order of slots can change."""
        given = {"scores_TE": scores_TE, "bias_E": bias_E, "k": k, **options}
        given |= {"scale": scale[0]} if scale else {}
        out = subject.run(call, "biased_top_k", scores_TE, bias_E, k, *scale, **options)
        weights_TK, idx_TK = expect_tuple(returned(out, given), 2, given, "weights_TK, idx_TK")
        want_TE, best_TK = oracles_balance.biased_gates(scores_TE, bias_E, k)
        expect_index(idx_TK, best_TK, "TK", given, what="idx_TK", any_order=True)
        shape_TK = torch.empty(best_TK.shape)
        if not isinstance(weights_TK, torch.Tensor) or weights_TK.shape != best_TK.shape:
            expect_tensor(weights_TK, shape_TK.to(scores_TE.dtype), "TK", given, what="weights_TK")
        gates_TE = torch.zeros_like(want_TE, dtype=weights_TK.dtype).scatter(1, idx_TK.long(), weights_TK)
        return out, gates_TE, idx_TK, given

    def compare(self, subject, scores_TE, bias_E, k, *scale, rtol=1e-4, expect=expect_values, **options):
        out, gates_TE, _, given = self.gates(subject, scores_TE, bias_E, k, *scale, **options)
        wanted = scale[0] if scale else options.get("scale", 1.0)
        want_TE, _ = oracles_balance.biased_gates(scores_TE, bias_E, k, wanted)
        what = "weights_TK, written into a (T, E) matrix"
        expect(gates_TE, want_TE, "TE", given, what=what, rtol=rtol)
        return out

    @criterion(
        2,
        "the k experts with the highest score + bias are selected",
        hint="An expert with a low score and a high bias: is it selected?",
    )
    def test_selects(self, subject, rng):
        for case in (*self.cases, (5, whole(rng, 4, 7), 2)):
            self.selects(subject, *oracles_balance.biased_scores(*case[:2], rng), case[2])

    @staticmethod
    def selects(subject, scores_TE, bias_E, k):
        given = {"scores_TE": scores_TE, "bias_E": bias_E, "k": k}
        out = subject.run(call, "biased_top_k", scores_TE, bias_E, k)
        _, idx_TK = expect_tuple(returned(out, given), 2, given, "weights_TK, idx_TK")
        _, want_TK = oracles_balance.biased_gates(scores_TE, bias_E, k)
        expect_index(idx_TK, want_TK, "TK", given, what="idx_TK", any_order=True)

    @criterion(
        2,
        "the weights are the scores without the bias, scaled to sum to 1 over the selected",
        hint="May the bias change what a selected expert contributes, or only whether it is selected?",
    )
    def test_weights(self, subject, rng):
        for case in (*self.cases, (5, whole(rng, 4, 7), 2)):
            self.compare(subject, *oracles_balance.biased_scores(*case[:2], rng), case[2])

    @criterion(
        1,
        "a bias far above the scores, and scores below 0, change nothing about this",
        hint="What does your selection do with a score of −3, and what with a bias of 40?",
    )
    def test_any_size(self, subject, rng):
        for tokens, experts, k in (*self.cases, (5, whole(rng, 5, 8), 3)):
            scores_TE, bias_E = oracles_balance.biased_scores(tokens, experts, rng)
            self.compare(subject, scores_TE, 100 * bias_E, k)
            # Of negative scores only the selection is asked: a router's scores are positive, its logits are not.
            for level in (0.5, 3.0):
                for factor in (1, 100):
                    self.selects(subject, scores_TE - level, factor * bias_E, k)

    @criterion(
        1,
        "scale multiplies the weights, and is 1 by default",
        hint="To what do the weights of a token add up when scale is 2.5?",
    )
    def test_scale(self, subject, rng):
        scale = 1.5 + float(torch.rand((), generator=rng))
        for tokens, experts, k in self.cases:
            args = (*oracles_balance.biased_scores(tokens, experts, rng), k)
            self.compare(subject, *args)
            self.compare(subject, *args, scale)
            self.compare(subject, *args, scale=scale)

    @criterion(
        1,
        "the gradient reaches the scores, through the weights and their sum; none reaches the bias",
        hint="Who teaches the router, and who moves the bias?",
    )
    def test_gradients(self, subject, rng):
        for tokens, experts, k in ((3, 4, 2), (4, whole(rng, 5, 7), 3)):
            args = (*oracles_balance.biased_scores(tokens, experts, rng), k, 1.5)
            _, _, idx_TK, given = self.gates(subject, *args)
            dgates_TE = short(torch.randn(tokens, experts, generator=rng))
            dweights_TK = dgates_TE.gather(1, idx_TK.long())
            given |= {"dweights_TK": dweights_TK}
            want = oracles.gradients(
                lambda *a: oracles_balance.biased_gates(*a)[0], args, dgates_TE, wrt=(0,)
            )
            out = subject.run(vjp, "biased_top_k", args, (dweights_TK,), wrt=(0, 1))
            _, (got, of_bias) = returned(out, given)
            expect_gradients((got,), want, ("scores_TE",), given)
            expect(of_bias is None or not of_bias.any(), "a gradient reaches bias_E", given)

    test_together = together(2, test_selects, test_weights, test_any_size, test_scale, test_gradients)

    @criterion(
        1,
        "bfloat16 (also with a float32 bias), float64 and strided inputs work; nothing is edited",
        hint="Which dtype do the weights have, and do you add the bias into scores_TE itself?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype, rtol in ((torch.float64, 1e-5), (torch.bfloat16, 2e-2), (torch.float32, 1e-5)):
            scores_TE, bias_E = oracles_balance.biased_scores(5, 4, rng, dtype)
            for bias in (bias_E, bias_E.float() if dtype == torch.bfloat16 else strided(bias_E)):
                args = (strided(scores_TE), bias, 2)
                out = self.compare(subject, *args, rtol=rtol, expect=expect_tensor)
                expect_untouched(out, args, ("scores_TE", "bias_E", "k"))

    def behaviour(self, subject):
        scores_TE, bias_E = oracles_balance.biased_scores(4, 5, seed(461))
        out = subject.run(call, "biased_top_k", scores_TE, bias_E, 3)
        return [
            _dense(out, 5),
            _dense(subject.run(call, "biased_top_k", scores_TE, bias_E, 3, 2.0), 5),
            _chosen(subject.run(call, "biased_top_k", scores_TE - 3, bias_E, 3), 5),
            out.inputs,
            dtypes(_alike(subject.run(call, "biased_top_k", scores_TE.bfloat16(), bias_E, 2))),
            self.gradients(subject, scores_TE, bias_E, 3),
        ]

    @staticmethod
    def gradients(subject, scores_TE, bias_E, k):
        """The gradients of a fixed function of the gates, the same in whatever order the slots come."""
        _, idx_TK = oracles_balance.biased_gates(scores_TE, bias_E, k)
        found = subject.run(call, "biased_top_k", scores_TE, bias_E, k).value
        match found:
            case (_, torch.Tensor() as mine_TK) | [_, torch.Tensor() as mine_TK] if (
                mine_TK.shape == idx_TK.shape
                and bool((mine_TK.sort(1).values == idx_TK.sort(1).values).all())
            ):
                idx_TK = mine_TK.long()
        dweights_TK = torch.randn(scores_TE.shape, generator=seed(462)).gather(1, idx_TK)
        out = subject.run(vjp, "biased_top_k", (scores_TE, bias_E, k), (dweights_TK,), wrt=(0, 1))
        return out.error or [None if grad is None or not grad.any() else grad for grad in out.value[1]]


UPDATE = ("bias_E", "counts_E", "rate")


@grades("update_bias", hidden=1)
class TestUpdateBias:
    @staticmethod
    def inputs(experts, rng, dtype=torch.float32):
        """Counts with a mean that is no whole number, some above it and some below, and a rate."""
        counts_E = torch.zeros(1, dtype=torch.int64)
        while counts_E.sum() % experts == 0:
            counts_E = torch.randint(0, 30, (experts,), generator=rng)
        bias_E = torch.randn(experts, generator=rng).to(dtype)
        return bias_E, counts_E, 0.05 + 0.1 * float(torch.rand((), generator=rng))

    def compare(self, subject, *args, expect=expect_values, **tolerance):
        given = dict(zip(UPDATE, args, strict=True))
        out = subject.run(call, "update_bias", *args)
        want_E = oracles_balance.update_bias(*args)
        expect(returned(out, given), want_E, "E", given, what="the new bias_E", **tolerance)
        return out

    @criterion(
        2,
        "one step of size rate: up for experts below the mean count, down for those above",
        hint="Which experts should be chosen more often, and does the step depend on how far off they are?",
    )
    def test_steps(self, subject, rng):
        self.compare(subject, torch.zeros(2), torch.tensor([3, 1]), 0.1)
        for experts in (3, whole(rng, 4, 8)):
            bias_E, counts_E, rate = self.inputs(experts, rng)
            for size in (1, 50):  # a bias far above the step, of either sign
                self.compare(subject, size * bias_E, counts_E, rate)

    @criterion(
        1,
        "an expert exactly at the mean stays where it is",
        hint="What is the sign of 0?",
    )
    def test_at_the_mean(self, subject, rng):
        bias_E, n = torch.randn(4, generator=rng), whole(rng, 6, 20)
        self.compare(subject, bias_E, torch.tensor([n, n - 5, n + 5, n]), 0.1)
        self.compare(subject, bias_E, torch.full((4,), n), 0.1)

    @criterion(
        1,
        "a mean that is no whole number: who is just below it is below it",
        hint="What is 7 // 3, and which experts with count 2 does it call even?",
    )
    def test_fractional_mean(self, subject, rng):
        n = whole(rng, 2, 20)
        self.compare(subject, torch.zeros(3), torch.tensor([n, n, n + 1]), 0.1)
        self.compare(subject, torch.randn(4, generator=rng), torch.tensor([n, n + 1, n + 1, n + 1]), 0.1)

    test_together = together(2, test_steps, test_at_the_mean, test_fractional_mean)

    @criterion(
        1,
        "a new tensor without gradient; bias_E and counts_E stay as they are",
        hint="If somebody edits your result, what happens to the bias they gave you?",
    )
    def test_new_tensor(self, subject, rng):
        even = (torch.randn(3, generator=rng), torch.full((3,), 4), 0.1)
        for args in (self.inputs(whole(rng, 3, 6), rng), even):
            given = dict(zip(UPDATE, args, strict=True))
            out = subject.run(after_editing_the_result, "update_bias", *args)
            expect_values(returned(out, given), oracles_balance.update_bias(*args), "E", given)
            expect_untouched(out, args, UPDATE)
        _, got = returned(subject.run(vjp, "update_bias", args, (torch.ones(3),), wrt=(0,)), given)
        expect(got[0] is None, "a gradient flows from the new bias to bias_E", given)

    @criterion(
        1,
        "a float64 bias stays float64, a float32 one float32; strided inputs work",
        hint="Which dtype does the new bias have?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype in (torch.float64, torch.float32):
            bias_E, counts_E, rate = self.inputs(5, rng, dtype)
            args = (strided(bias_E), strided(counts_E), rate)
            self.compare(subject, *args, expect=expect_tensor, rtol=1e-5)

    def behaviour(self, subject):
        bias_E = torch.tensor([0.3, -0.2, 0.1, 0.4, 0.0])
        args = (bias_E, torch.tensor([11, 2, 5, 3, 4]), 0.25)
        out = subject.run(after_editing_the_result, "update_bias", *args)
        even = subject.run(after_editing_the_result, "update_bias", bias_E, torch.full((5,), 3), 0.25)
        fraction = subject.run(call, "update_bias", bias_E, torch.tensor([3, 4, 5, 9, 2]), 0.25)
        return [
            out,
            out.inputs,
            even,
            even.inputs,
            fraction,
            subject.run(call, "update_bias", 50 * bias_E, args[1], 0.25),
            dtypes(subject.run(call, "update_bias", bias_E.double(), args[1], 0.25)),
            subject.run(vjp, "update_bias", args, (torch.ones(5),), wrt=(0,)),
        ]


@grades("expert_choice", hidden=2)
class TestExpertChoice:
    cases = ((3, 2, 1), (5, 3, 2), (7, 4, 5), (4, 6, 4))  # T, E, capacity

    @staticmethod
    def choice(subject, probs_TE, capacity):
        given = {"probs_TE": probs_TE, "capacity": capacity}
        out = subject.run(call, "expert_choice", probs_TE, capacity)
        weights_EC, idx_EC = expect_tuple(returned(out, given), 2, given, "weights_EC, idx_EC")
        return out, weights_EC, idx_EC, given

    # Expert 0 is surest of token 0, whose own first choice is expert 1; token 1 has expert 0 for its first choice.
    contested_TE = torch.tensor([[0.40, 0.55, 0.05], [0.36, 0.33, 0.31], [0.10, 0.28, 0.62]])

    def sizes(self, rng):
        tokens = whole(rng, 5, 9)
        return (*self.cases, (tokens, whole(rng, 2, 4), whole(rng, 2, tokens - 1)))

    @criterion(
        2,
        "each expert takes the tokens with its highest probabilities: idx_EC has a row for each expert",
        hint="Who chooses here, the token or the expert, and along which axis is that?",
    )
    def test_chooses(self, subject, rng):
        order_T = torch.randperm(3, generator=rng)
        cases = [(self.contested_TE[order_T], 1)]
        for tokens, experts, capacity in self.sizes(rng):
            cases.append((oracles_balance.distinct_columns(tokens, experts, rng), capacity))
        for probs_TE, capacity in cases:
            _, _, idx_EC, given = self.choice(subject, probs_TE, capacity)
            _, want_EC = oracles_balance.expert_choice(probs_TE, capacity)
            expect_index(idx_EC, want_EC, "EC", given, what="idx_EC", any_order=True)

    @criterion(
        2,
        "the weights are those probabilities as they are, the largest first",
        hint="Does anything have to sum to 1 here, and which token stands in an expert's slot 0?",
    )
    def test_weights(self, subject, rng):
        for tokens, experts, capacity in self.sizes(rng):
            probs_TE = oracles_balance.distinct_columns(tokens, experts, rng)
            _, weights_EC, idx_EC, given = self.choice(subject, probs_TE, capacity)
            want_EC, chosen_EC = oracles_balance.expert_choice(probs_TE, capacity)
            expect_values(weights_EC, want_EC, "EC", given, what="weights_EC")
            expect_index(idx_EC, chosen_EC, "EC", given, what="idx_EC")

    @criterion(
        1,
        "the gradient reaches the chosen probabilities, and no other",
        hint="How would the router learn, if the weights did not lead back to the probabilities?",
    )
    def test_gradients(self, subject, rng):
        for tokens, experts, capacity in ((4, 3, 2), (6, 2, whole(rng, 3, 5))):
            probs_TE = oracles_balance.distinct_columns(tokens, experts, rng)
            dweights_EC = short(torch.randn(experts, capacity, generator=rng))
            given = {"probs_TE": probs_TE, "capacity": capacity, "dweights_EC": dweights_EC}
            want = oracles.gradients(
                lambda *a: oracles_balance.expert_choice(*a)[0], (probs_TE, capacity), dweights_EC, wrt=(0,)
            )
            out = subject.run(vjp, "expert_choice", (probs_TE, capacity), (dweights_EC,), wrt=(0,))
            _, got = returned(out, given)
            expect_gradients(got, want, ("probs_TE",), given)

    test_together = together(3, test_chooses, test_weights, test_gradients)

    @criterion(
        1,
        "a capacity above T, or not positive, raises ValueError",
        hint="How many tokens can an expert take at most, and what is a capacity of 0 good for?",
    )
    def test_bad_capacity(self, subject, rng):
        tokens = whole(rng, 3, 5)
        probs_TE = oracles_balance.distinct_columns(tokens, 2 * tokens, rng)
        for capacity in (1, tokens):  # both ends are fine
            _, _, idx_EC, given = self.choice(subject, probs_TE, capacity)
            _, want_EC = oracles_balance.expert_choice(probs_TE, capacity)
            expect_index(idx_EC, want_EC, "EC", given, what="idx_EC", any_order=True)
        for capacity in (tokens + 1, 0, -1):
            given = {"probs_TE": probs_TE, "capacity": capacity}
            expect_raises(subject.run(call, "expert_choice", probs_TE, capacity), "ValueError", given)

    @criterion(
        1,
        "anything but a (T, E) matrix raises ValueError",
        hint="What would your code make of the probabilities of a whole batch, (B, S, E)?",
    )
    def test_bad_axes(self, subject, rng):
        flat_TE = oracles_balance.distinct_columns(6, 4, rng)
        for probs in (flat_TE[:, 0], flat_TE.reshape(2, 3, 4)):
            given = {"probs": probs, "capacity": 2}
            expect_raises(subject.run(call, "expert_choice", probs, 2), "ValueError", given)

    @criterion(
        1,
        "bfloat16, float64 and strided inputs work; nothing is edited",
        hint="Which dtype do the weights have, and do you cross out in probs_TE itself?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype in (torch.float64, torch.bfloat16, torch.float32):
            args = (strided(oracles_balance.distinct_columns(5, 3, rng, dtype)), 2)
            out, weights_EC, idx_EC, given = self.choice(subject, *args)
            want_EC, chosen_EC = oracles_balance.expert_choice(*args)
            expect_tensor(weights_EC, want_EC, "EC", given, what="weights_EC", rtol=1e-2)
            expect_index(idx_EC, chosen_EC, "EC", given, what="idx_EC", any_order=True)
            expect_untouched(out, args, ("probs_TE", "capacity"))

    def behaviour(self, subject):
        probs_TE = oracles_balance.distinct_columns(5, 3, seed(481))
        wide_TE = oracles_balance.distinct_columns(3, 6, seed(482))
        dweights_EC = torch.tensor([[1.0, -2]] * 3)
        out = subject.run(call, "expert_choice", probs_TE, 2)
        return [
            _alike(out),
            out.inputs,
            _alike(subject.run(call, "expert_choice", self.contested_TE, 1)),
            dtypes(_alike(subject.run(call, "expert_choice", probs_TE.bfloat16(), 2))),
            _alike(subject.run(vjp, "expert_choice", (probs_TE, 2), (dweights_EC,), wrt=(0,))),
            *(refusal(subject.run(call, "expert_choice", wide_TE, c)) for c in (-1, 0, 3, 4)),
            refusal(subject.run(call, "expert_choice", probs_TE, 4)),
            *(refusal(subject.run(call, "expert_choice", p, 2)) for p in (wide_TE[:, 0], wide_TE[None])),
        ]


@grades("global_load", hidden=1)
class TestGlobalLoad:
    @staticmethod
    def counts(micro_batches, experts, rng):
        return torch.randint(1, 12, (micro_batches, experts), generator=rng)

    def compare(self, subject, counts_ME, form=False):
        given = {"counts_ME": counts_ME}
        out = subject.run(call, "global_load", counts_ME)
        want_E = oracles_balance.global_load(counts_ME)
        expect_statistic(returned(out, given), want_E, given, axes="E", what="load_E", rtol=1e-5, form=form)
        return out

    @criterion(
        1,
        "micro-batches of one size: the load over all of them",
        hint="What do the shares of all experts add up to?",
    )
    def test_equal_sizes(self, subject, rng):
        self.compare(subject, torch.tensor([[4, 0], [1, 3]]))
        experts = whole(rng, 3, 6)
        counts_E = self.counts(1, experts, rng)[0]
        self.compare(
            subject, torch.stack([counts_E[torch.randperm(experts, generator=rng)] for _ in range(4)])
        )
        self.compare(subject, counts_E[None])

    @criterion(
        2,
        "micro-batches of different sizes count by their assignments",
        hint="A micro-batch of ten tokens and one of a thousand: do both have the same say?",
    )
    def test_different_sizes(self, subject, rng):
        self.compare(subject, torch.tensor([[8, 0], [1, 3]]))
        for micro_batches, experts in ((3, 4), (whole(rng, 4, 7), 3)):
            sizes_M1 = torch.randint(1, 20, (micro_batches, 1), generator=rng)
            sizes_M1[:2, 0] = torch.tensor([3, 17])
            self.compare(subject, sizes_M1 * self.counts(micro_batches, experts, rng))

    @criterion(
        1,
        "a micro-batch without any assignment changes nothing, nor does an expert without any",
        hint="What is 0 / 0, and where could you meet it?",
    )
    def test_empty(self, subject, rng):
        counts_ME = self.counts(4, whole(rng, 3, 6), rng)
        counts_ME[whole(rng, 0, 3)] = 0
        counts_ME[:, whole(rng, 0, 2)] = 0
        self.compare(subject, counts_ME)

    test_together = together(2, test_equal_sizes, test_different_sizes, test_empty)

    @criterion(
        1,
        "a tensor of float32 or float64; strided counts work; nothing is edited",
        hint="Do you divide or add up in place, and how many digits has a share in bfloat16?",
    )
    def test_other_inputs(self, subject, rng):
        for counts_ME in (self.counts(3, 5, rng), strided(self.counts(5, 3, rng))):
            expect_untouched(self.compare(subject, counts_ME, form=True), (counts_ME,), ("counts_ME",))

    def behaviour(self, subject):
        counts_ME = torch.tensor([[4, 0, 8, 1], [1, 3, 2, 0], [30, 5, 9, 2]])
        out = subject.run(call, "global_load", counts_ME)
        return [
            _alike(out),
            out.inputs,
            _alike(subject.run(call, "global_load", torch.tensor([[0, 0, 0], [1, 0, 3]]))),
        ]


def _alike(value):
    """float64 statistics and int32 experts are as good as float32 and int64: show them as the same."""
    if isinstance(value, torch.Tensor):
        kinds = {torch.float64: torch.float32, torch.int32: torch.int64}
        return value.to(kinds.get(value.dtype, value.dtype))
    if isinstance(value, tuple | list):
        return [_alike(part) for part in value]
    return replace(value, value=_alike(value.value)) if isinstance(value, Outcome) else value


def _chosen(out, experts):
    """Which experts a call selects, or the exception; weights do not show."""
    dense = _dense(out, experts)
    return dense[1] if isinstance(dense, list) else dense


def _dense(out, experts):
    """Weights and experts of a call as one (T, E) matrix each, so that the order of slots does not show."""
    match out.value:
        case (torch.Tensor() as weights_TK, torch.Tensor() as idx_TK) | [
            torch.Tensor() as weights_TK,
            torch.Tensor() as idx_TK,
        ] if weights_TK.shape == idx_TK.shape and not idx_TK.is_floating_point():
            empty_TE = torch.zeros(len(idx_TK), experts, dtype=weights_TK.dtype)
            idx_TK = idx_TK.long().clamp(0, experts - 1)
            return [empty_TE.scatter(1, idx_TK, weights_TK), empty_TE.scatter(1, idx_TK, 1.0)]
    return out
