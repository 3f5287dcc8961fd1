"""Hidden criteria of notebook 06, modern MoE: everything at once, at other sizes. They compare values alone."""

from __future__ import annotations

import torch

from graders import oracles, oracles_modern
from graders import test_06_modern_moe as public
from graders.common import expect_values, short, whole
from graders.oracles_modern import group_case
from graders.probes import call, vjp
from graders.probes.modern import upcycle_then_write
from graders.values import expect_value
from moe_course.grading.exercises.expect import expect, expect_gradients, expect_tuple, returned
from moe_course.grading.exercises.rubric import criterion, grades


@grades("shared_expert_moe")
class HiddenSharedExpertMoe:
    def whole_answer(self, subject, args, want_TD, rng):
        """The tokens, and what comes back to all five inputs."""
        dy_TD = short(torch.randn(want_TD.shape, generator=rng))
        want = oracles.gradients(oracles_modern.shared_expert_moe, args, dy_TD, wrt=range(5))
        y_TD, got = returned(subject.run(vjp, "shared_expert_moe", args, (dy_TD,), wrt=tuple(range(5))))
        expect_values(y_TD, want_TD, "TD", what="y_TD", atol=1e-5)
        expect_gradients(got, want, public.TestSharedExpertMoe.names.split(), rtol=1e-3, atol=1e-4)

    @criterion(
        2,
        "each token for itself: shuffled tokens give the same rows, shuffled, and their gradients",
        hint="Which other tokens does a token's output depend on?",
    )
    def test_tokens_apart(self, subject, rng):
        tokens = whole(rng, 11, 17)
        x_TD, routed_TD, *weights = args = public.TestSharedExpertMoe.inputs(tokens, 9, 13, rng)
        want_TD = oracles_modern.shared_expert_moe(*args)
        order_T = torch.randperm(tokens, generator=rng)
        for rows in (order_T, order_T[:1]):
            self.whole_answer(subject, (x_TD[rows], routed_TD[rows], *weights), want_TD[rows], rng)

    @criterion(
        2,
        "a hidden layer wider than the model",
        hint="Do all three matrices of the shared expert take part, forward and backward?",
    )
    def test_wide(self, subject, rng):
        args = public.TestSharedExpertMoe.inputs(5, 3, whole(rng, 18, 30), rng)
        self.whole_answer(subject, args, oracles_modern.shared_expert_moe(*args), rng)


@grades("split_experts")
class HiddenSplitExperts:
    @criterion(
        2,
        "split twice is split once by the product; hidden units stay as many",
        hint="What must be the same before and after, for all experts and for those of a token?",
    )
    def test_twice(self, subject, rng):
        a, b, experts = whole(rng, 2, 7), whole(rng, 2, 7), whole(rng, 9, 30)
        d_ff = a * b * whole(rng, 3, 40)
        for sizes in ((d_ff, experts, whole(rng, 2, 8)), (d_ff, experts, experts)):
            once = returned(subject.run(call, "split_experts", *sizes, a * b))
            twice = returned(subject.run(call, "split_experts", *sizes, a))
            twice = returned(subject.run(call, "split_experts", *map(_whole, expect_tuple(twice, 3)), b))
            want = (d_ff // (a * b), experts * a * b, sizes[2] * a * b)
            for got in (once, twice):
                for part, right in zip(expect_tuple(got, 3), want, strict=True):
                    expect_value(part, right, what="a size after splitting")


def _whole(size):
    """A size that came back as 7.0, as the 7 that it means."""
    return int(size) if type(size) is float and size.is_integer() else size


@grades("group_limited_top_k")
class HiddenGroupLimitedTopK:
    @staticmethod
    def cases(groups, size, top, k, rng):
        """Every rule of the exercise once: k is more than 2 · top, so that two per group are not K / M per group."""
        scores = tuple(public.by(score) for score in (max, sum, lambda s: sum(sorted(s)[-(k // top) :])))
        closed = (public.closed_with(0.0), public.closed_with(-1.0), public.unlimited)
        far = (public.multiplied_by_the_mask, public.unlimited)
        groups_too = (public.biased_within_unbiased_groups, public.without_bias)
        level = -float(whole(rng, 3, 9))
        return (
            group_case(2, groups, size, top, k, rng, bias=0.4, rivals=(*scores, public.unlimited)),
            group_case(2, groups, size, top, k, rng, bias=0.6, rivals=groups_too),
            group_case(2, groups, size, top, k, rng, bias=12.0, rivals=far),
            group_case(2, groups, size, top, k, rng, bias=0.5, level=level, rivals=closed),
            group_case(
                2, groups, size, top, k, rng, bias=0.5, level=-14.0, rivals=(public.closed_with(-10.0),)
            ),
            group_case(2, groups, size, top, k, rng, bias=1.0, low=-1.0, rivals=far),
            group_case(6, groups, 1, top, top, rng, bias=0.4),
        )

    def compare(self, subject, args):
        got = returned(subject.run(call, "group_limited_top_k", *args))
        want_TK = oracles_modern.group_limited_top_k(*args)
        expect_values(got, want_TK, "TK", what="idx_TK", any_order=True)

    @criterion(
        4,
        "experts change places within their group, groups among each other, tokens in the batch",
        hint="What changes in your answer when two groups are exchanged as a whole?",
    )
    def test_renamed(self, subject, rng):
        groups = whole(rng, 4, 6)
        for scores_TE, bias_E, _, top, k in self.cases(groups, whole(rng, 4, 5), 2, 6, rng):
            experts_GE = torch.arange(len(bias_E)).view(groups, -1)
            experts_GE = experts_GE[torch.randperm(groups, generator=rng)]
            experts_GE = torch.stack([row[torch.randperm(len(row), generator=rng)] for row in experts_GE])
            names_E, order_T = experts_GE.flatten(), torch.randperm(len(scores_TE), generator=rng)
            self.compare(subject, (scores_TE[order_T][:, names_E], bias_E[names_E], groups, top, k))

    @criterion(
        4,
        "eight groups, as in DeepSeek-V3, with small, large and negative biases",
        hint="Which two scores make a group's score, and which number hides the experts of the other groups?",
    )
    def test_large(self, subject, rng):
        for args in self.cases(8, 7, 3, 10, rng):
            self.compare(subject, args)


@grades("from_huggingface")
class HiddenFromHuggingface:
    @criterion(
        3,
        "an expert of theirs and the same expert of yours return the same",
        hint="If y = down · (silu(gate · x) ⊙ up · x) in their layout, what is it in yours?",
    )
    def test_same_outputs(self, subject, rng):
        for d_model, d_ff in ((6, 6), (8, 4), (5, whole(rng, 9, 15))):
            experts = whole(rng, 5, 8)
            args = [short(part) for part in public.TestFromHuggingface.inputs(experts, d_model, d_ff, rng)]
            got = expect_tuple(returned(subject.run(call, "from_huggingface", *args)), 3)
            fit = [(experts, d_model, d_ff)] * 2 + [(experts, d_ff, d_model)]
            for part, shape in zip(got, fit, strict=True):
                expect(isinstance(part, torch.Tensor), "an expert's weights should be tensors")
                expect(part.shape == shape, f"shape {tuple(part.shape)} in place of {shape}")
            x_TD = torch.randn(4, d_model, generator=rng)
            for e in range(experts):
                gate_TF, up_TF = (x_TD @ args[0][e].T).chunk(2, dim=1)
                want_TD = (gate_TF * torch.sigmoid(gate_TF) * up_TF) @ args[1][e].T
                mine_TD = oracles.swiglu(x_TD, *(part[e].to(x_TD) for part in got))
                expect_values(mine_TD, want_TD, "TD", what="an expert's output", rtol=1e-4, atol=1e-4)


@grades("upcycle")
class HiddenUpcycle:
    def written(self, subject, dense, experts, changed):
        """One expert of the new layer is set to 0: the others and the dense layer stay. Returns the experts."""
        after, kept = returned(subject.run(upcycle_then_write, dense, experts, changed))
        for part, weight in zip(expect_tuple(after, 3), dense, strict=True):
            want = torch.stack([weight * (e != changed) for e in range(experts)])
            expect_values(part, want, "EDF", what="the experts, afterwards", rtol=0, atol=0)
        for weight in kept:
            expect(bool(weight.any()), "the dense layer became 0 with an expert")

    @criterion(
        2,
        "gates that sum to 1 give the dense layer back, whoever is chosen; one expert is a copy too",
        hint="Is every expert, the last one too, the dense layer in full?",
    )
    def test_step_zero(self, subject, rng):
        experts = whole(rng, 7, 11)
        dense = [short(weight) for weight in public.dense_weights(6, experts * 2, rng)]
        got = expect_tuple(returned(subject.run(call, "upcycle", *dense, experts)), 3)
        for part, weight in zip(got, dense, strict=True):
            expect(isinstance(part, torch.Tensor), "an expert's weights should be tensors")
            shape = (experts, *weight.shape)
            expect(part.shape == shape, f"shape {tuple(part.shape)} in place of {shape}")
        x_TD = torch.randn(9, 6, generator=rng)
        probs_TE = torch.softmax(torch.randn(9, experts, generator=rng), dim=1)
        gates = oracles.top_k_gate(probs_TE, 3, True)
        want_TD = oracles.swiglu(x_TD, *dense)
        y_TD = oracles.moe(x_TD, *gates, *(part.to(x_TD) for part in got))
        expect_values(y_TD, want_TD, "TD", what="y_TD", rtol=1e-4, atol=1e-4)
        self.written(subject, dense, experts, 0)
        self.written(subject, dense, 1, 0)

    @criterion(
        2,
        "the last expert of many, changed alone, and the only one",
        hint="How many experts share the numbers that you write to?",
    )
    def test_last_expert(self, subject, rng):
        for experts in (whole(rng, 6, 9), 1, 2):
            self.written(subject, public.dense_weights(3, 5, rng), experts, experts - 1)
