"""Hidden criteria of notebook 03: other sizes, and what must hold whatever the numbers are."""

from __future__ import annotations

import torch

from graders import oracles, oracles_dispatch
from graders import test_03_dispatch as public
from graders.common import expect_values, named, short, whole
from graders.probes import vjp
from graders.probes.dispatch import moe_layer_step
from graders.test_03_dispatch import COMBINE, FFN, GATHER, STATE, plan_of
from moe_course.grading.exercises.expect import (
    expect_gradients,
    expect_index,
    expect_tuple,
    returned,
)
from moe_course.grading.exercises.rubric import criterion, grades


@grades("plan_dispatch")
class HiddenPlanDispatch:
    @criterion(
        2,
        "a long routing with many experts, most of them empty",
        hint="Which entries of counts_E belong to experts that occur nowhere in idx_TK?",
    )
    def test_many_experts(self, subject, rng):
        experts = whole(rng, 40, 60)
        among = tuple(sorted(torch.randperm(experts - 1, generator=rng)[:9].tolist()))
        idx_TK = oracles_dispatch.routing(whole(rng, 60, 90), experts, 4, rng, among)
        public.TestPlanDispatch().compare(subject, idx_TK, experts)


@grades("gather_tokens")
class HiddenGatherTokens:
    @criterion(
        1,
        "shuffled tokens, and a plan that says so, give the same rows and gradients",
        hint="Does every assignment find its own token, wherever that stands?",
    )
    def test_shuffled(self, subject, rng):
        tokens, k = whole(rng, 9, 13), 5
        x_TD = torch.randn(tokens, 3, generator=rng)
        order_N, names_T = plan_of(tokens, 7, k, rng), torch.randperm(tokens, generator=rng)
        moved_N = names_T.argsort()[order_N // k] * k + order_N % k
        for args in ((x_TD, order_N, k), (x_TD[names_T], moved_N, k)):
            given = named(GATHER, args)
            dx_ND = short(torch.randn(tokens * k, 3, generator=rng))
            x_ND, got = returned(subject.run(vjp, "gather_tokens", args, (dx_ND,), wrt=(0,)), given)
            expect_values(x_ND, x_TD[order_N // k], "ND", given, what="x_ND", rtol=0, atol=0)
            want = oracles.gradients(oracles_dispatch.gather_tokens, args, dx_ND, wrt=(0,))
            expect_gradients(got, want, ("x_TD",), given)


@grades("grouped_ffn")
class HiddenGroupedFfn:
    @criterion(
        2,
        "renamed experts, with their rows and counts moved along, give the same outputs and gradients",
        hint="Does a group meet its own weights, wherever in the row of experts it stands?",
    )
    def test_renamed(self, subject, rng):
        experts, wrt = whole(rng, 8, 10), (0, 2, 3, 4)
        args = public.TestGroupedFfn.inputs(4, 7, experts, rng, (0, 3, 4))
        groups, names_E = args[0].split(args[1].tolist()), torch.randperm(experts, generator=rng)
        moved = (torch.cat([groups[e] for e in names_E]), *(arg[names_E] for arg in args[1:]))
        for case in (args, moved):
            dy_ND = short(torch.randn(*case[0].shape, generator=rng))
            given = {**named(FFN, case), "dy_ND": dy_ND}
            want = oracles.gradients(oracles_dispatch.grouped_ffn, case, dy_ND, wrt)
            y_ND, got = returned(subject.run(vjp, "grouped_ffn", case, (dy_ND,), wrt), given)
            expect_values(y_ND, oracles_dispatch.grouped_ffn(*case), "ND", given, what="y_ND")
            expect_gradients(got, want, [FFN[i] for i in wrt], given)


@grades("combine")
class HiddenCombine:
    @criterion(
        2,
        "shuffled rows, and a plan that says so, give the same sums and gradients",
        hint="Does your result depend on more than which assignment a row belongs to?",
    )
    def test_shuffled(self, subject, rng):
        y_ND, order_N, weights_TK = public.TestCombine.inputs(whole(rng, 9, 13), 4, 7, 5, rng)
        rows_N = torch.randperm(len(order_N), generator=rng)
        for args in ((y_ND, order_N, weights_TK), (y_ND[rows_N], order_N[rows_N], weights_TK)):
            dy_TD = short(torch.randn(len(weights_TK), 4, generator=rng))
            given = {**named(COMBINE, args), "dy_TD": dy_TD}
            want = oracles.gradients(oracles_dispatch.combine, args, dy_TD, wrt=(0, 2))
            y_TD, got = returned(subject.run(vjp, "combine", args, (dy_TD,), wrt=(0, 2)), given)
            expect_values(y_TD, oracles_dispatch.combine(*args), "TD", given, what="y_TD")
            expect_gradients(got, want, ("y_ND", "weights_TK"), given)


@grades("MoELayer")
class HiddenMoELayer:
    @criterion(
        1,
        "a token's output and experts depend on that token alone, not on its neighbours in the batch",
        hint="What does the second sequence have to do with the first one's output?",
    )
    def test_tokens_alone(self, subject, rng):
        options, state, x_BSD = public.TestMoELayer().case(3, whole(rng, 5, 7), 6, 5, 9, 4, rng)
        options["renormalize"] = bool(whole(rng, 0, 1))
        want_BSD = oracles_dispatch.moe_layer(x_BSD, *state.values(), 4, options["renormalize"])
        want_TK = oracles_dispatch.chosen_experts(x_BSD, state[STATE[0]], 4)
        length = x_BSD.shape[1]
        for rows in ([0, 1, 2], [2, 0], [1]):
            given = {"MoELayer": options, **state, "x_BSD": x_BSD[rows]}
            report = returned(subject.run(moe_layer_step, options, state, x_BSD[rows]), given)
            y_BSD, idx_TK = expect_tuple(report["result"], 2, given, "y_BSD, idx_TK")
            expect_values(y_BSD, want_BSD[rows], "BSD", given, what="y_BSD")
            mine_TK = want_TK.unflatten(0, (3, length))[rows].flatten(0, 1)
            expect_index(idx_TK, mine_TK, "TK", given, what="idx_TK", any_order=True)

    @criterion(
        3,
        "all that the self-check asks about values and gradients, in one piece and on other numbers",
        hint="Does the layer hold what it promises for each k, for each size and in each gradient?",
    )
    def test_whole(self, subject, rng):
        public.TestMoELayer().test_together(subject, rng)
