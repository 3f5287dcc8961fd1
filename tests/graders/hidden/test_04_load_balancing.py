"""Hidden criteria of notebook 04, load balancing: bigger cases and symmetries that the self-check does not try."""

from __future__ import annotations

import torch

from graders import oracles, oracles_balance
from graders import test_04_load_balancing as public
from graders.common import expect_values, random_idx, whole
from graders.probes import call, vjp
from graders.test_04_load_balancing import (
    even_idx,
    expect_statistic,
)
from moe_course.grading.exercises.expect import (
    expect,
    expect_gradients,
    expect_index,
    expect_tuple,
    returned,
)
from moe_course.grading.exercises.rubric import criterion, grades


@grades("expert_load")
class HiddenExpertLoad:
    @criterion(
        1,
        "many experts, most of them idle, several slots",
        hint="Does your result keep its length and its sum with 64 experts?",
    )
    def test_many_experts(self, subject, rng):
        experts = whole(rng, 40, 64)
        idx_TK = random_idx(30, experts, 6, rng, among=range(3, 17))
        given = {"idx_TK": idx_TK, "num_experts": experts}
        got = returned(subject.run(call, "expert_load", idx_TK, experts), given)
        expect_statistic(got, oracles_balance.load(idx_TK, experts), given, axes="E", what="load_E")


@grades("max_violation")
class HiddenMaxViolation:
    @criterion(
        1,
        "renaming the experts changes nothing; many experts work",
        hint="Does it matter which of the experts is the busiest?",
    )
    def test_renamed(self, subject, rng):
        experts = whole(rng, 20, 40)
        load_E = torch.rand(experts, generator=rng) ** 3 + 0.01
        load_E[whole(rng, 1, experts - 1)] = 0
        load_E = load_E / load_E.sum()
        for order_E in (torch.arange(experts), torch.randperm(experts, generator=rng)):
            given = {"load_E": load_E[order_E]}
            got = returned(subject.run(call, "max_violation", load_E[order_E]), given)
            expect_statistic(got, oracles_balance.max_violation(load_E), given, rtol=1e-4)


@grades("cv_squared")
class HiddenCvSquared:
    @criterion(
        1,
        "one value among zeros gives E − 1, and a gradient",
        hint="What are mean and variance of (v, 0, 0, …)?",
    )
    def test_all_on_one(self, subject, rng):
        for experts in (2, whole(rng, 5, 12)):
            values_E = torch.zeros(experts)
            values_E[whole(rng, 0, experts - 1)] = 3 * whole(rng, 1, 9)
            given = {"values_E": values_E}
            got = returned(subject.run(call, "cv_squared", values_E), given)
            expect_statistic(got, torch.tensor(experts - 1.0), given)
            dloss = torch.tensor(2.0)
            want = oracles.gradients(oracles_balance.cv_squared, (values_E,), dloss, wrt=(0,))
            _, grads = returned(subject.run(vjp, "cv_squared", (values_E,), (dloss,), wrt=(0,)), given)
            expect_gradients(grads, want, ("values_E",), given, atol=1e-4)


@grades("load_balancing_loss")
class HiddenLoadBalancingLoss:
    @criterion(
        2,
        "padding can hold anything, and gets no gradient; a bigger batch of many experts",
        hint="What would your loss and its gradient be, if the rows of padding were not there?",
    )
    def test_padding(self, subject, rng):
        tokens, experts, k = whole(rng, 20, 30), whole(rng, 9, 14), 4
        probs_TE = oracles.distinct_probs(tokens, experts, rng)
        idx_TK = random_idx(tokens, experts, k, rng)
        mask_T = torch.rand(tokens, generator=rng) < 0.7
        mask_T[:2] = torch.tensor([True, False])
        dloss = torch.tensor(2.0)
        other_TE = torch.where(mask_T[:, None], probs_TE, 40 * torch.rand(tokens, experts, generator=rng))
        other_TK = torch.where(mask_T[:, None], idx_TK, even_idx(experts, k)[0].expand(tokens, k))
        want = oracles_balance.load_balancing_loss(probs_TE, idx_TK, mask_T)
        for args in ((probs_TE, idx_TK, mask_T), (other_TE, other_TK, mask_T)):
            given = dict(zip(("probs_TE", "idx_TK", "mask_T"), args, strict=True))
            want_TE = oracles.gradients(oracles_balance.load_balancing_loss, args, dloss, wrt=(0,))
            out = subject.run(vjp, "load_balancing_loss", args, (dloss,), wrt=(0,))
            loss, gradients = returned(out, given)
            expect_statistic(loss, want, given, what="the loss")
            expect_gradients(gradients, want_TE, ("probs_TE",), given)


@grades("router_z_loss")
class HiddenRouterZLoss:
    @criterion(
        1,
        "tokens of very different level, shuffled; many experts; gradients",
        hint="Is each token's logsumexp squared by itself?",
    )
    def test_levels(self, subject, rng):
        tokens, experts = whole(rng, 10, 20), whole(rng, 20, 40)
        level_T1 = 60 * torch.randn(tokens, 1, generator=rng)
        logits_TE = torch.randn(tokens, experts, generator=rng) + level_T1
        for order_T in (torch.arange(tokens), torch.randperm(tokens, generator=rng)):
            given = {"logits_TE": logits_TE[order_T]}
            args, dloss = (logits_TE[order_T],), torch.tensor(0.5)
            got, grads = returned(subject.run(vjp, "router_z_loss", args, (dloss,), wrt=(0,)), given)
            expect_statistic(got, oracles_balance.router_z_loss(logits_TE), given, what="the loss")
            want = oracles.gradients(oracles_balance.router_z_loss, args, dloss, wrt=(0,))
            expect_gradients(grads, want, ("logits_TE",), given)


@grades("biased_top_k")
class HiddenBiasedTopK:
    @criterion(
        2,
        "a bias for all experts alike changes nothing, however large; the rest on other numbers",
        hint="Which of the two results may depend on the level of the bias?",
    )
    def test_level_of_the_bias(self, subject, rng):
        for tokens, experts, k in ((7, 6, 3), (whole(rng, 3, 6), 5, 2)):
            scores_TE, bias_E = oracles_balance.biased_scores(tokens, experts, rng)
            want_TE, want_TK = oracles_balance.biased_gates(scores_TE, bias_E, k)
            for level in (0.0, -3.0, 5.0):
                given = {"scores_TE": scores_TE, "bias_E": bias_E + level, "k": k}
                out = subject.run(call, "biased_top_k", scores_TE, bias_E + level, k)
                weights_TK, idx_TK = expect_tuple(returned(out, given), 2, given, "weights_TK, idx_TK")
                expect_index(idx_TK, want_TK, "TK", given, what="idx_TK", any_order=True)
                want_weights_TK = want_TE.gather(1, idx_TK.long())
                expect_values(weights_TK, want_weights_TK, "TK", given, what="weights_TK", atol=1e-5)
        public.TestBiasedTopK().test_together(subject, rng)


@grades("update_bias")
class HiddenUpdateBias:
    @criterion(
        1,
        "twenty updates against a fixed load: twenty steps, none at the mean; the rest on other numbers",
        hint="Does a step depend on the bias that is there already?",
    )
    def test_many_updates(self, subject, rng):
        experts = whole(rng, 4, 7)
        counts_E = torch.randperm(10 * experts, generator=rng)[:experts]
        counts_E[0] = 2 * experts * 10  # far above, and then the last expert exactly at the mean
        counts_E[-1] = 0
        counts_E[1] += -counts_E.sum() % (experts - 1)
        counts_E[-1] = counts_E.sum() // (experts - 1)
        bias_E, want_E = torch.zeros(experts), torch.zeros(experts)
        for _ in range(20):
            given = {"bias_E": bias_E, "counts_E": counts_E, "rate": 0.5}
            bias_E = returned(subject.run(call, "update_bias", bias_E, counts_E, 0.5), given)
            want_E = oracles_balance.update_bias(want_E, counts_E, 0.5)
            expect_values(bias_E, want_E, "E", given, what="the new bias_E")
        public.TestUpdateBias().test_together(subject, rng)


@grades("expert_choice")
class HiddenExpertChoice:
    @criterion(
        2,
        "shuffled tokens: the same tokens are taken; every expert is full; gradients on other numbers",
        hint="Does an expert's choice depend on where in the batch a token stands, or on what others chose?",
    )
    def test_shuffled(self, subject, rng):
        tokens, experts = whole(rng, 12, 20), 3
        capacity = whole(rng, 4, tokens - 2)
        probs_TE = oracles_balance.distinct_columns(tokens, experts, rng)
        probs_TE[:, 1] *= 1e-3  # nobody's choice, and just as busy
        order_T = torch.randperm(tokens, generator=rng)
        for shown_TE in (probs_TE, probs_TE[order_T]):
            given = {"probs_TE": shown_TE, "capacity": capacity}
            out = subject.run(call, "expert_choice", shown_TE, capacity)
            weights_EC, idx_EC = expect_tuple(returned(out, given), 2, given, "weights_EC, idx_EC")
            want_EC, chosen_EC = oracles_balance.expert_choice(shown_TE, capacity)
            expect_values(weights_EC, want_EC, "EC", given, what="weights_EC")
            expect_index(idx_EC, chosen_EC, "EC", given, what="idx_EC")
        public.TestExpertChoice().test_together(subject, rng)


@grades("global_load")
class HiddenGlobalLoad:
    @criterion(
        1,
        "splitting a micro-batch in two changes nothing; the shares sum to 1",
        hint="Whatever way the same assignments are cut into micro-batches: is your load the same?",
    )
    def test_split(self, subject, rng):
        counts_ME = torch.randint(0, 40, (whole(rng, 3, 6), whole(rng, 5, 9)), generator=rng)
        counts_ME[:, 1] = 0
        counts_ME[-1] = 0
        part_E = (counts_ME[0] * torch.rand(counts_ME.shape[1], generator=rng)).long()
        split_ME = torch.cat([part_E[None], (counts_ME[0] - part_E)[None], counts_ME[1:]])
        for shown_ME in (counts_ME, split_ME):
            given = {"counts_ME": shown_ME}
            got = returned(subject.run(call, "global_load", shown_ME), given)
            expect_statistic(
                got, oracles_balance.global_load(counts_ME), given, axes="E", what="load_E", rtol=1e-5
            )
        expect(abs(float(got.sum()) - 1) < 1e-5, "the shares do not sum to 1", given)
