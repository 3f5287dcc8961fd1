"""Hidden criteria of notebook 11, the clinic: everything at once, at other sizes."""

from __future__ import annotations

import torch

from graders import oracles, oracles_clinic
from graders import test_11_clinic as public
from graders.common import expect_values, named, short, whole
from graders.oracles_balance import biased_scores
from graders.probes import vjp
from graders.probes.clinic import gate_program
from moe_course.grading.exercises.expect import expect_gradients, returned
from moe_course.grading.exercises.rubric import criterion, grades


@grades("gate")
class HiddenGate:
    @criterion(
        4,
        "wide layers, one expert a token and several",
        hint="A token's logits are nearly equal. What are its weights?",
    )
    def test_wide(self, subject, rng):
        grader = public.TestGate()
        for experts, k in ((9, 1), (whole(rng, 11, 16), 1), (12, 5), (8, 2)):
            logits_TE = oracles.distinct_logits(whole(rng, 5, 9), experts, rng)
            grader.compare(subject, logits_TE, k)
            args, oracle = (logits_TE, k), oracles_clinic.gate
            given = named(grader.names, args)
            public.gate_gradients(subject, "gate", args, given, oracle, (0,), ("logits_TE",), rng)


@grades("route_with_loss")
class HiddenRouteWithLoss:
    @criterion(
        4,
        "an uneven load over many experts: loss, weights and gradients",
        hint="What is the loss when nearly all tokens go to one expert?",
    )
    def test_uneven(self, subject, rng):
        grader = public.TestRouteWithLoss()
        for experts, k in ((16, 2), (whole(rng, 90, 120), 3)):
            x_TD, router_DE, k = public.routing_case(12, 6, experts, k, rng)
            router_DE[:, 1] += 0.8 * x_TD.mean(0).sign()
            x_TD = public.apart(x_TD + 0.7 * x_TD.mean(0).sign(), router_DE, k, 1e-3)
            grader.compare(subject, (x_TD, router_DE, k))
            grader.compare_gradients(subject, (x_TD, router_DE, k), rng)


@grades("biased_gate")
class HiddenBiasedGate:
    @criterion(
        4,
        "about twenty experts, with scores and biases of many sizes: weights and gradients",
        hint="Which of your numbers is a difference of two numbers that are nearly the same?",
    )
    def test_wide(self, subject, rng):
        grader = public.TestBiasedGate()
        experts = whole(rng, 17, 25)
        for args in (
            (*public.tiny_scores(5, experts, rng, 3.0), 4),
            (*public.tiny_scores(3, experts, rng, -30.0), 6),
            (*biased_scores(6, 8, rng), 3),
        ):
            grader.compare(subject, *args)
        given, oracle = named(grader.names, args), oracles_clinic.biased_gate
        public.gate_gradients(subject, "biased_gate", args, given, oracle, (0,), ("scores_TE",), rng)
        dweights_TK = torch.randn(len(args[0]), args[2], generator=rng)
        run = subject.run(vjp, "biased_gate", args, (dweights_TK,), wrt=(0, 1))
        _, (_, bias_grad) = returned(run, given)
        if bias_grad is not None:
            expect_values(bias_grad, torch.zeros(8), "E", given, what="the gradient of bias_E", atol=0)


@grades("BalancedGate")
class HiddenBalancedGate:
    @criterion(
        5,
        "a longer life: passes of every kind in one step, more experts",
        hint="Go through the life of your gate pass by pass: from which of them does it learn?",
    )
    def test_life(self, subject, rng):
        def steps(tokens):
            again = tokens(4)
            return [
                ["look", True, again, False],
                ["train", True, [[again, "other"], [tokens(3), "reentrant"], [tokens(5), "plain"]]],
                ["look", False, tokens(9), True],
                ["train", False, [[again, "plain"], [tokens(3), "other"]]],
                ["update", 0.25],
                ["look", False, tokens(9), False],
                ["train", True, [[tokens(6), "reentrant"], [again, "unused"]]],
                ["twice", tokens(3)],
                ["train", True, [[tokens(2), "other"]]],
                ["update", 0.5],
                ["train", True, [[again, "plain"]]],
            ]

        grader = public.TestBalancedGate()
        case = grader.case(rng, steps, sizes=(4, whole(rng, 6, 9), 3))
        grader.compare(subject, case)
        sizes, router_DE, bias_E, *_ = case
        x_TD = short(torch.randn(5, 4, generator=rng))
        look = [["look", False, x_TD, False]]
        report = returned(subject.run(gate_program, "BalancedGate", sizes, router_DE, bias_E, look))
        want_TE = oracles_clinic.Gate(router_DE, bias_E, 3).gates(x_TD).float()
        public.expect_gates((report["weights"], report["idx"]), want_TE, 3, {"x_TD": x_TD})


@grades("reduce_gradients")
class HiddenReduceGradients:
    @criterion(
        4,
        "four ranks, with the experts on all four or on two, and ranks outside",
        hint="Which number stays the same when the experts are spread over more ranks?",
    )
    def test_every_layout(self, subject, rng):
        grader = public.TestReduceGradients()
        for groups_of in (4, 2):
            grader.compare(subject, grader.case(rng, groups_of, 4))
        grader.compare(subject, grader.case(rng, 2, 2, outside=(1,)))


@grades("clip_gradients")
class HiddenClipGradients:
    @criterion(
        4,
        "more ranks, some of them outside, one without experts",
        hint="Which ranks must come to the same number, and what do they have to tell each other?",
    )
    def test_more_ranks(self, subject, rng):
        grader = public.TestClipGradients()
        grader.compare(subject, grader.case(rng, 0.3, 3, outside=(1,), empty=((2, 1),)))
        grader.compare(subject, grader.case(rng, 0.9, 3))
        grader.compare(subject, grader.case(rng, 3.0, 2))


@grades("route_in_bf16")
class HiddenRouteInBf16:
    @criterion(
        4,
        "experts and weights in a layer of many experts",
        hint="Which of your operations still rounds to eight bits, and what comes after it?",
    )
    def test_many(self, subject, rng):
        grader = public.TestRouteInBf16()
        experts = whole(rng, 100, 140)
        grader.expect_sets(subject, grader.near(200, experts, 8, rng, d_model=40))
        grader.compare(subject, grader.far(48, experts, 5, rng))
        grader.compare_gradients(subject, rng)


@grades("context_router")
class HiddenContextRouter:
    @criterion(
        4,
        "longer texts, a text cut short, and gradients",
        hint="Cut the text after a few tokens: which probabilities may change?",
    )
    def test_cut(self, subject, rng):
        grader = public.TestContextRouter()
        x_BSD, router_DE = grader.inputs(3, whole(rng, 9, 14), 4, 7, rng)
        for args in ((x_BSD, router_DE), (x_BSD[:, :4], router_DE), (x_BSD[1:2], router_DE)):
            grader.compare(subject, *args)
        dprobs_BSE = short(torch.randn(*x_BSD.shape[:2], 7, generator=rng))
        want = oracles.gradients(oracles_clinic.context_router, (x_BSD, router_DE), dprobs_BSE, wrt=(0, 1))
        run = subject.run(vjp, "context_router", (x_BSD, router_DE), (dprobs_BSE,), wrt=(0, 1))
        expect_gradients(returned(run)[1], want, ("x_BSD", "router_DE"))


@grades("decode_experts")
class HiddenDecodeExperts:
    @criterion(
        5,
        "a large layer and a batch that shares experts: outputs, gradients and operations",
        hint="How often does your code touch an expert that several tokens share?",
    )
    def test_shared(self, subject, rng):
        grader = public.TestDecodeExperts()
        args = grader.inputs(whole(rng, 9, 13), 3, 24, rng, (2, 7, 11, 23), sizes=(5, 6))
        works, given, dy_TD = grader.work(subject, args, rng)
        grader.expect_frugal(works, 0, 3, args, given)
        grader.expect_frugal(works, 1, 6, args, given)
        want = oracles.gradients(oracles.moe, args, dy_TD, wrt=grader.differentiable)
        run = subject.run(vjp, "decode_experts", args, (dy_TD,), wrt=grader.differentiable)
        names = [grader.names.split()[i] for i in grader.differentiable]
        expect_gradients(returned(run, given)[1], want, names, given, rtol=1e-3, atol=1e-5)
