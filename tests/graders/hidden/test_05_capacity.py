"""Hidden criteria of notebook 05, capacity: everything at once, at other sizes. They compare values alone."""

from __future__ import annotations

import torch

from graders import oracles
from graders import oracles_capacity as capacity
from graders import test_05_capacity as public
from graders.common import expect_values, named, short, whole
from graders.probes import call, vjp
from graders.stand_ins import run
from graders.values import expect_value
from moe_course.grading.exercises.expect import expect_gradients, expect_tuple, returned
from moe_course.grading.exercises.rubric import criterion, grades


@grades("expert_capacity")
class HiddenExpertCapacity(public.TestExpertCapacity):
    @criterion(
        2,
        "batches of millions of tokens",
        hint="Which whole numbers can your intermediate results hold exactly?",
    )
    def test_large(self, subject, rng):
        for experts, k, factor in ((64, 6, 1.0), (256, 8, 1.25), (128, 4, 2.0), (64, 6, 0.75)):
            self.compare(subject, 2**24 + 8 * whole(rng, 1, 10**6) + 1, experts, k, factor)

    @criterion(
        2,
        "twice the tokens and experts, K moved into the factor or the tokens: the capacity is the same",
        hint="Which of the four numbers enter only through one product?",
    )
    def test_ratios(self, subject, rng):
        tokens, experts, k = whole(rng, 20, 60), whole(rng, 4, 9), whole(rng, 2, 3)
        self.compare(subject, 40 * experts, experts, k, 1.0)  # far from the few slots of the others
        for sizes in (
            (4 * experts + 1, 2 * experts, 1, 1.0),  # a little more than two slots
            (tokens, experts, k, 0.75),
            (2 * tokens, 2 * experts, k, 0.75),
            (tokens, experts, 1, 0.75 * k),
            (tokens * k, experts, 1, 0.75),
            (tokens, experts, experts, 0.75),
        ):
            if capacity.clear_of_rounding(*sizes):
                self.compare(subject, *sizes)


@grades("positions_in_expert")
class HiddenPositionsInExpert(public.TestPositionsInExpert):
    @criterion(
        2,
        "renamed experts, or more experts that nobody chose, leave every place as it is",
        hint="Does a place depend on the number of the expert, or only on who chose the same one?",
    )
    def test_renamed(self, subject, rng):
        tokens, experts, k = whole(rng, 8, 14), whole(rng, 5, 8), whole(rng, 2, 4)
        idx_TK, names_E = (
            public.uneven_choices(tokens, experts, k, rng),
            torch.randperm(experts + 4, generator=rng),
        )
        want_TK = capacity.choice_major(idx_TK)
        for other_TK, count in ((names_E[idx_TK], experts + 4), (idx_TK, experts + 2)):
            given = {"idx_TK": other_TK, "num_experts": count}
            got = returned(subject.run(call, "positions_in_expert", other_TK, count), given)
            expect_values(got, want_TK, "TK", given, what="pos_TK")

    @criterion(
        2,
        "one expert for all, and K = E",
        hint="Who comes before token t's slot k when everybody chose everything?",
    )
    def test_extremes(self, subject, rng):
        tokens, experts = whole(rng, 5, 9), whole(rng, 3, 5)
        self.compare(subject, torch.full((tokens, 1), experts - 1), experts)
        self.compare(subject, torch.zeros(tokens, 1, dtype=torch.long), 1)
        self.compare(subject, capacity.choices(tokens, experts, experts, rng), experts)


@grades("batch_priority_positions")
class HiddenBatchPriorityPositions(public.TestBatchPriorityPositions):
    def ruled_by_the_first(self, rng):
        """Choices and weights for which the sum of a token's weights gives another order than its first weight."""
        while True:
            idx_TK, weights_TK, experts = self.inputs(whole(rng, 8, 12), 4, 2, rng)
            by_sum_TK = capacity.batch_priority(idx_TK, weights_TK.sum(1, keepdim=True))
            if not by_sum_TK.equal(capacity.batch_priority(idx_TK, weights_TK)):
                return idx_TK, weights_TK, experts

    @criterion(
        2,
        "shuffled tokens get shuffled places: only the weights decide",
        hint="If the batch came in another order, would anybody's place in the queue change?",
    )
    def test_shuffled(self, subject, rng):
        idx_TK, weights_TK, experts = self.inputs(whole(rng, 9, 14), whole(rng, 3, 5), 3, rng)
        order_T = torch.randperm(len(idx_TK), generator=rng)
        want_TK = capacity.batch_priority(idx_TK, weights_TK)
        for order, want in ((slice(None), want_TK), (order_T, want_TK[order_T])):
            given = named(self.names, (idx_TK[order], weights_TK[order], experts))
            got = returned(
                run(subject, "batch_priority_positions", call, "batch_priority_positions", *given.values()),
                given,
            )
            expect_values(got, want, "TK", given, what="pos_TK")

    @criterion(
        2,
        "weights that are not probabilities, and one expert for all",
        hint="Does the order of the weights count, or their size?",
    )
    def test_any_weights(self, subject, rng):
        idx_TK, weights_TK, experts = self.ruled_by_the_first(rng)
        for other_TK in (1e4 * weights_TK, 1e-4 * weights_TK, weights_TK - 3):
            self.compare(subject, idx_TK, other_TK, experts)
        self.compare(subject, torch.zeros_like(idx_TK[:, :1]), weights_TK[:, :1], 1)


@grades("fill_buffers")
class HiddenFillBuffers(public.TestFillBuffers):
    def whole_answer(self, subject, args, rng):
        """The buffers with their empty slots, and what comes back to the tokens."""
        want_ECD = capacity.fill_buffers(*args)
        dbuf_ECD = short(torch.randn(want_ECD.shape, generator=rng))
        given = {**named(self.names, args), "dbuf_ECD": dbuf_ECD}
        want = oracles.gradients(capacity.fill_buffers, args, dbuf_ECD, wrt=(0,))
        buf_ECD, got = returned(subject.run(vjp, "fill_buffers", args, (dbuf_ECD,), wrt=(0,)), given)
        expect_values(buf_ECD, want_ECD, "ECD", given, what="buf_ECD", rtol=0, atol=0)
        expect_gradients(got, want, ("x_TD",), given)

    @criterion(
        2,
        "capacity 1, one expert for all, K = E, and a larger batch",
        hint="Does any of your steps count on a size?",
    )
    def test_extremes(self, subject, rng):
        tokens, experts = whole(rng, 7, 10), whole(rng, 3, 5)
        for args, room in (
            (self.inputs(tokens, 3, experts, 2, rng), 1),
            (self.inputs(tokens, 3, 1, 1, rng), whole(rng, 2, 5)),
            (self.inputs(tokens, 2, experts, experts, rng), whole(rng, 2, 5)),
            (self.inputs(60, 5, 7, 3, rng), whole(rng, 12, 20)),
        ):
            self.whole_answer(subject, (*args[:4], room), rng)

    @criterion(
        2,
        "what is dropped has no gradient, and an assignment's gradient is that of its slot",
        hint="If a dropped token's row changed, which number in the buffers would change?",
    )
    def test_whose_gradient(self, subject, rng):
        for k, roomy in ((1, False), (2, True), (3, False)):
            self.whole_answer(subject, self.inputs(whole(rng, 8, 11), 3, 4, k, rng, roomy=roomy), rng)


@grades("read_buffers")
class HiddenReadBuffers(public.TestReadBuffers):
    def whole_answer(self, subject, args, rng, **tolerance):
        """The tokens, and what comes back to the buffers and to the weights."""
        want_TD = capacity.read_buffers(*args)
        dy_TD = short(torch.randn(want_TD.shape, generator=rng))
        given = {**named(self.names, args), "dy_TD": dy_TD}
        want = oracles.gradients(capacity.read_buffers, args, dy_TD, wrt=(0, 3))
        y_TD, got = returned(subject.run(vjp, "read_buffers", args, (dy_TD,), wrt=(0, 3)), given)
        expect_values(y_TD, want_TD, "TD", given, what="y_TD", **tolerance)
        expect_gradients(got, want, ("buf_ECD", "weights_TK"), given, **tolerance)

    @criterion(
        2,
        "capacity 1, one expert for all, K = E, and a larger batch",
        hint="Does any of your steps count on a size?",
    )
    def test_extremes(self, subject, rng):
        tokens, experts = whole(rng, 7, 10), whole(rng, 3, 5)
        for sizes, room in (
            ((tokens, 3, experts, 2), 1),
            ((tokens, 3, 1, 1), whole(rng, 2, 5)),
            ((tokens, 2, experts, experts), whole(rng, 2, 5)),
            ((60, 5, 7, 3), whole(rng, 12, 20)),
        ):
            buf_ECD, *rest = self.inputs(*sizes, rng, roomy=True)
            self.whole_answer(subject, (buf_ECD[:, :room].clone(), *rest), rng)

    @criterion(
        2,
        "twice the weights give twice the result, and what stands in unused slots never counts",
        hint="Which rows of the buffers may y depend on?",
    )
    def test_linear(self, subject, rng):
        buf_ECD, idx_TK, pos_TK, weights_TK = self.inputs(whole(rng, 7, 10), 3, 4, 2, rng, roomy=True)
        used_EC = capacity.occupied(idx_TK, pos_TK, 4, buf_ECD.shape[1])
        want_TD = capacity.read_buffers(buf_ECD, idx_TK, pos_TK, weights_TK)
        filled_ECD = torch.where(used_EC[..., None], buf_ECD, 1e6)
        for args, want in (
            ((filled_ECD, idx_TK, pos_TK, weights_TK), want_TD),
            ((buf_ECD, idx_TK, pos_TK, 2 * weights_TK), 2 * want_TD),
            ((-buf_ECD, idx_TK, pos_TK, weights_TK), -want_TD),
        ):
            given = named(self.names, args)
            got = returned(subject.run(call, "read_buffers", *args), given)
            expect_values(got, want, "TD", given, what="y_TD", atol=1e-5)
            room = min(2, args[0].shape[1])
            self.whole_answer(subject, (args[0][:, :room].clone(), *args[1:]), rng, atol=1e-5)


@grades("drop_and_waste")
class HiddenDropAndWaste(public.TestDropAndWaste):
    def compare(self, subject, idx_TK, experts, room):
        given = named(self.names, (idx_TK, experts, room))
        pair = expect_tuple(
            returned(subject.run(call, "drop_and_waste", idx_TK, experts, room), given), 2, given
        )
        want = capacity.drop_and_waste(idx_TK, experts, room)
        for mine, right, what in zip(pair, want, ("dropped", "empty"), strict=True):
            expect_value(mine, right, given, what=f"the share {what}")

    @criterion(
        2,
        "everybody fits exactly, nobody is dropped, one expert takes all",
        hint="What are the two shares when every expert is chosen exactly C times?",
    )
    def test_extremes(self, subject, rng):
        experts, room = whole(rng, 3, 6), whole(rng, 2, 5)
        even_TK = torch.arange(experts).repeat(room)[:, None]
        self.compare(subject, even_TK, experts, room)
        self.compare(subject, even_TK, experts, room + whole(rng, 1, 9))
        self.compare(subject, torch.ones(whole(rng, 9, 20), 1, dtype=torch.long), experts, room)
        self.compare(subject, torch.ones(whole(rng, 9, 20), 1, dtype=torch.long), experts + 2, room)

    @criterion(
        2,
        "a larger batch at every capacity, with renamed experts",
        hint="Does it matter which expert is crowded, and who is dropped?",
    )
    def test_every_capacity(self, subject, rng):
        experts = whole(rng, 6, 12)
        idx_TK = torch.randperm(experts, generator=rng)[capacity.choices(whole(rng, 50, 90), experts, 3, rng)]
        for room in (1, 5, 12, 25, 40, 100):
            self.compare(subject, idx_TK, experts, room)
            self.compare(subject, idx_TK, experts + 2, room)  # the last two are idle


@grades("depends_on_future")
class HiddenDependsOnFuture(public.TestDependsOnFuture):
    @criterion(
        3,
        "seeing another sequence's past is no leak; seeing another sequence's later token is one",
        hint="Which tokens are later ones when there are several sequences?",
    )
    def test_across_sequences(self, subject, rng):
        for _ in range(2):
            rows, length, width, position = self.draw(rng, rows=3)
            x_BSD = public._x(rows, length, width, rng)
            honest = public._mixture(rows, length, rng, lambda b, s, c, t: (t <= s) & (b < 9) & (c < 9))
            self.every_kind(subject, x_BSD, position, honest, (2, position, 0, position + 1))

    @criterion(
        3,
        "two tokens, and sequences longer than any before",
        hint="Does any of your steps count on a size?",
    )
    def test_lengths(self, subject, rng):
        for length, position in ((2, 0), (whole(rng, 16, 20), whole(rng, 5, 12))):
            x_BSD, honest = public._x(2, length, 3, rng), self.causal(2, length, rng)
            for hole in ((1, position, 1, position + 1), (0, 0, 0, length - 1), (0, 0, 1, length - 1)):
                self.every_kind(subject, x_BSD, position, honest, hole)


@grades("depends_on_batch")
class HiddenDependsOnBatch(public.TestDependsOnBatch):
    @criterion(
        3,
        "a sequence that looks at its own future is alone; one that looks at another's past is not",
        hint="Is it the time that counts here, or whose token it is?",
    )
    def test_own_future(self, subject, rng):
        for _ in range(2):
            rows, length, width, row = self.draw(rng)
            x_BSD = public._x(rows, length, width, rng)
            honest = public._mixture(rows, length, rng, lambda b, s, c, t: (c == b) & (t > s))
            self.every_kind(subject, x_BSD, row, honest, (row, length - 1, row - 1, 0))

    @criterion(
        3,
        "batches of two, and larger than any before",
        hint="Does any of your steps count on a size?",
    )
    def test_batches(self, subject, rng):
        for rows, row, other in (
            (2, 0, 1),
            (2, 1, 0),
            (11, whole(rng, 3, 7), 10),
            (11, whole(rng, 3, 7), 0),
        ):
            x_BSD, honest = public._x(rows, 3, 2, rng), self.alone(rows, 3, rng)
            self.every_kind(subject, x_BSD, row, honest, (row, 1, other, 2))
