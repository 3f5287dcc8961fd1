"""Hidden criteria of notebook 06, modern MoE."""

from __future__ import annotations

import torch

from graders import oracles, oracles_modern
from graders import test_06_modern_moe as public
from graders.common import whole
from graders.oracles_modern import group_case
from graders.probes import call, vjp
from graders.probes.modern import upcycle_then_write
from moe_course.grading.exercises.expect import (
    expect,
    expect_gradients,
    expect_index,
    expect_number,
    expect_raises,
    expect_tensor,
    expect_tuple,
    returned,
)
from moe_course.grading.exercises.rubric import criterion, grades


@grades("shared_expert_moe")
class HiddenSharedExpertMoe:
    @criterion(
        1,
        "each token for itself: shuffled tokens give the same rows, shuffled",
        hint="Which other tokens does a token's output depend on?",
    )
    def test_tokens_apart(self, subject, rng):
        tokens = whole(rng, 11, 17)
        x_TD, routed_TD, *weights = args = public.TestSharedExpertMoe.inputs(tokens, 9, 13, rng)
        want_TD = oracles_modern.shared_expert_moe(*args)
        order_T = torch.randperm(tokens, generator=rng)
        for rows in (order_T, order_T[:1]):
            shuffled = (x_TD[rows], routed_TD[rows], *weights)
            got = returned(subject.run(call, "shared_expert_moe", *shuffled))
            expect_tensor(got, want_TD[rows], "TD", what="y_TD", atol=1e-5)

    @criterion(
        1,
        "gradients in float64, with a hidden layer wider than the model",
        hint="Do all three matrices of the shared expert take part in the backward pass?",
    )
    def test_wide(self, subject, rng):
        args = public.TestSharedExpertMoe.inputs(5, 3, whole(rng, 18, 30), rng, torch.float64)
        dy_TD = torch.randn(5, 3, generator=rng, dtype=torch.float64)
        want = oracles.gradients(oracles_modern.shared_expert_moe, args, dy_TD, wrt=range(5))
        _, got = returned(subject.run(vjp, "shared_expert_moe", args, (dy_TD,), wrt=tuple(range(5))))
        expect_gradients(got, want, public.TestSharedExpertMoe.names.split(), rtol=1e-9, atol=1e-9)


@grades("split_experts")
class HiddenSplitExperts:
    @criterion(
        1,
        "split twice is split once by the product; hidden units stay as many",
        hint="What must be the same before and after, for all experts and for those of a token?",
    )
    def test_twice(self, subject, rng):
        a, b = whole(rng, 2, 7), whole(rng, 2, 7)
        d_ff, experts = a * b * whole(rng, 3, 40), whole(rng, 9, 30)
        sizes = (d_ff, experts, whole(rng, 2, 8))
        once = returned(subject.run(call, "split_experts", *sizes, a * b))
        twice = returned(subject.run(call, "split_experts", *sizes, a))
        twice = returned(subject.run(call, "split_experts", *expect_tuple(twice, 3), b))
        want = (d_ff // (a * b), experts * a * b, sizes[2] * a * b)
        for got in (once, twice):
            for part, number in zip(expect_tuple(got, 3), want, strict=True):
                expect_number(part, number, what="a size after splitting")
        odd = (d_ff * 11 + 1, experts, sizes[2], 11)
        expect_raises(subject.run(call, "split_experts", *odd), "ValueError", {"sizes": odd})


@grades("group_limited_top_k")
class HiddenGroupLimitedTopK:
    @criterion(
        1,
        "experts change places within their group, groups among each other, tokens in the batch",
        hint="What changes in your answer when two groups are exchanged as a whole?",
    )
    def test_renamed(self, subject, rng):
        groups, size = whole(rng, 4, 6), whole(rng, 4, 6)
        rivals = (public.by(max), public.unlimited, public.equal_share)
        scores_TE, bias_E, _, top, k = group_case(6, groups, size, 3, 7, rng, bias=0.4, rivals=rivals)
        experts_GE = torch.arange(groups * size).view(groups, size)
        experts_GE = experts_GE[torch.randperm(groups, generator=rng)]
        experts_GE = torch.stack([row[torch.randperm(size, generator=rng)] for row in experts_GE])
        names_E, order_T = experts_GE.flatten(), torch.randperm(6, generator=rng)
        args = (scores_TE[order_T][:, names_E], bias_E[names_E], groups, top, k)
        got = returned(subject.run(call, "group_limited_top_k", *args))
        want_TK = oracles_modern.group_limited_top_k(*args)
        expect_index(got, want_TK, "TK", what="idx_TK", any_order=True)

    @criterion(
        1,
        "a layer as wide as DeepSeek-V3's has groups, with a bias that pushes scores far below zero",
        hint="Which scores, of whom, decide about a group, and what hides the rest?",
    )
    def test_large(self, subject, rng):
        level = -float(whole(rng, 2, 9))
        rivals = (public.by(max), public.unlimited)
        args = group_case(3, 8, 7, 4, 8, rng, bias=0.5, level=level, rivals=rivals)
        got = returned(subject.run(call, "group_limited_top_k", *args))
        want_TK = oracles_modern.group_limited_top_k(*args)
        expect_index(got, want_TK, "TK", what="idx_TK", any_order=True)


@grades("from_huggingface")
class HiddenFromHuggingface:
    @criterion(
        2,
        "an expert of theirs and the same expert of yours return the same",
        hint="If y = down · (silu(gate · x) ⊙ up · x) in their layout, what is it in yours?",
    )
    def test_same_outputs(self, subject, rng):
        for d_model, d_ff in ((6, 6), (8, 4), (5, whole(rng, 9, 15))):
            experts = whole(rng, 5, 8)
            args = public.TestFromHuggingface.inputs(experts, d_model, d_ff, rng, torch.float64)
            got = expect_tuple(returned(subject.run(call, "from_huggingface", *args)), 3)
            fit = [(experts, d_model, d_ff)] * 2 + [(experts, d_ff, d_model)]
            for part, shape in zip(got, fit, strict=True):
                expect(isinstance(part, torch.Tensor), "an expert's weights should be tensors")
                expect(part.shape == shape, f"shape {tuple(part.shape)} in place of {shape}")
                expect(part.dtype == torch.float64, f"{part.dtype} in place of float64")
            x_TD = torch.randn(4, d_model, generator=rng, dtype=torch.float64)
            for e in range(experts):
                gate_TF, up_TF = (x_TD @ args[0][e].T).chunk(2, dim=1)
                want_TD = (gate_TF * torch.sigmoid(gate_TF) * up_TF) @ args[1][e].T
                mine_TD = oracles.swiglu(x_TD, got[0][e], got[1][e], got[2][e])
                expect_tensor(mine_TD, want_TD, "TD", what="an expert's output", rtol=1e-9, atol=1e-9)


@grades("upcycle")
class HiddenUpcycle:
    @criterion(
        1,
        "gates that sum to 1 give the dense layer back, whoever is chosen",
        hint="Is every expert, the last one too, the dense layer in full?",
    )
    def test_step_zero(self, subject, rng):
        experts = whole(rng, 7, 11)
        dense = public.dense_weights(6, experts * 2, rng, torch.float64)
        got = expect_tuple(returned(subject.run(call, "upcycle", *dense, experts)), 3)
        for part, weight in zip(got, dense, strict=True):
            expect(isinstance(part, torch.Tensor), "an expert's weights should be tensors")
            shape = (experts, *weight.shape)
            expect(part.shape == shape, f"shape {tuple(part.shape)} in place of {shape}")
        x_TD = torch.randn(9, 6, generator=rng, dtype=torch.float64)
        probs_TE = torch.softmax(torch.randn(9, experts, generator=rng, dtype=torch.float64), dim=1)
        gates = oracles.top_k_gate(probs_TE, 3, True)
        want_TD = oracles.swiglu(x_TD, *dense)
        expect_tensor(oracles.moe(x_TD, *gates, *got), want_TD, "TD", what="y_TD", rtol=1e-9, atol=1e-9)

    @criterion(
        1,
        "the last expert of many, changed alone, in bfloat16 as well",
        hint="How many experts share the numbers that you write to?",
    )
    def test_last_expert(self, subject, rng):
        for dtype in (torch.bfloat16, torch.float32):
            experts = whole(rng, 6, 9)
            dense = public.dense_weights(3, 5, rng, dtype)
            after, kept = returned(subject.run(upcycle_then_write, dense, experts, experts - 1))
            for part, weight in zip(expect_tuple(after, 3), dense, strict=True):
                want = torch.stack([weight * (e != experts - 1) for e in range(experts)])
                expect_tensor(part, want, "EDF", what="the experts, afterwards", rtol=0, atol=0)
            for weight, before in zip(kept, dense, strict=True):
                expect(torch.equal(weight, before), "the dense layer changed with an expert")
