"""Graders of notebook 05, capacity."""

from __future__ import annotations

from functools import partial

import torch

from graders import oracles
from graders import oracles_capacity as capacity
from graders.common import dtypes, expect_values, finite, named, refusal, seed, short, strided, whole
from graders.probes import call, vjp
from graders.probes.capacity import ask_layer
from graders.stand_ins import run
from graders.values import expect_answer, expect_dtype, expect_type, expect_value
from moe_course.grading.exercises.expect import (
    expect_gradients,
    expect_index,
    expect_number,
    expect_raises,
    expect_tuple,
    expect_untouched,
    returned,
)
from moe_course.grading.exercises.rubric import criterion, grades


def capacities(idx_TK, rng):
    """A capacity at which some assignment is dropped, and one at which none is and every expert has room left."""
    fullest = int(idx_TK.flatten().bincount().max())
    return whole(rng, 1, fullest - 1), fullest + whole(rng, 1, 3)


def uneven_choices(tokens, experts, k, rng, among=None):
    """Choices such that at least one expert is chosen twice or more, so that a capacity can drop one."""
    while True:
        idx_TK = capacity.choices(tokens, experts, k, rng, among)
        if int(idx_TK.flatten().bincount().max()) >= 2:
            return idx_TK


@grades("expert_capacity", hidden=4)
class TestExpertCapacity:
    names = "num_tokens num_experts top_k factor"

    def compare(self, subject, *sizes):
        given = named(self.names, sizes)
        got = returned(subject.run(call, "expert_capacity", *sizes), given)
        expect_value(got, capacity.expert_capacity(*sizes), given, what="the capacity")
        return got, given

    @criterion(
        1,
        "one choice a token, factor 1: each expert has room for its fair share",
        hint="With 12 tokens and 4 experts, how many does each get if all get the same?",
    )
    def test_fair_share(self, subject, rng):
        for share, experts in ((3, 4), (whole(rng, 4, 20), 2 ** whole(rng, 1, 5)), (7, 1)):
            self.compare(subject, share * experts, experts, 1, 1.0)

    @criterion(
        2,
        "K choices a token: capacity counts assignments, not tokens",
        hint="Twelve tokens with two choices each: how many places are asked for?",
    )
    def test_assignments(self, subject, rng):
        for share, experts, k in ((3, 4, 2), (whole(rng, 4, 20), 8, 3), (5, 2, 2)):
            self.compare(subject, share * experts, experts, k, 1.0)

    @criterion(
        1,
        "the factor stretches or shrinks it",
        hint="What do you multiply by the factor?",
    )
    def test_factor(self, subject, rng):
        for experts, k, factor in ((4, 2, 1.5), (8, 3, 0.5), (16, 1, 2.0), (4, 3, 1.25)):
            self.compare(subject, 4 * whole(rng, 2, 9) * experts, experts, k, factor)

    @criterion(
        4,
        "rounded up, once and at the end",
        hint="10 tokens, 4 experts, factor 1.5: what is the exact number, and when do you round it?",
    )
    def test_rounds_up(self, subject, rng):
        self.compare(subject, 10, 4, 2, 1.0)  # a whole number stays what it is
        drawn = [(whole(rng, 5, 90), whole(rng, 3, 13), whole(rng, 1, 3)) for _ in range(20)]
        cases = [(*sizes, factor) for sizes in drawn for factor in (0.75, 1.0, 1.5)]
        for sizes in ((10, 4, 1, 1.5), (9, 7, 2, 1.25), (5, 8, 1, 0.5), *cases):
            if capacity.clear_of_rounding(*sizes):
                self.compare(subject, *sizes)

    @criterion(
        1,
        "the capacity is a Python int",
        hint="Can a buffer have 3.0 slots, and which type does `torch.zeros` want for a size?",
    )
    def test_python_int(self, subject, rng):
        for sizes in ((12, 4, 1, 1.0), (whole(rng, 5, 90), 7, 2, 1.5)):
            got, given = self.compare(subject, *sizes)
            expect_type(got, int, given, what="the capacity")

    @criterion(
        1,
        "sizes and factors that are not positive, or K above E, raise ValueError",
        hint="Can a token choose five of four experts, and what is a factor of 0?",
    )
    def test_bad_arguments(self, subject, rng):
        sizes = (whole(rng, 5, 90), 4, 2, 1.25)
        for position, values in enumerate(((0, -3), (0, -4), (0, -1, 5), (0.0, -0.5))):
            for value in values:
                bad = (*sizes[:position], value, *sizes[position + 1 :])
                expect_raises(
                    subject.run(call, "expert_capacity", *bad), "ValueError", named(self.names, bad)
                )

    def behaviour(self, subject):
        good = ((12, 4, 1, 1.0), (12, 4, 1, 1.5), (10, 4, 2, 1.0), (10, 4, 1, 1.5), (9, 7, 2, 1.25))
        bad = ((0, 4, 2, 1.0), (8, 0, 2, 1.0), (8, 4, 0, 1.0), (8, 4, 5, 1.0), (8, 4, 2, 0.0))
        negative = ((-8, 4, 2, 1.0), (8, -4, 2, 1.0), (8, 4, -1, 1.0), (8, 4, 2, -1.0), (-8, 4, 2, -1.0))
        outs = [
            subject.run(call, "expert_capacity", *sizes) for sizes in (*good, (16, 4, 2, 0.5), (5, 8, 1, 0.5))
        ]
        return [
            *outs,
            type(outs[0].value).__name__,
            *(refusal(subject.run(call, "expert_capacity", *sizes)) for sizes in (*bad, *negative)),
        ]


@grades("positions_in_expert", hidden=4)
class TestPositionsInExpert:
    def compare(self, subject, idx_TK, experts):
        given = {"idx_TK": idx_TK, "num_experts": experts}
        out = subject.run(call, "positions_in_expert", idx_TK, experts)
        expect_values(returned(out, given), capacity.choice_major(idx_TK), "TK", given, what="pos_TK")
        return out

    @criterion(
        2,
        "one choice a token: how many earlier tokens chose the same expert",
        hint="What is the place of the first token in a queue, and what that of the next?",
    )
    def test_one_choice(self, subject, rng):
        for tokens, experts in ((4, 2), (6, 3), (whole(rng, 9, 14), 5)):
            self.compare(subject, uneven_choices(tokens, experts, 1, rng), experts)

    @criterion(
        3,
        "several choices: all first choices queue before all second ones",
        hint="Token 5's first choice and token 0's second want the same expert: who comes first?",
    )
    def test_choice_major(self, subject, rng):
        fixture = torch.tensor([[0, 1], [0, 2], [1, 2], [1, 0], [0, 1], [0, 1]])
        self.compare(subject, fixture, 4)
        for tokens, experts, k in ((5, 3, 2), (7, 5, 3), (whole(rng, 8, 12), 6, 4), (5, 4, 4)):
            self.compare(subject, uneven_choices(tokens, experts, k, rng), experts)

    @criterion(
        2,
        "experts that nobody chose do not disturb the others",
        hint="Which row of your counts belongs to expert 4 if nobody chose expert 2?",
    )
    def test_nobody(self, subject, rng):
        for tokens, experts, k, among in ((5, 4, 1, [1, 3]), (8, 7, 2, [1, 2, 5]), (6, 9, 3, [3, 4, 5, 7])):
            self.compare(subject, uneven_choices(tokens, experts, k, rng, among), experts)

    @criterion(
        1,
        "long queues are counted exactly",
        hint="Which whole numbers can the dtype of your running count hold?",
    )
    def test_long_queues(self, subject, rng):
        self.compare(subject, capacity.choices(whole(rng, 550, 600), 3, 2, rng), 3)

    @criterion(
        1,
        "places are integers; strided indices work, and are not edited",
        hint="Can your places index a buffer, and do you cross out assignments in idx_TK itself?",
    )
    def test_other_inputs(self, subject, rng):
        (idx_TK,) = strided((uneven_choices(7, 5, 3, rng),))
        out, want_TK = self.compare(subject, idx_TK, 5), capacity.choice_major(idx_TK)
        expect_index(out.value, want_TK, "TK", {"idx_TK": idx_TK, "num_experts": 5}, what="pos_TK")
        expect_untouched(out, (idx_TK, 5), ("idx_TK", "num_experts"))

    def behaviour(self, subject):
        idx_TK = uneven_choices(7, 4, 2, seed(521))
        cases = (
            (idx_TK, 4),
            (uneven_choices(6, 3, 1, seed(522)), 3),
            (uneven_choices(8, 6, 2, seed(523), [1, 2, 4]), 6),
            (capacity.choices(560, 2, 1, seed(524)), 2),
            (uneven_choices(7, 4, 3, seed(525)), 4),
        )
        outs = [subject.run(call, "positions_in_expert", *case) for case in cases]
        return [*map(_places, outs), outs[0].inputs]


@grades("batch_priority_positions", hidden=4)
class TestBatchPriorityPositions:
    names = "idx_TK weights_TK num_experts"

    def compare(self, subject, *args):
        given = named(self.names, args)
        out = run(subject, "batch_priority_positions", call, "batch_priority_positions", *args)
        expect_values(returned(out, given), capacity.batch_priority(*args[:2]), "TK", given, what="pos_TK")
        return out

    @staticmethod
    def inputs(tokens, experts, k, rng, dtype=torch.float32):
        """Choices and weights for which priority makes a difference."""
        while True:
            idx_TK = uneven_choices(tokens, experts, k, rng)
            weights_TK = capacity.distinct_weights(tokens, k, rng, dtype)
            if not capacity.batch_priority(idx_TK, weights_TK).equal(capacity.choice_major(idx_TK)):
                return idx_TK, weights_TK, experts

    @criterion(
        2,
        "one choice a token: the heavier the weight, the earlier the place; row t is still token t",
        hint="After sorting, which row of your result belongs to which token?",
    )
    def test_heavy_first(self, subject, rng):
        for tokens, experts in ((5, 2), (7, 3), (whole(rng, 9, 14), 4)):
            self.compare(subject, *self.inputs(tokens, experts, 1, rng))

    @criterion(
        2,
        "several choices: still all first choices before all second ones",
        hint="Does the second choice of the heaviest token come before another token's first?",
    )
    def test_choice_major(self, subject, rng):
        for tokens, experts, k in ((5, 3, 2), (8, 5, 3), (whole(rng, 9, 12), 6, 4)):
            idx_TK, weights_TK, _ = self.inputs(tokens, experts, k, rng)
            falling_TK = weights_TK[:, :1] / 2.0 ** torch.arange(k)  # all slots agree on who is heavy
            self.compare(subject, idx_TK, falling_TK, experts)

    @criterion(
        3,
        "a token's first weight decides about all of its slots",
        hint="Which weight of a token decides its place in a queue of second choices: the first or the second?",
    )
    def test_first_weight(self, subject, rng):
        for tokens, experts, k in ((7, 3, 2), (9, 5, 3), (whole(rng, 10, 13), 4, 3)):
            for _ in range(4):
                idx_TK, weights_TK, _ = self.inputs(tokens, experts, k, rng)
                self.compare(subject, idx_TK, weights_TK, experts)

    @criterion(
        1,
        "places are integers; bfloat16, float64 and strided inputs work; none is edited",
        hint="Can your places index a buffer, and do you write into the weights or the indices that were given?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype in (torch.bfloat16, torch.float64, torch.float32):
            args = strided(self.inputs(8, 5, 2, rng, dtype))
            out, want_TK = self.compare(subject, *args), capacity.batch_priority(*args[:2])
            expect_index(out.value, want_TK, "TK", named(self.names, args), what="pos_TK")
            expect_untouched(out, args, self.names.split())

    def behaviour(self, subject):
        cases = (
            self.inputs(8, 3, 2, seed(531)),
            self.inputs(6, 3, 1, seed(532)),
            self.inputs(9, 4, 3, seed(533), torch.float64),
        )
        outs = [
            run(subject, "batch_priority_positions", call, "batch_priority_positions", *case)
            for case in cases
        ]
        return [*map(_places, outs), outs[0].inputs]


@grades("fill_buffers", hidden=4)
class TestFillBuffers:
    names = "x_TD idx_TK pos_TK num_experts capacity"
    sizes = ((3, 2, 4, 1), (5, 3, 4, 2), (6, 4, 7, 3))  # T, D, E, K

    @staticmethod
    def inputs(tokens, d_model, experts, k, rng, roomy=False, dtype=torch.float32):
        """All arguments; some assignment is dropped, unless `roomy`. Whoever comes first is drawn."""
        idx_TK = uneven_choices(tokens, experts, k, rng)
        pos_TK = capacity.in_any_order(idx_TK, rng)
        x_TD = torch.randn(tokens, d_model, generator=rng).to(dtype)
        return x_TD, idx_TK, pos_TK, experts, capacities(idx_TK, rng)[roomy]

    def compare(self, subject, args, filled_only=False):
        given = named(self.names, args)
        out = subject.run(call, "fill_buffers", *args)
        got, want_ECD = returned(out, given), capacity.fill_buffers(*args)
        if filled_only and isinstance(got, torch.Tensor) and got.shape == want_ECD.shape:
            got = got.where(capacity.occupied(*args[1:])[..., None], 0)
        expect_values(got, want_ECD, "ECD", given, what="buf_ECD", rtol=0, atol=0)
        return out

    @criterion(
        2,
        "each assignment puts its token's row into its expert's buffer, at its place",
        hint="Flattened, assignment n belongs to which token, which expert and which slot of the buffer?",
    )
    def test_places(self, subject, rng):
        for sizes in (*self.sizes, (whole(rng, 7, 9), 5, 6, 2)):
            self.compare(subject, self.inputs(*sizes, rng, roomy=True), filled_only=True)

    @criterion(
        2,
        "whoever comes at place C or later is dropped, and nobody else is disturbed",
        hint="Where does an assignment at place C end up in your code, and whose slot is that?",
    )
    def test_drops(self, subject, rng):
        for sizes in (*self.sizes, (whole(rng, 8, 11), 5, 3, 2), (9, 3, 2, 1)):
            for _ in range(3):
                self.compare(subject, self.inputs(*sizes, rng), filled_only=True)

    @criterion(
        2,
        "slots that nobody takes hold zeros",
        hint="What stands in a slot before anybody takes it?",
    )
    def test_empty_slots(self, subject, rng):
        for sizes in self.sizes:
            self.compare(subject, self.inputs(*sizes, rng, roomy=True))

    @criterion(
        2,
        "gradients come back to the tokens, from every slot that holds them",
        hint="A token with two experts stands in two buffers: what is the gradient on its row?",
    )
    def test_gradients(self, subject, rng):
        for sizes, roomy in ((self.sizes[1], True), (self.sizes[2], False)):
            args = self.inputs(*sizes, rng, roomy=roomy)
            dbuf_ECD = short(torch.randn(args[3], args[4], sizes[1], generator=rng))
            given = {**named(self.names, args), "dbuf_ECD": dbuf_ECD}
            want = oracles.gradients(capacity.fill_buffers, args, dbuf_ECD, wrt=(0,))
            _, got = returned(subject.run(vjp, "fill_buffers", args, (dbuf_ECD,), wrt=(0,)), given)
            expect_gradients(got, want, ("x_TD",), given)

    @criterion(
        1,
        "the buffers have the tokens' dtype: bfloat16, float64; strided inputs work; none is edited",
        hint="Which dtype do your buffers have, and do you write into any of the arguments?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype in (torch.bfloat16, torch.float64, torch.float32):
            *args, _ = self.inputs(8, 2, 3, 2, rng, dtype=dtype)  # 16 assignments: some queue is 6 long
            args = strided((*args, whole(rng, 2, 4)))
            out = self.compare(subject, args, filled_only=True)
            expect_dtype(out.value, dtype, named(self.names, args), what="buf_ECD")
            expect_untouched(out, args, self.names.split())

    def behaviour(self, subject):
        tight = (*self.inputs(9, 2, 3, 2, seed(541))[:4], 2)
        roomy = self.inputs(3, 2, 4, 1, seed(542), roomy=True)
        double = self.inputs(5, 2, 3, 2, seed(543), dtype=torch.float64)
        out = subject.run(call, "fill_buffers", *tight)
        dbuf_ECD = torch.randn(double[3], double[4], 2, generator=seed(544)).double()
        return [
            out,
            out.inputs,
            subject.run(call, "fill_buffers", *roomy),
            subject.run(vjp, "fill_buffers", double, (dbuf_ECD,), wrt=(0,)),
        ]


@grades("read_buffers", hidden=4)
class TestReadBuffers:
    names = "buf_ECD idx_TK pos_TK weights_TK"
    sizes = ((4, 2, 3, 1), (5, 3, 4, 2), (7, 4, 6, 3))  # T, D, E, K

    @staticmethod
    def inputs(tokens, d_model, experts, k, rng, roomy=False, dtype=torch.float32):
        """All arguments; some assignment is dropped, unless `roomy`. Empty slots hold what experts made of 0."""
        idx_TK = uneven_choices(tokens, experts, k, rng)
        pos_TK = capacity.in_any_order(idx_TK, rng)
        room = capacities(idx_TK, rng)[roomy]
        buf_ECD = torch.randn(experts, room, d_model, generator=rng)
        weights_TK = 0.2 + torch.rand(tokens, k, generator=rng)
        return buf_ECD.to(dtype), idx_TK, pos_TK, weights_TK.to(dtype)

    def compare(self, subject, args, **tolerance):
        given = named(self.names, args)
        out = subject.run(call, "read_buffers", *args)
        got, want_TD = returned(out, given), capacity.read_buffers(*args)
        expect_values(got, want_TD, "TD", given, what="y_TD", **tolerance)
        return out

    @criterion(
        2,
        "nobody dropped: each token gets the weighted sum of its rows",
        hint="Which expert and which slot hold the result of token t's slot k, and which weight goes with it?",
    )
    def test_sums(self, subject, rng):
        for sizes in (*self.sizes, (whole(rng, 8, 10), 5, 4, 2)):
            self.compare(subject, self.inputs(*sizes, rng, roomy=True))

    @criterion(
        2,
        "a token that was dropped gets zeros",
        hint="What does your code read at place C, and how much of it reaches y?",
    )
    def test_dropped(self, subject, rng):
        for tokens, d_model, experts in ((5, 2, 3), (whole(rng, 8, 12), 3, 4), (6, 4, 1)):
            for _ in range(3):
                self.compare(subject, self.inputs(tokens, d_model, experts, 1, rng))

    @criterion(
        2,
        "one choice of several dropped: the others count with their own weights, as they are",
        hint="When the second choice is dropped, does the weight of the first one change?",
    )
    def test_not_rescaled(self, subject, rng):
        for tokens, d_model, experts, k in ((6, 2, 3, 2), (7, 3, 5, 3), (whole(rng, 8, 11), 4, 3, 2)):
            for _ in range(3):
                self.compare(subject, self.inputs(tokens, d_model, experts, k, rng))

    @criterion(
        2,
        "gradients reach the buffers and the weights of those who were kept, and nobody else's",
        hint="Would y change if the weight of a dropped choice did, and what is its gradient?",
    )
    def test_gradients(self, subject, rng):
        for sizes, roomy in ((self.sizes[1], True), (self.sizes[2], False), (self.sizes[1], False)):
            args = self.inputs(*sizes, rng, roomy=roomy)
            dy_TD = short(torch.randn(sizes[0], sizes[1], generator=rng))
            given = {**named(self.names, args), "dy_TD": dy_TD}
            want = oracles.gradients(capacity.read_buffers, args, dy_TD, wrt=(0, 3))
            _, got = returned(subject.run(vjp, "read_buffers", args, (dy_TD,), wrt=(0, 3)), given)
            expect_gradients(got, want, ("buf_ECD", "weights_TK"), given)

    @criterion(
        1,
        "bfloat16 buffers give bfloat16 tokens, also when the weights are float32",
        hint="Which dtype has bfloat16 times float32?",
    )
    def test_mixed_dtypes(self, subject, rng):
        args = self.inputs(5, 3, 4, 2, rng, dtype=torch.bfloat16)
        for weights_TK in (args[3], args[3].float()):
            out = self.compare(subject, (*args[:3], weights_TK), rtol=3e-2, atol=3e-2)
            given = {"dtype of buf_ECD": args[0].dtype, "dtype of weights_TK": weights_TK.dtype}
            expect_dtype(out.value, args[0].dtype, given, what="y_TD")

    @criterion(
        1,
        "float64 and strided inputs work; none is edited",
        hint="In which dtype do you add, and do you write into the buffers or the weights?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype, rtol in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
            args = strided(self.inputs(6, 3, 4, 2, rng, dtype=dtype))
            out = self.compare(subject, args, rtol=rtol, atol=rtol / 100)
            expect_dtype(out.value, dtype, what="y_TD")
            expect_untouched(out, args, self.names.split())

    def behaviour(self, subject):
        buf_ECD, *rest = self.inputs(9, 2, 3, 2, seed(551), roomy=True)
        tight, roomy = (buf_ECD[:, :2].clone(), *rest), self.inputs(4, 2, 3, 2, seed(552), roomy=True)
        half = self.inputs(5, 2, 3, 2, seed(553), dtype=torch.bfloat16)
        out = subject.run(call, "read_buffers", *tight)
        double = self.inputs(5, 2, 3, 2, seed(554), dtype=torch.float64)
        large = (1e30 * double[0], *double[1:3], 1e30 * double[3])  # more than float32 can hold
        return [
            out,
            out.inputs,
            subject.run(call, "read_buffers", *roomy),
            subject.run(call, "read_buffers", *self.inputs(6, 2, 3, 1, seed(555))),
            dtypes(subject.run(call, "read_buffers", *half[:3], half[3].float())),
            finite(subject.run(call, "read_buffers", *large)),
            subject.run(vjp, "read_buffers", tight, (torch.ones(9, 2),), wrt=(0, 3)),
        ]


@grades("drop_and_waste", hidden=4)
class TestDropAndWaste:
    names = "idx_TK num_experts capacity"

    def shares(self, subject, *args):
        given = named(self.names, args)
        out = subject.run(call, "drop_and_waste", *args)
        pair = expect_tuple(returned(out, given), 2, given, "dropped, empty")
        return out, pair, capacity.drop_and_waste(*args), given

    @staticmethod
    def sizes(rng):
        """T, E and K."""
        return (7, 3, 1), (9, 4, 2), (whole(rng, 10, 16), 5, 3), (whole(rng, 12, 20), 6, 2), (15, 7, 3)

    @staticmethod
    def cases(sizes, rng):
        """Choices that use every expert; a capacity between the least and the most chosen, and a roomy one."""
        for tokens, experts, k in sizes:
            least = most = 0
            while not 0 < least < most - 1:
                idx_TK = capacity.choices(tokens, experts, k, rng)
                least, *_, most = sorted(idx_TK.flatten().bincount(minlength=experts).tolist())
            for room in (whole(rng, least + 1, most - 1), most + whole(rng, 1, 3)):
                yield idx_TK, experts, room

    @criterion(
        2,
        "first the share of the N assignments that find their expert full",
        hint="How many come too late at each expert, and how many assignments are there in all?",
    )
    def test_dropped(self, subject, rng):
        for case in self.cases(self.sizes(rng), rng):
            _, (dropped, _), (want, _), given = self.shares(subject, *case)
            expect_value(dropped, want, given, what="the share of dropped assignments")

    @criterion(
        2,
        "then the share of the E·C slots that stay empty",
        hint="How many slots has an expert left that was chosen fewer than C times, and how many slots are there?",
    )
    def test_empty(self, subject, rng):
        for case in self.cases(self.sizes(rng), rng):
            _, (_, empty), (_, want), given = self.shares(subject, *case)
            expect_value(empty, want, given, what="the share of empty slots")

    @criterion(
        2,
        "an expert that nobody chose has C empty slots too",
        hint="Does your count know that expert E−1 exists if nobody chose it?",
    )
    def test_nobody(self, subject, rng):
        for tokens, experts, k, among in ((6, 5, 1, [0, 2]), (7, 6, 2, [1, 2, 3]), (8, 9, 2, [4, 5, 6])):
            idx_TK = uneven_choices(tokens, experts, k, rng, among)
            _, pair, want, given = self.shares(subject, idx_TK, experts, capacities(idx_TK, rng)[0])
            for mine, right, what in zip(pair, want, ("dropped", "empty"), strict=True):
                expect_value(mine, right, given, what=f"the share {what}")

    @criterion(
        1,
        "two Python floats; strided indices work, and are not edited",
        hint="Which type do your two shares have, and do you need to change idx_TK in order to count it?",
    )
    def test_other_inputs(self, subject, rng):
        (idx_TK,) = strided((uneven_choices(8, 5, 3, rng),))
        out, pair, want, given = self.shares(subject, idx_TK, 5, capacities(idx_TK, rng)[0])
        for mine, right, what in zip(pair, want, ("dropped", "empty"), strict=True):
            expect_number(mine, right, given, what=f"the share {what}")
        expect_untouched(out, (idx_TK, 5, given["capacity"]), self.names.split())

    def behaviour(self, subject):
        idx_TK = uneven_choices(9, 4, 2, seed(561))
        out = subject.run(call, "drop_and_waste", idx_TK, 4, 3)
        return [
            out,
            out.inputs,
            subject.run(call, "drop_and_waste", uneven_choices(7, 3, 1, seed(562)), 3, 2),
            subject.run(call, "drop_and_waste", uneven_choices(6, 7, 2, seed(563), [1, 2, 4]), 7, 2),
            subject.run(call, "drop_and_waste", idx_TK, 4, 9),
        ]


def _layer(mix_BSBS, steps_BSBS, threshold, noise):
    """layer(x)[b, s] = Σ mix[b, s, c, t]·x[c, t] + Σ steps[b, s, c, t]·(1 if x[c, t, 0] > threshold, else 0),

    to which a number of size `noise` that depends on all of x is added, and then subtracted again.
    """
    places = mix_BSBS.shape[0] * mix_BSBS.shape[1]

    def layer(x):
        tokens = x.reshape(places, -1)
        mixed = mix_BSBS.to(x).view(places, -1) @ tokens
        stepped = steps_BSBS.to(x).view(places, -1) @ (tokens[:, :1] > threshold).to(x)
        shift = noise * torch.cos(x.sum())
        return ((mixed + stepped + shift) - shift).view(x.shape)

    return layer


def _answer(layer, shape, x, dy):
    """What the learner's process asks: the layer's output, or its gradient for dy."""
    if x.shape != shape:
        raise ValueError(f"x has shape {tuple(x.shape)}, not {tuple(shape)}")
    if dy is None:
        return layer(x)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(layer(x), x, dy)[0]


class _Leaks:
    """What the two probes of layers have in common. `places`: which outputs they watch, and which inputs change."""

    exercise: object
    place_name = unseen = ""

    def ask(self, subject, x_BSD, place, mix, steps=None, threshold=0.0, noise=0.0, number=0):
        """What the learner's probe says about the layer with this mixture."""
        layer = _layer(mix, torch.zeros_like(mix) if steps is None else steps, threshold, noise)
        given = {"x_BSD": x_BSD, self.place_name: place}
        answers = partial(_answer, layer, x_BSD.shape)
        out = subject.run(ask_layer, self.exercise.name, x_BSD, place, number, answers=answers)
        return out, given

    def expect(self, asked, leaks):
        """The answer is the right one."""
        out, given = asked
        layer = "this layer leaks" if leaks else f"{self.unseen} by more than rounding"
        expect_answer(returned(out, given), leaks, f"{layer}, but the answer is {not leaks}", given)
        return out

    def both(self, subject, x_BSD, place, honest, leak, **settings):
        """The honest layer is cleared, and the same layer with the leak is found."""
        self.expect(self.ask(subject, x_BSD, place, honest, **settings), False)
        self.expect(self.ask(subject, x_BSD, place, honest + leak, **settings), True)

    def every_kind(self, subject, x_BSD, place, honest, hole):
        """The layer is cleared also when it is noisy, and a leak through `hole` is found: large, small, or seldom.

        `hole` is (b, s, c, t): the output at (b, s) sees the token (c, t).
        """
        self.both(subject, x_BSD, place, honest, _one(honest, hole), noise=NOISE)
        self.expect(self.ask(subject, x_BSD, place, honest + _one(honest, hole, 3e-3)), True)
        asleep_BSD, steps = _quiet(x_BSD, *hole[2:]), _one(honest, hole)
        for number in range(4):
            seldom = self.ask(subject, asleep_BSD, place, honest, steps, SELDOM, number=number)
            self.expect(seldom, True)


def _kept(out, x_BSD):
    """Whether x_BSD came back as it was sent; the random numbers that a learner wrote into it tell nothing."""
    return all(torch.equal(after, x_BSD) for after in out.inputs[:1])


def _x(rows, length, width, rng, dtype=torch.float32):
    return torch.randn(rows, length, width, generator=rng).to(dtype)


def _mixture(rows, length, rng, allowed):
    """A random mixture of tokens; `allowed(b, s, c, t)` says whether the output at (b, s) may see token (c, t)."""
    b = torch.arange(rows).view(-1, 1, 1, 1)
    s = torch.arange(length).view(-1, 1, 1)
    c, t = b.view(-1, 1), s.view(-1)
    sees = allowed(b, s, c, t).expand(rows, length, rows, length)
    mix = torch.randn(rows, length, rows, length, generator=rng)
    return torch.where(sees, mix + mix.sign(), 0) / length  # nothing that is seen is seen weakly


def _one(like, at, strength=1.0):
    """A leak through one hole: the output at `at[:2]` sees the token `at[2:]`."""
    leak = torch.zeros_like(like)
    leak[at] = strength
    return leak


SELDOM = 0.84  # one standard normal number in five is larger
NOISE = (
    24.0  # adding and subtracting this in float32 leaves differences near 2e-6, below the 1e-5 of the text
)


def _quiet(x_BSD, c, t):
    """x with the first channel of token (c, t) at 0, below the step at SELDOM."""
    x_BSD = x_BSD.clone()
    x_BSD[c, t, 0] = 0
    return x_BSD


@grades("depends_on_future", hidden=6)
class TestDependsOnFuture(_Leaks):
    place_name = "position"
    unseen = "no later token changes an output at or before `position`"

    @staticmethod
    def causal(rows, length, rng):
        """A layer whose outputs see their own and earlier tokens of their own sequence, and all of them."""
        return _mixture(rows, length, rng, lambda b, s, c, t: (c == b) & (t <= s))

    @staticmethod
    def draw(rng, rows=None):
        """Sizes B, S, D and a position with at least two tokens before and two behind it."""
        rows, length = rows or whole(rng, 1, 3), whole(rng, 6, 9)
        return rows, length, whole(rng, 2, 5), whole(rng, 2, length - 3)

    @criterion(
        3,
        "a layer that sees later tokens is found, a causal one is not",
        hint="Which tokens do you change, and at which outputs do you look?",
    )
    def test_finds(self, subject, rng):
        for _ in range(3):
            rows, length, width, position = self.draw(rng)
            x_BSD, honest = _x(rows, length, width, rng), self.causal(rows, length, rng)
            leak = _mixture(rows, length, rng, lambda b, s, c, t, p=position: (c == b) & (s <= p) & (t > p))
            self.both(subject, x_BSD, position, honest, leak)

    @criterion(
        2,
        "one hole is enough: from any later token of any sequence, into any output up to and including `position`",
        hint="Is `position` among the outputs that you compare, and position + 1 among the tokens that you change?",
    )
    def test_every_hole(self, subject, rng):
        for rows in (1, 3):
            _, length, width, p = self.draw(rng)
            x_BSD, honest = _x(rows, length, width, rng), self.causal(rows, length, rng)
            row = rows - 1
            for s, t in ((p, p + 1), (0, length - 1), (p, length - 1), (0, p + 1), (p - 1, p + 2)):
                hole = _one(honest, (row, s, row, t))
                self.expect(self.ask(subject, x_BSD, p, honest + hole), True)
            if rows > 1:  # into one sequence, from the future of another
                self.expect(self.ask(subject, x_BSD, p, honest + _one(honest, (0, p, row, p + 1))), True)
            later = _one(honest, (row, p + 1, row, length - 1))  # a leak, but not into this position
            self.expect(self.ask(subject, x_BSD, p, honest + later), False)
            for edge in (0, length - 1):
                self.expect(self.ask(subject, x_BSD, edge, honest), False)

    @criterion(
        2,
        "rounding noise is no leak",
        hint="Two sums in another order differ in the last digit: is that a leak, and what do you compare with?",
    )
    def test_rounding(self, subject, rng):
        for rows in (1, 2):
            _, length, width, position = self.draw(rng)
            x_BSD, honest = _x(rows, length, width, rng), self.causal(rows, length, rng)
            leak = _one(honest, (0, position - 1, 0, position + 1))
            honest[0, 1] /= 1000  # rounding is as large as ever where the output is small
            self.both(subject, x_BSD, position, honest, leak, noise=NOISE)

    @criterion(
        2,
        "a small leak is a leak",
        hint="How large is a difference that rounding cannot explain, when values are of order 1?",
    )
    def test_small(self, subject, rng):
        for strength in (3e-3, -5e-3):
            rows, length, width, position = self.draw(rng)
            x_BSD, honest = _x(rows, length, width, rng), self.causal(rows, length, rng)
            leak = _one(honest, (rows - 1, position, rows - 1, position + 1), strength)
            self.both(subject, x_BSD, position, honest, leak)

    @criterion(
        2,
        "a leak that shows for one input in five is found",
        hint="How many different futures do you try, and can a step have a gradient?",
    )
    def test_rare(self, subject, rng):
        for number in range(12):
            rows, length, width, position = self.draw(rng)
            honest, row, t = self.causal(rows, length, rng), rows - 1, whole(rng, position + 1, length - 1)
            x_BSD = _quiet(_x(rows, length, width, rng), row, t)
            steps = _one(honest, (row, position - 1, row, t))
            settings = {"threshold": SELDOM, "number": number}
            self.expect(self.ask(subject, x_BSD, position, honest, steps, **settings), True)
            if number < 2:  # the same step, looking back instead of ahead
                back = _one(honest, (row, t, row, position))
                self.expect(self.ask(subject, x_BSD, position, honest, back, **settings), False)

    @criterion(
        1,
        "a Python bool; float64 and strided inputs work; x_BSD is not edited",
        hint="Which type has your answer, and do you write the other future into x_BSD itself?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype in (torch.float64, torch.float32):
            rows, length, width, position = self.draw(rng, rows=2)
            (x_BSD,) = strided((_x(rows, length, width, rng, dtype),))
            honest = self.causal(rows, length, rng)
            for leaks in (False, True):
                leak = leaks * _one(honest, (1, position, 1, position + 2))
                out = self.expect(self.ask(subject, x_BSD, position, honest + leak), leaks)
                expect_type(out.value, bool, {"x_BSD": x_BSD}, what="the answer")
                expect_untouched(out, (x_BSD, out.inputs[1]), ("x_BSD", self.place_name))

    def behaviour(self, subject):
        rng, p = seed(571), 3
        x_BSD, honest = _x(2, 7, 3, rng), self.causal(2, 7, rng)
        loud = 8 * honest
        honest[0, 1] /= 1000
        holes = (
            (1, 3, 1, 4),
            (0, 0, 0, 6),
            (1, 3, 1, 6),
            (0, 0, 0, 4),
            (0, 2, 0, 5),
            (1, 4, 1, 6),
            (0, 3, 1, 4),
        )
        blind = honest.clone()
        blind[..., p] = 0  # nobody sees token p
        asleep = x_BSD.clone()
        asleep[:, p + 1 :] = 0
        seldom = {"steps": _one(honest, (1, 1, 1, 5)), "threshold": SELDOM}
        mostly = {"steps": _one(honest, (1, 1, 1, 5)), "threshold": -4.0}
        asked = [
            self.ask(subject, x_BSD, p, honest),
            *(self.ask(subject, x_BSD, p, honest + _one(honest, hole)) for hole in holes),
            *(self.ask(subject, x_BSD, edge, honest) for edge in (0, 6)),
            *(self.ask(subject, x_BSD, p, mix) for mix in (blind, 0 * honest)),
            self.ask(subject, asleep, p, honest + _one(honest, holes[0])),
            self.ask(subject, x_BSD, p, honest, noise=NOISE),
            self.ask(subject, x_BSD, p, loud, noise=1.0),
            *(self.ask(subject, x_BSD, p, honest + _one(honest, holes[0], size)) for size in (3e-3, 0.015)),
            self.ask(subject, _quiet(x_BSD - 9, 1, 5) - 5, p, honest, **mostly),
            *(self.ask(subject, _quiet(x_BSD, 1, 5), p, honest, **seldom, number=n) for n in range(8)),
        ]
        return [*(out for out, _ in asked), _kept(asked[0][0], x_BSD)]


@grades("depends_on_batch", hidden=6)
class TestDependsOnBatch(_Leaks):
    place_name = "row"
    unseen = "no other sequence changes the output of `row`"

    @staticmethod
    def alone(rows, length, rng):
        """A layer whose outputs see their own sequence only, all of it."""
        return _mixture(rows, length, rng, lambda b, s, c, t: (c == b) & (t >= 0) & (s >= 0))

    @staticmethod
    def draw(rng):
        """Sizes B, S, D and a row with neighbours on both sides."""
        rows = whole(rng, 4, 6)
        return rows, whole(rng, 3, 6), whole(rng, 2, 5), whole(rng, 1, rows - 2)

    @criterion(
        3,
        "a layer that mixes sequences is found, one that keeps them apart is not",
        hint="Which sequences do you change, and which one do you look at?",
    )
    def test_finds(self, subject, rng):
        for _ in range(3):
            rows, length, width, row = self.draw(rng)
            x_BSD, honest = _x(rows, length, width, rng), self.alone(rows, length, rng)
            leak = _mixture(
                rows, length, rng, lambda b, s, c, t, r=row: (b == r) & (c != r) & (t >= 0) & (s >= 0)
            )
            self.both(subject, x_BSD, row, honest, leak)

    @criterion(
        2,
        "one hole is enough: from any token of any other sequence, into any position of this one",
        hint="Do you change every other sequence, and compare every position of `row`?",
    )
    def test_every_hole(self, subject, rng):
        rows, length, width, row = self.draw(rng)
        x_BSD, honest = _x(rows, length, width, rng), self.alone(rows, length, rng)
        last = length - 1
        for c, s, t in ((0, 0, last), (rows - 1, last, 0), (row - 1, last, last), (row + 1, 1, 1)):
            hole = _one(honest, (row, s, c, t))
            self.expect(self.ask(subject, x_BSD, row, honest + hole), True)
        elsewhere = _one(honest, (0, 1, rows - 1, 1))  # a leak, but not into this sequence
        self.expect(self.ask(subject, x_BSD, row, honest + elsewhere), False)
        for edge, other in ((0, rows - 1), (rows - 1, 0)):
            hole = _one(honest, (edge, last, other, 0))
            self.expect(self.ask(subject, x_BSD, edge, honest + hole), True)
        single = self.alone(1, length, rng)
        self.expect(self.ask(subject, x_BSD[:1].clone(), 0, single), False)

    @criterion(
        2,
        "rounding noise is no leak",
        hint="Two sums in another order differ in the last digit: is that a leak, and what do you compare with?",
    )
    def test_rounding(self, subject, rng):
        for _ in range(2):
            rows, length, width, row = self.draw(rng)
            x_BSD, honest = _x(rows, length, width, rng), self.alone(rows, length, rng)
            leak = _one(honest, (row, 1, row - 1, 0))
            honest[row, 0] /= 1000  # rounding is as large as ever where the output is small
            self.both(subject, x_BSD, row, honest, leak, noise=NOISE)

    @criterion(
        2,
        "a small leak is a leak",
        hint="How large is a difference that rounding cannot explain, when values are of order 1?",
    )
    def test_small(self, subject, rng):
        for strength in (3e-3, -5e-3):
            rows, length, width, row = self.draw(rng)
            x_BSD, honest = _x(rows, length, width, rng), self.alone(rows, length, rng)
            self.both(subject, x_BSD, row, honest, _one(honest, (row, 0, row + 1, 1), strength))

    @criterion(
        2,
        "a leak that shows for one input in five is found",
        hint="How many different neighbours do you try, and can a step have a gradient?",
    )
    def test_rare(self, subject, rng):
        for number in range(12):
            rows, length, width, row = self.draw(rng)
            honest, t = self.alone(rows, length, rng), whole(rng, 0, length - 1)
            other = row + 1 - 2 * (number % 2)
            x_BSD = _quiet(_x(rows, length, width, rng), other, t)
            steps = _one(honest, (row, 1, other, t))
            settings = {"threshold": SELDOM, "number": number}
            self.expect(self.ask(subject, x_BSD, row, honest, steps, **settings), True)
            if number < 2:  # the same step, the other way round
                back = _one(honest, (other, t, row, 1))
                self.expect(self.ask(subject, x_BSD, row, honest, back, **settings), False)

    @criterion(
        1,
        "a Python bool; float64 and strided inputs work; x_BSD is not edited",
        hint="Which type has your answer, and do you write the other sequences into x_BSD itself?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype in (torch.float64, torch.float32):
            rows, length, width, row = self.draw(rng)
            (x_BSD,) = strided((_x(rows, length, width, rng, dtype),))
            honest = self.alone(rows, length, rng)
            for leaks in (False, True):
                leak = leaks * _one(honest, (row, 1, row + 1, 0))
                out = self.expect(self.ask(subject, x_BSD, row, honest + leak), leaks)
                expect_type(out.value, bool, {"x_BSD": x_BSD}, what="the answer")
                expect_untouched(out, (x_BSD, out.inputs[1]), ("x_BSD", self.place_name))

    def behaviour(self, subject):
        rng, row = seed(581), 1
        x_BSD, honest = _x(4, 3, 2, rng), self.alone(4, 3, rng)
        loud = 8 * honest
        honest[row, 0] /= 1000
        holes = ((1, 0, 0, 2), (1, 2, 3, 0), (1, 2, 0, 2), (1, 1, 2, 1), (0, 1, 3, 1), (1, 0, 3, 0))
        deaf, alike = honest.clone(), torch.zeros_like(honest)
        deaf[row, :, row] = 0  # this sequence does not see itself
        for b in range(4):
            alike[b, :, b] = honest[0, :, 0]
        asleep = x_BSD.clone()
        asleep[2] = 0
        seldom = {"steps": _one(honest, (1, 1, 2, 1)), "threshold": SELDOM}
        mostly = {"steps": _one(honest, (1, 1, 2, 1)), "threshold": -4.0}
        asked = [
            self.ask(subject, x_BSD, row, honest),
            *(self.ask(subject, x_BSD, row, honest + _one(honest, hole)) for hole in holes),
            self.ask(subject, x_BSD, 0, honest + _one(honest, (0, 2, 3, 0))),
            self.ask(subject, x_BSD, 3, honest + _one(honest, (3, 2, 0, 0))),
            self.ask(subject, x_BSD, 2, honest + _one(honest, (2, 0, 1, 0))),
            *(self.ask(subject, x_BSD, row, mix) for mix in (deaf, alike, 0 * honest)),
            self.ask(subject, x_BSD, row, deaf + _one(honest, holes[1])),
            self.ask(subject, asleep, row, honest + _one(honest, holes[3])),
            self.ask(subject, x_BSD, row, honest, noise=NOISE),
            self.ask(subject, x_BSD, row, loud, noise=1.0),
            *(self.ask(subject, x_BSD, row, honest + _one(honest, holes[3], size)) for size in (3e-3, 0.015)),
            self.ask(subject, _quiet(x_BSD - 9, 2, 1) - 5, row, honest, **mostly),
            *(self.ask(subject, _quiet(x_BSD, 2, 1), row, honest, **seldom, number=n) for n in range(8)),
            self.ask(subject, x_BSD[:1].clone(), 0, honest[:1, :, :1].clone()),
        ]
        return [*(out for out, _ in asked), _kept(asked[0][0], x_BSD)]


def _places(out):
    """The places that a call returned, int32 ones as int64: both are right; or the exception."""
    places = out.value
    if isinstance(places, torch.Tensor) and places.dtype == torch.int32:
        places = places.long()
    return out.error or places
