"""Graders of notebook 06, modern MoE."""

from __future__ import annotations

import torch

from graders import oracles, oracles_modern
from graders.common import dtypes, expect_values, named, refusal, seed, short, strided, typed, whole
from graders.oracles_modern import group_case, two_highest
from graders.probes import call, vjp
from graders.probes.modern import upcycle_then_write
from graders.values import expect_dtype, expect_value
from moe_course.grading.exercises.expect import (
    expect,
    expect_gradients,
    expect_index,
    expect_number,
    expect_raises,
    expect_tuple,
    expect_untouched,
    returned,
)
from moe_course.grading.exercises.rubric import criterion, grades

FFN = "w_gate_DF w_up_DF w_down_FD"
EXPERTS = "w_gate_EDF w_up_EDF w_down_EFD"


def dense_weights(d_model, d_ff, rng, dtype=torch.float32):
    """w_gate (D, F), w_up (D, F), w_down (F, D), with outputs of order 1."""
    shapes = ((d_model, d_ff), (d_model, d_ff), (d_ff, d_model))
    return tuple((torch.randn(*shape, generator=rng) / shape[0] ** 0.5).to(dtype) for shape in shapes)


@grades("shared_expert_moe", hidden=4)
class TestSharedExpertMoe:
    names = f"x_TD routed_TD {FFN}"

    @staticmethod
    def inputs(tokens, d_model, d_ff, rng, dtype=torch.float32):
        x_TD, routed_TD = (torch.randn(tokens, d_model, generator=rng).to(dtype) for _ in range(2))
        return x_TD, routed_TD, *dense_weights(d_model, d_ff, rng, dtype)

    def compare(self, subject, *args, rtol=1e-4, atol=1e-5):
        given = named(self.names, args)
        out = subject.run(call, "shared_expert_moe", *args)
        want_TD = oracles_modern.shared_expert_moe(*args)
        expect_values(returned(out, given), want_TD, "TD", given, what="y_TD", rtol=rtol, atol=atol)
        return out

    @criterion(
        2,
        "where the routed experts return 0, the shared expert alone is left",
        hint="What does the shared expert work on: the tokens, or what the routed experts made of them?",
    )
    def test_shared_alone(self, subject, rng):
        for tokens, d_model, d_ff in ((1, 2, 3), (whole(rng, 3, 6), 4, 5)):
            x_TD, routed_TD, *weights = self.inputs(tokens, d_model, d_ff, rng)
            self.compare(subject, x_TD, torch.zeros_like(routed_TD), *weights)

    @criterion(
        2,
        "both outputs are added as they are",
        hint="Does a factor, a gate or a residual belong in the sum?",
    )
    def test_added(self, subject, rng):
        for tokens, d_model, d_ff in ((1, 2, 3), (4, 3, 5), (whole(rng, 5, 9), 7, 4)):
            self.compare(subject, *self.inputs(tokens, d_model, d_ff, rng))

    @criterion(
        2,
        "gradients reach the tokens, the routed output and all three matrices",
        hint="Follow y_TD back to each of the five tensors: where is the way cut?",
    )
    def test_gradients(self, subject, rng):
        args = self.inputs(whole(rng, 3, 5), 4, 6, rng)
        dy_TD = short(torch.randn(args[0].shape, generator=rng))
        given = {**named(self.names, args), "dy_TD": dy_TD}
        want = oracles.gradients(oracles_modern.shared_expert_moe, args, dy_TD, wrt=range(5))
        _, got = returned(subject.run(vjp, "shared_expert_moe", args, (dy_TD,), wrt=tuple(range(5))), given)
        expect_gradients(got, want, self.names.split(), given)

    @criterion(
        1,
        "bfloat16, float64 and strided inputs work; no input is edited",
        hint="Which dtype comes back, and do you add into routed_TD in place?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype, tolerance in ((torch.float64, 1e-9), (torch.bfloat16, 6e-2)):
            args = self.inputs(3, 5, 4, rng, dtype)
            out = self.compare(subject, *args, rtol=tolerance, atol=tolerance)
            expect_dtype(out.value, dtype, named(self.names, args), what="y_TD")
        args = strided(self.inputs(4, 3, 5, rng))
        expect_untouched(self.compare(subject, *args), args, self.names.split())

    def behaviour(self, subject):
        args = self.inputs(3, 2, 4, seed(601))
        out = subject.run(call, "shared_expert_moe", *args)
        half = subject.run(call, "shared_expert_moe", *self.inputs(2, 3, 4, seed(602), torch.bfloat16))
        double = subject.run(call, "shared_expert_moe", *self.inputs(2, 3, 4, seed(603), torch.float64))
        dy_TD = torch.randn(3, 2, generator=seed(604))
        return [
            out,
            out.inputs,
            subject.run(call, "shared_expert_moe", args[0], torch.zeros(3, 2), *args[2:]),
            *(one.error or str(getattr(one.value, "dtype", None)) for one in (half, double)),
            subject.run(vjp, "shared_expert_moe", args, (dy_TD,), wrt=tuple(range(5))),
        ]


SIZES = "d_ff num_experts top_k granularity"


@grades("split_experts", hidden=2)
class TestSplitExperts:
    @staticmethod
    def parts(subject, *sizes):
        """(d_ff, num_experts, top_k) of the learner, and what was given."""
        given = named(SIZES, sizes)
        got = returned(subject.run(call, "split_experts", *sizes), given)
        return expect_tuple(got, 3, given, "d_ff, num_experts, top_k"), given

    @staticmethod
    def cases(rng):
        finer = whole(rng, 2, 6)
        drawn = (finer * whole(rng, 5, 90), whole(rng, 6, 12), whole(rng, 2, 5), finer)
        return (6, 3, 1, 2), (70, 5, 2, 7), (14336, 8, 2, 4), drawn

    @criterion(
        2,
        "the pieces of one expert are together as wide as it was",
        hint="If one expert becomes four, how wide is each of the four?",
    )
    def test_width(self, subject, rng):
        for sizes in self.cases(rng):
            (d_ff, *_), given = self.parts(subject, *sizes)
            expect_value(d_ff, sizes[0] // sizes[3], given, what="d_ff")

    @criterion(
        3,
        "every expert, and every choice of a token, becomes `granularity` of them",
        hint="How many narrow experts does a token need for the compute that it had?",
    )
    def test_counts(self, subject, rng):
        for sizes in (*self.cases(rng), (6, 3, 3, 2), (5, 4, 2, 1)):
            (_, num_experts, top_k), given = self.parts(subject, *sizes)
            expect_value(num_experts, sizes[1] * sizes[3], given, what="num_experts")
            expect_value(top_k, sizes[2] * sizes[3], given, what="top_k")

    @criterion(1, "three Python ints, exact beyond 2⁵³", hint="What is 7 / 1 in Python: 7, or 7.0?")
    def test_exact_int(self, subject, rng):
        finer = whole(rng, 3, 9)
        sizes = ((2**55 + 2 * whole(rng, 1, 99) + 1) * finer, 7, 3, finer)
        got, given = self.parts(subject, *sizes)
        for part, want, name in zip(
            got, (sizes[0] // finer, 7 * finer, 3 * finer), SIZES.split(), strict=False
        ):
            expect_number(part, want, given, what=name)

    @criterion(
        1,
        "a width that does not divide raises ValueError",
        hint="Where do the hidden units go that 10 // 4 leaves over?",
    )
    def test_divides(self, subject, rng):
        (d_ff, *_), given = self.parts(subject, 12, 5, 2, 12)  # width 1 is still a width
        expect_value(d_ff, 1, given, what="d_ff")
        finer = whole(rng, 3, 9)
        for sizes in ((10, 5, 2, 4), (3, 5, 2, 6), (finer * 7 + 1, 6, 2, finer)):
            expect_raises(subject.run(call, "split_experts", *sizes), "ValueError", named(SIZES, sizes))

    @criterion(
        1,
        "sizes that are not positive, and more choices than experts, raise ValueError",
        hint="Which is the smallest value that makes sense for each of the four, and which the largest top_k?",
    )
    def test_bad_sizes(self, subject, rng):
        (_, num_experts, top_k), given = self.parts(subject, 9, 4, 4, 3)  # all of them is still fine
        expect_value(num_experts, 12, given, what="num_experts")
        expect_value(top_k, 12, given, what="top_k")
        good = {"d_ff": 12, "num_experts": 5, "top_k": 2, "granularity": 3}
        for wrong in (
            {"top_k": 6},
            {"d_ff": 0},
            {"num_experts": 0},
            {"top_k": 0},
            {"granularity": 0},
            {"d_ff": -12},
            {"granularity": -3},
            {"num_experts": -5, "top_k": -7},
        ):
            args = good | wrong
            expect_raises(subject.run(call, "split_experts", **args), "ValueError", args)

    def behaviour(self, subject):
        right = ((12, 5, 2, 3), (8, 4, 4, 1), ((2**55 + 1) * 5, 7, 3, 5))
        wrong = ((10, 5, 2, 4), (3, 5, 2, 6), (12, 5, 6, 3), (0, 5, 2, 3), (12, 0, 2, 3), (12, 5, 0, 3))
        others = ((12, 5, 2, 0), (-12, 5, 2, 3), (12, 5, 2, -3), (12, -5, -7, 3))
        outs = [subject.run(call, "split_experts", *sizes) for sizes in (*right, *wrong, *others)]
        return [typed(out) for out in outs[:3]] + [(refusal(out) if out.error else out) for out in outs[3:]]


GROUPS = "scores_TE bias_E num_groups top_groups k"


def by(group_score):
    """The rule of the exercise with another score of a group."""
    return lambda *args: oracles_modern.group_limited_top_k(*args, group_score=group_score)


def unlimited(scores_TE, bias_E, num_groups, top_groups, k):
    """The k best experts, wherever they are."""
    return oracles_modern.group_limited_top_k(scores_TE, bias_E, num_groups, num_groups, k)


def biased_within_unbiased_groups(scores_TE, bias_E, num_groups, top_groups, k):
    """Groups chosen without the bias, experts with it."""
    size = len(bias_E) // num_groups
    rows = []
    for scores in scores_TE.double():
        value = [two_highest(part.tolist()) for part in scores.split(size)]
        best = sorted(range(num_groups), key=lambda g: -value[g])[:top_groups]
        biased = (scores + bias_E.double()).tolist()
        allowed = [e for e in range(len(bias_E)) if e // size in best]
        rows.append(sorted(sorted(allowed, key=lambda e: -biased[e])[:k]))
    return torch.tensor(rows)


def equal_share(scores_TE, bias_E, num_groups, top_groups, k):
    """As many experts from each of the best groups."""
    size, rows = len(bias_E) // num_groups, []
    for scores in (scores_TE + bias_E).double():
        groups = sorted(scores.split(size), key=lambda part: -two_highest(part.tolist()))[:top_groups]
        floor = [part.sort(descending=True).values[: -(-k // top_groups)] for part in groups]
        rows.append([e for e, score in enumerate(scores) if any(score in part for part in floor)][:k])
    return torch.tensor(rows)


def closed_with(fill):
    """The rule of the exercise, but closed experts have the biased score `fill`."""

    def rule(scores_TE, bias_E, num_groups, top_groups, k):
        return _closed(scores_TE, bias_E, num_groups, top_groups, k, lambda score, bias: fill)

    return rule


def multiplied_by_the_mask(scores_TE, bias_E, num_groups, top_groups, k):
    """Scores times 1 or 0, and the bias on top: the bias of a closed expert is left."""
    return _closed(scores_TE, bias_E, num_groups, top_groups, k, lambda score, bias: bias)


def _closed(scores_TE, bias_E, num_groups, top_groups, k, closed):
    """The k highest, where an expert outside the best groups has the value closed(score, bias)."""
    size, bias, rows = len(bias_E) // num_groups, bias_E.tolist(), []
    for scores in scores_TE.tolist():
        biased = [score + one for score, one in zip(scores, bias, strict=True)]
        worth = [two_highest(biased[g * size : (g + 1) * size]) for g in range(num_groups)]
        best = sorted(range(num_groups), key=lambda g: -worth[g])[:top_groups]
        seen = [biased[e] if e // size in best else closed(scores[e], bias[e]) for e in range(len(bias))]
        rows.append(sorted(sorted(range(len(bias)), key=lambda e: -seen[e])[:k]))
    return torch.tensor(rows)


def without_bias(scores_TE, bias_E, num_groups, top_groups, k):
    return oracles_modern.group_limited_top_k(scores_TE, 0 * bias_E, num_groups, top_groups, k)


@grades("group_limited_top_k", hidden=8)
class TestGroupLimitedTopK:
    def compare(self, subject, args):
        given = named(GROUPS, args)
        out = subject.run(call, "group_limited_top_k", *args)
        want_TK = oracles_modern.group_limited_top_k(*args)
        expect_values(returned(out, given), want_TK, "TK", given, what="idx_TK", any_order=True)
        return out

    @criterion(
        2,
        "with every group allowed, the k experts of the highest biased scores",
        hint="Which numbers decide: the scores, the bias, or their sum?",
    )
    def test_biased_choice(self, subject, rng):
        for tokens, groups, size, k in ((1, 2, 2, 2), (whole(rng, 3, 5), 3, 4, 5), (4, 5, 2, 3)):
            rivals = (without_bias,) if tokens > 1 else ()
            args = group_case(tokens, groups, size, groups, k, rng, bias=0.6, rivals=rivals)
            self.compare(subject, args)

    @criterion(
        2,
        "no expert from outside the best groups of neighbouring experts",
        hint="Which experts belong to group 1: those with e // size == 1, or those with e % num_groups == 1?",
    )
    def test_groups(self, subject, rng):
        cases = ((1, 2, 3, 1, 2), (3, 4, 3, 2, 4), (whole(rng, 3, 5), 3, 5, 2, 3), (3, 5, 2, 3, 6))
        for tokens, groups, size, top, k in cases:
            rivals = (unlimited,) if k < top * size else ()
            rivals += (equal_share,) if 1 < top < k < top * size else ()
            # Groups by the sum of two are also the groups by the highest here: that is the next criterion's matter.
            args = _agreed(tokens, groups, size, top, k, rng, rivals)
            self.compare(subject, args)

    @criterion(
        2,
        "a group's score is the sum of its two highest",
        hint="One star among weak players, or two good ones: which group should win?",
    )
    def test_two_highest(self, subject, rng):
        others = (max, sum, lambda s: sum(sorted(s)[-3:]), lambda s: sorted(s)[-2], lambda s: s[0] + s[1])
        rivals = tuple(by(score) for score in others)
        for tokens, groups, size, top, k in ((1, 3, 4, 1, 3), (whole(rng, 2, 4), 4, 5, 2, 6)):
            self.compare(subject, group_case(tokens, groups, size, top, k, rng, bias=0.0, rivals=rivals))

    @criterion(
        2,
        "groups are compared by biased scores too",
        hint="A group that is overloaded has a low bias. Do you see that when you compare groups?",
    )
    def test_biased_groups(self, subject, rng):
        for tokens, groups, size, top, k in ((1, 3, 3, 1, 2), (whole(rng, 2, 4), 4, 4, 2, 3)):
            rivals = (biased_within_unbiased_groups, unlimited)
            self.compare(subject, group_case(tokens, groups, size, top, k, rng, bias=0.6, rivals=rivals))

    @criterion(
        2,
        "closed experts stay closed when the open ones score below zero",
        hint="Which score can never win, also when the bias makes all others negative?",
    )
    def test_negative_scores(self, subject, rng):
        for tokens, level in ((1, -1.5), (whole(rng, 2, 4), -3.0), (2, -13.0)):
            args = group_case(tokens, 4, 3, 2, 4, rng, level=level, rivals=(unlimited, closed_with(0.0)))
            self.compare(subject, args)

    @criterion(
        2,
        "closed experts stay closed whatever their bias, and a bias decides however large it is",
        hint="Scores times a mask of ones and zeros, plus the bias: what is left of a closed expert?",
    )
    def test_far_biases(self, subject, rng):
        rivals = (multiplied_by_the_mask, unlimited)
        for tokens, bias, low in (
            (1, 12.0, 0.0),
            (whole(rng, 2, 4), 12.0, 0.0),
            (2, 1.0, 0.0),
            (2, 2.0, -1.0),
        ):
            args = group_case(tokens, 4, 3, 2, 4, rng, bias=bias, low=low, rivals=rivals)
            self.compare(subject, args)

    @criterion(
        2,
        "a group of one expert has that expert's score",
        hint="How many scores can you add up in a group of one?",
    )
    def test_group_of_one(self, subject, rng):
        for experts, top, k in ((5, 3, 2), (whole(rng, 6, 9), 4, 4)):
            self.compare(subject, group_case(3, experts, 1, top, k, rng))
        self.compare(subject, group_case(2, 1, 1, 1, 1, rng))

    @criterion(
        1,
        "integers come back; bfloat16, float64 and strided scores work; no input is edited",
        hint="Can your result index a table of experts, and do you mask, or add the bias, in place?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype in (torch.float64, torch.bfloat16, torch.float32):
            args = strided(group_case(3, 4, 3, 2, 4, rng, dtype=dtype))
            out, want_TK = self.compare(subject, args), oracles_modern.group_limited_top_k(*args)
            expect_index(out.value, want_TK, "TK", named(GROUPS, args), what="idx_TK", any_order=True)
            expect_untouched(out, args, GROUPS.split())

    def behaviour(self, subject):
        cases = [
            group_case(4, 3, 4, 3, 5, seed(631), bias=0.6, rivals=(without_bias,)),
            group_case(4, 4, 3, 2, 4, seed(632), bias=0.0, rivals=(unlimited,)),
            group_case(5, 4, 5, 2, 6, seed(633), bias=0.0, rivals=(by(max), by(sum))),
            group_case(
                5, 3, 4, 1, 3, seed(634), bias=0.0, rivals=(by(max), by(lambda s: sum(sorted(s)[-3:])))
            ),
            group_case(4, 4, 4, 2, 3, seed(635), bias=0.6, rivals=(biased_within_unbiased_groups,)),
            group_case(4, 4, 3, 2, 4, seed(636), level=-1.5, rivals=(unlimited,)),
            group_case(3, 5, 1, 3, 2, seed(637)),
            group_case(4, 4, 3, 2, 4, seed(638), bias=12.0, rivals=(multiplied_by_the_mask,)),
            group_case(4, 4, 3, 2, 4, seed(639), level=-14.0, rivals=(closed_with(-10.0),)),
        ]
        cases.append(strided(cases[1]))
        outs = [subject.run(call, "group_limited_top_k", *args) for args in cases]
        return [*(_sorted_rows(out) for out in outs), [outs[5].inputs, outs[0].inputs]]


def _agreed(tokens, groups, size, top, k, rng, rivals):
    """A case without bias on which several ways of scoring a group agree, so that only the limit is asked."""
    scorings = [by(two_highest), by(max), by(sum)]
    rows = []
    while len(rows) < tokens:
        args = group_case(1, groups, size, top, k, rng, bias=0.0, rivals=rivals)
        answers = [scoring(*args) for scoring in scorings]
        if all(torch.equal(answer, answers[0]) for answer in answers):
            rows.append(args[0])
    return torch.cat(rows), torch.zeros(groups * size), groups, top, k


def _sorted_rows(out):
    """A reply without the order of its slots, which is free."""
    value = out.value
    if out.error is None and isinstance(value, torch.Tensor) and value.dim() == 2:
        return [value.is_floating_point(), value.double().sort(-1).values]
    return out


@grades("from_huggingface", hidden=3)
class TestFromHuggingface:
    names = "gate_up_proj_E2FD down_proj_EDF"

    @staticmethod
    def inputs(experts, d_model, d_ff, rng, dtype=torch.float32):
        gate_up_proj_E2FD = torch.randn(experts, 2 * d_ff, d_model, generator=rng).to(dtype)
        return gate_up_proj_E2FD, torch.randn(experts, d_model, d_ff, generator=rng).to(dtype)

    def compare(self, subject, args, only=(0, 1, 2)):
        given = named(self.names, args)
        out = subject.run(call, "from_huggingface", *args)
        got = expect_tuple(returned(out, given), 3, given, EXPERTS.replace(" ", ", "))
        want = oracles_modern.from_huggingface(*args)
        for place in only:
            name = EXPERTS.split()[place]
            axes = name.rpartition("_")[2]
            expect_values(got[place], want[place], axes, given, what=name, rtol=0, atol=0)
        return out

    @criterion(
        1,
        "three tensors, (E, D, F) twice and (E, F, D)",
        hint="Which axis comes first in the course's matrices, the input's or the output's?",
    )
    def test_shapes(self, subject, rng):
        for sizes in ((1, 2, 3), (4, 5, whole(rng, 2, 4))):
            args = self.inputs(*sizes, rng)
            given = named(self.names, args)
            got = returned(subject.run(call, "from_huggingface", *args), given)
            parts = expect_tuple(got, 3, given, EXPERTS.replace(" ", ", "))
            for part, want, name in zip(
                parts, oracles_modern.from_huggingface(*args), EXPERTS.split(), strict=True
            ):
                expect(isinstance(part, torch.Tensor), f"{name} should be a tensor", given)
                message = f"{name} should have shape {tuple(want.shape)}, not {tuple(part.shape)}"
                expect(part.shape == want.shape, message, given)

    @criterion(
        2,
        "the gate's rows come first in gate_up_proj, then the up projection's",
        hint="Which of the two halves passes through silu, and are the rows in two blocks or in turns?",
    )
    def test_gate_and_up(self, subject, rng):
        for sizes in ((1, 2, 3), (4, 3, 5), (3, 6, 3), (whole(rng, 2, 4), 4, 4)):
            self.compare(subject, self.inputs(*sizes, rng), only=(0, 1))

    @criterion(
        2,
        "w_down too is transposed, expert by expert",
        hint="Does your code exchange two axes, or read the same numbers in rows of another length?",
    )
    def test_down(self, subject, rng):
        for sizes in ((1, 2, 3), (3, 4, 4), (5, 6, whole(rng, 2, 7))):
            self.compare(subject, self.inputs(*sizes, rng), only=(2,))

    @criterion(
        1,
        "bfloat16, float64 and strided weights work, no dtype changes, no input is edited",
        hint="In which dtype is a checkpoint stored, and in which does it come back from you?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype in (torch.float64, torch.bfloat16, torch.float32):
            args = strided(self.inputs(3, 4, 5, rng, dtype))
            out = self.compare(subject, args)
            for part, name in zip(out.value, EXPERTS.split(), strict=True):
                expect_dtype(part, dtype, what=name)
            expect_untouched(out, args, self.names.split())

    def behaviour(self, subject):
        args = self.inputs(2, 3, 4, seed(641))
        half = subject.run(call, "from_huggingface", *self.inputs(2, 2, 3, seed(642), torch.bfloat16))
        out = subject.run(call, "from_huggingface", *args)
        square = subject.run(call, "from_huggingface", *self.inputs(2, 4, 4, seed(643)))
        tall = subject.run(call, "from_huggingface", *self.inputs(2, 4, 2, seed(644)))
        return [out, square, tall, out.inputs, half.error or half]


@grades("upcycle", hidden=4)
class TestUpcycle:
    names = f"{FFN} num_experts"

    def expect_copies(self, got, dense, num_experts, given):
        """`got` holds the dense layer's matrices num_experts times."""
        for part, weight, name in zip(got, dense, EXPERTS.split(), strict=True):
            want = torch.stack([weight] * num_experts)
            expect_values(part, want, name.rpartition("_")[2], given, what=name, rtol=0, atol=0)

    def compare(self, subject, dense, num_experts):
        given = named(self.names, (*dense, num_experts))
        out = subject.run(call, "upcycle", *dense, num_experts)
        got = expect_tuple(returned(out, given), 3, given, EXPERTS.replace(" ", ", "))
        self.expect_copies(got, dense, num_experts, given)
        return out

    @criterion(
        2,
        "every expert has the dense layer's weights, all of them, unchanged",
        hint="If gates sum to 1, what must each expert return for the sum to be the dense layer's output?",
    )
    def test_copies(self, subject, rng):
        for d_model, d_ff, experts in ((2, 3, 2), (5, 4, 3), (3, 12, whole(rng, 4, 6)), (4, 4, 1)):
            self.compare(subject, dense_weights(d_model, d_ff, rng), experts)

    @criterion(
        2,
        "experts can be changed one by one",
        hint="How many numbers does `expand` put into memory, and whose are they?",
    )
    def test_own_storage(self, subject, rng):
        for d_model, d_ff, experts in ((2, 3, 2), (4, 3, whole(rng, 3, 5))):
            dense, changed = dense_weights(d_model, d_ff, rng), whole(rng, 0, experts - 1)
            number = round(1 + float(torch.rand((), generator=rng)), 2)
            given = named(self.names, (*dense, experts)) | {
                f"the expert whose weights become {number}": changed
            }
            out = subject.run(upcycle_then_write, dense, experts, changed, number)
            after, _ = expect_tuple(returned(out, given), 2, given)
            after = expect_tuple(after, 3, given, EXPERTS.replace(" ", ", "))
            for part, weight, name in zip(after, dense, EXPERTS.split(), strict=True):
                want = torch.stack([weight] * experts)
                want[changed] = number
                expect_values(part, want, name.rpartition("_")[2], given, what=f"{name}, afterwards")

    @criterion(
        2,
        "training an expert leaves the dense layer as it was, also where there is only one expert",
        hint="Does your code always copy, or only where it has to?",
    )
    def test_dense_kept(self, subject, rng):
        for d_model, d_ff, experts in ((3, 4, 1), (2, 5, whole(rng, 2, 4))):
            dense = dense_weights(d_model, d_ff, rng)
            given = named(self.names, (*dense, experts)) | {"the expert whose weights become 0": 0}
            out = subject.run(upcycle_then_write, dense, experts, 0)
            after, kept = expect_tuple(returned(out, given), 2, given)
            want = [torch.stack([weight * (e != 0) for e in range(experts)]) for weight in dense]
            for part, right, name in zip(expect_tuple(after, 3, given), want, EXPERTS.split(), strict=True):
                expect_values(part, right, name.rpartition("_")[2], given, what=f"{name}, afterwards")
            for weight, name in zip(kept, FFN.split(), strict=True):
                expect(
                    bool(weight.any()),
                    f"expert 0 was set to 0, and the dense layer's {name} became 0 too",
                    given,
                )

    @criterion(
        1,
        "bfloat16, float64 and strided weights work, no dtype changes",
        hint="Do you fix a dtype anywhere, or write into the dense layer?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype in (torch.float64, torch.bfloat16, torch.float32):
            dense = strided(dense_weights(4, 5, rng, dtype))
            out = self.compare(subject, dense, 3)
            for part, name in zip(out.value, EXPERTS.split(), strict=True):
                expect_dtype(part, dtype, what=name)
            expect_untouched(out, (*dense, 3), self.names.split())

    def behaviour(self, subject):
        dense = dense_weights(2, 3, seed(651))
        half = subject.run(call, "upcycle", *dense_weights(2, 3, seed(652), torch.bfloat16), 2)
        return [
            subject.run(call, "upcycle", *dense, 2),
            subject.run(call, "upcycle", *dense_weights(3, 4, seed(653)), 2),
            subject.run(call, "upcycle", *dense, 2).inputs,
            subject.run(upcycle_then_write, dense, 2, 1),
            subject.run(upcycle_then_write, dense, 1, 0),
            half.error or half,
            dtypes(subject.run(call, "upcycle", *dense_weights(2, 3, seed(654), torch.float64), 2)),
        ]
