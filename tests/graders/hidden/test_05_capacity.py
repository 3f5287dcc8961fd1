"""Hidden criteria of notebook 05, capacity."""

from __future__ import annotations

import torch

from graders import oracles
from graders import oracles_capacity as capacity
from graders import test_05_capacity as public
from graders.common import named, whole
from graders.probes import call, vjp
from moe_course.grading.exercises.expect import (
    expect_gradients,
    expect_index,
    expect_number,
    expect_tensor,
    expect_tuple,
    returned,
)
from moe_course.grading.exercises.rubric import criterion, grades


@grades("expert_capacity")
class HiddenExpertCapacity(public.TestExpertCapacity):
    @criterion(
        1,
        "batches of millions of tokens",
        hint="Which whole numbers can your intermediate results hold exactly?",
    )
    def test_large(self, subject, rng):
        for experts, k, factor in ((64, 6, 1.0), (256, 8, 1.25), (128, 4, 2.0)):
            self.compare(subject, 2**24 + 8 * whole(rng, 1, 10**6) + 1, experts, k, factor)

    @criterion(
        1,
        "twice the tokens over twice the experts, or K and the factor exchanged: the capacity is the same",
        hint="Which of the four numbers enter only through one product?",
    )
    def test_ratios(self, subject, rng):
        tokens, experts, k = whole(rng, 20, 60), whole(rng, 4, 9), whole(rng, 2, 3)
        for sizes in (
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
        1,
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
            expect_index(got, want_TK, "TK", given, what="pos_TK")

    @criterion(
        1,
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
    @criterion(
        1,
        "shuffled tokens get shuffled places: only the weights decide",
        hint="If the batch came in another order, would anybody's place in the queue change?",
    )
    def test_shuffled(self, subject, rng):
        idx_TK, weights_TK, experts = self.inputs(whole(rng, 9, 14), whole(rng, 3, 5), 3, rng)
        order_T = torch.randperm(len(idx_TK), generator=rng)
        want_TK = capacity.batch_priority(idx_TK, weights_TK)
        for order, want in ((slice(None), want_TK), (order_T, want_TK[order_T])):
            given = named(self.names, (idx_TK[order], weights_TK[order], experts))
            got = returned(subject.run(call, "batch_priority_positions", *given.values()), given)
            expect_index(got, want, "TK", given, what="pos_TK")

    @criterion(
        1,
        "weights that are not probabilities, and one expert for all",
        hint="Does the order of the weights count, or their size?",
    )
    def test_any_weights(self, subject, rng):
        idx_TK, weights_TK, experts = self.inputs(whole(rng, 8, 12), 4, 2, rng)
        for other_TK in (1e4 * weights_TK, 1e-4 * weights_TK, weights_TK - 3):
            self.compare(subject, idx_TK, other_TK, experts)
        self.compare(subject, torch.zeros_like(idx_TK[:, :1]), weights_TK[:, :1], 1)


@grades("fill_buffers")
class HiddenFillBuffers(public.TestFillBuffers):
    @criterion(
        1,
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
            self.compare(subject, (*args[:4], room))

    @criterion(
        1,
        "what is dropped has no gradient, and an assignment's gradient is that of its slot",
        hint="If a dropped token's row changed, which number in the buffers would change?",
    )
    def test_whose_gradient(self, subject, rng):
        args = self.inputs(whole(rng, 8, 11), 3, 3, 1, rng, dtype=torch.float64)
        dbuf_ECD = torch.randn(3, args[4], 3, generator=rng).double()
        given = {**named(self.names, args), "dbuf_ECD": dbuf_ECD}
        want = oracles.gradients(capacity.fill_buffers, args, dbuf_ECD, wrt=(0,))
        _, got = returned(subject.run(vjp, "fill_buffers", args, (dbuf_ECD,), wrt=(0,)), given)
        expect_gradients(got, want, ("x_TD",), given)


@grades("read_buffers")
class HiddenReadBuffers(public.TestReadBuffers):
    @criterion(
        1,
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
            self.compare(subject, (buf_ECD[:, :room].clone(), *rest))

    @criterion(
        1,
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
            expect_tensor(got, want, "TD", given, what="y_TD", atol=1e-5)


@grades("drop_and_waste")
class HiddenDropAndWaste(public.TestDropAndWaste):
    def compare(self, subject, idx_TK, experts, room):
        given = named(self.names, (idx_TK, experts, room))
        pair = expect_tuple(
            returned(subject.run(call, "drop_and_waste", idx_TK, experts, room), given), 2, given
        )
        want = capacity.drop_and_waste(idx_TK, experts, room)
        for mine, right, what in zip(pair, want, ("dropped", "empty"), strict=True):
            expect_number(mine, right, given, what=f"the share {what}")

    @criterion(
        1,
        "everybody fits exactly, nobody is dropped, one expert takes all",
        hint="What are the two shares when every expert is chosen exactly C times?",
    )
    def test_extremes(self, subject, rng):
        experts, room = whole(rng, 3, 6), whole(rng, 2, 5)
        even_TK = torch.arange(experts).repeat(room)[:, None]
        self.compare(subject, even_TK, experts, room)
        self.compare(subject, even_TK, experts, room + whole(rng, 1, 9))
        self.compare(subject, torch.ones(whole(rng, 9, 20), 1, dtype=torch.long), experts, room)

    @criterion(
        1,
        "a larger batch at every capacity, with renamed experts",
        hint="Does it matter which expert is crowded, and who is dropped?",
    )
    def test_every_capacity(self, subject, rng):
        experts = whole(rng, 6, 12)
        idx_TK = torch.randperm(experts, generator=rng)[capacity.choices(whole(rng, 50, 90), experts, 3, rng)]
        for room in (1, 5, 12, 25, 40, 100):
            self.compare(subject, idx_TK, experts, room)


@grades("depends_on_future")
class HiddenDependsOnFuture(public.TestDependsOnFuture):
    @criterion(
        1,
        "sequences that see each other's past leak no future; holes between sequences that do, leak",
        hint="Which tokens are later ones when there are several sequences?",
    )
    def test_across_sequences(self, subject, rng):
        for _ in range(2):
            rows, length, width, position = self.draw(rng, rows=3)
            x_BSD = public._x(rows, length, width, rng)
            honest = public._mixture(rows, length, rng, lambda b, s, c, t: (t <= s) & (b < 9) & (c < 9))
            hole = public._one(honest, (2, position, 0, position + 1))
            self.both(subject, x_BSD, position, honest, hole)

    @criterion(
        1,
        "two tokens, and sequences longer than any before",
        hint="Does any of your steps count on a size?",
    )
    def test_lengths(self, subject, rng):
        for length, position in ((2, 0), (whole(rng, 16, 20), whole(rng, 5, 12))):
            x_BSD, honest = public._x(2, length, 3, rng), self.causal(2, length, rng)
            for hole in ((1, position, 1, position + 1), (0, 0, 0, length - 1)):
                self.both(subject, x_BSD, position, honest, public._one(honest, hole))


@grades("depends_on_batch")
class HiddenDependsOnBatch(public.TestDependsOnBatch):
    @criterion(
        1,
        "a sequence that looks at its own future is alone; one that looks at another's past is not",
        hint="Is it the time that counts here, or whose token it is?",
    )
    def test_own_future(self, subject, rng):
        for _ in range(2):
            rows, length, width, row = self.draw(rng)
            x_BSD = public._x(rows, length, width, rng)
            honest = public._mixture(rows, length, rng, lambda b, s, c, t: (c == b) & (t > s))
            hole = public._one(honest, (row, length - 1, row - 1, 0))
            self.both(subject, x_BSD, row, honest, hole)

    @criterion(
        1,
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
            self.both(subject, x_BSD, row, honest, public._one(honest, (row, 1, other, 2)))
