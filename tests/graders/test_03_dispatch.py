"""Graders of notebook 03, dispatch."""

from __future__ import annotations

import torch

from graders import oracles, oracles_dispatch
from graders.common import expect_values, finite, named, seed, short, strided, together, whole
from graders.probes import call, vjp
from graders.probes.dispatch import moe_layer_parameters, moe_layer_step
from moe_course.grading.exercises.expect import (
    expect,
    expect_gradients,
    expect_index,
    expect_tensor,
    expect_tuple,
    expect_untouched,
    returned,
)
from moe_course.grading.exercises.rubric import criterion, grades

PLAN = ("idx_TK", "num_experts")
GATHER = ("x_TD", "order_N", "top_k")
FFN = ("x_ND", "counts_E", "w_gate_EDF", "w_up_EDF", "w_down_EFD")
COMBINE = ("y_ND", "order_N", "weights_TK")
STATE = ("router", "w_gate", "w_up", "w_down")
AXES = {"router": "DE", "w_gate": "EDF", "w_up": "EDF", "w_down": "EFD"}


def plan_of(tokens, experts, k, rng):
    """order_N of a random routing, and not its own inverse: that would lead back as it leads there."""
    for _ in range(1000):
        idx_TK = oracles_dispatch.routing(tokens, experts, k, rng)
        order_N, _ = oracles_dispatch.plan_dispatch(idx_TK, experts)
        if not torch.equal(order_N[order_N], torch.arange(tokens * k)):
            return order_N
    raise AssertionError("no such order")


@grades("plan_dispatch", hidden=2)
class TestPlanDispatch:
    @staticmethod
    def plan(subject, idx_TK, num_experts):
        given = named(PLAN, (idx_TK, num_experts))
        out = subject.run(call, "plan_dispatch", idx_TK, num_experts)
        order_N, counts_E = expect_tuple(returned(out, given), 2, given, "order_N, counts_E")
        return out, order_N, counts_E, given

    @staticmethod
    def sizes(rng):
        """T, E, K from small to large."""
        return (2, 3, 2), (whole(rng, 4, 6), 4, 1), (whole(rng, 7, 11), 5, 3)

    def compare(self, subject, idx_TK, num_experts):
        out, order_N, counts_E, given = self.plan(subject, idx_TK, num_experts)
        want_N, want_E = oracles_dispatch.plan_dispatch(idx_TK, num_experts)
        expect_index(order_N, want_N, "N", given, what="order_N")
        expect_index(counts_E, want_E, "E", given, what="counts_E")
        return out

    @criterion(
        2,
        "counts_E says how many assignments each expert has",
        hint="Over how many numbers do you count: one for each token, or one for each slot of each token?",
    )
    def test_counts(self, subject, rng):
        for tokens, experts, k in self.sizes(rng):
            idx_TK = oracles_dispatch.routing(tokens, experts, k, rng)
            _, _, counts_E, given = self.plan(subject, idx_TK, experts)
            expect_index(
                counts_E, oracles_dispatch.plan_dispatch(idx_TK, experts)[1], "E", given, what="counts_E"
            )

    @criterion(
        1,
        "an expert that nobody chose has the count 0, also the last one",
        hint="How long is your counts_E when nobody chose the last expert?",
    )
    def test_empty_experts(self, subject, rng):
        for experts, among in ((4, (0, 1, 2)), (6, (1, 4)), (5, (3,))):
            idx_TK = oracles_dispatch.routing(whole(rng, 3, 6), experts, min(2, len(among)), rng, among)
            _, _, counts_E, given = self.plan(subject, idx_TK, experts)
            expect_index(
                counts_E, oracles_dispatch.plan_dispatch(idx_TK, experts)[1], "E", given, what="counts_E"
            )

    @criterion(
        2,
        "order_N holds every assignment once, those of expert 0 first, then those of expert 1, …",
        hint="Which number has the assignment in slot k of token t, and whose expert do you sort by?",
    )
    def test_sorts(self, subject, rng):
        for tokens, experts, k in self.sizes(rng):
            idx_TK = oracles_dispatch.routing(tokens, experts, k, rng)
            _, order_N, _, given = self.plan(subject, idx_TK, experts)
            want_N, _ = oracles_dispatch.plan_dispatch(idx_TK, experts)
            if isinstance(order_N, torch.Tensor) and order_N.shape == want_N.shape:
                # Within an expert's group any order will do here: the next criterion asks for the right one.
                keys = order_N.long().clamp(0, len(want_N) - 1)
                expert_N = idx_TK.flatten()[keys]
                given |= {"the experts of order_N": expert_N}
                expect_index(expert_N, expert_N.sort().values, "N", given, what="the experts of order_N")
                got, want_N = order_N.sort().values, want_N.sort().values
                expect_index(got, want_N, "N", given, what="order_N, sorted by number")
            else:
                expect_index(order_N, want_N, "N", given, what="order_N")

    @criterion(
        2,
        "the sort is stable: within an expert's group, assignments keep their order",
        hint="Two assignments of one expert: what does your sort promise about which of them comes first?",
    )
    def test_stable(self, subject, rng):
        for tokens, experts, k in ((4, 2, 1), (whole(rng, 5, 9), 4, 3), (whole(rng, 150, 200), 3, 2)):
            idx_TK = oracles_dispatch.routing(tokens, experts, k, rng)
            _, order_N, _, given = self.plan(subject, idx_TK, experts)
            expect_index(
                order_N, oracles_dispatch.plan_dispatch(idx_TK, experts)[0], "N", given, what="order_N"
            )

    test_together = together(2, test_counts, test_empty_experts, test_sorts, test_stable)

    @criterion(
        1,
        "strided indices work, and are not edited; a single expert is fine",
        hint="Does your code need idx_TK to lie in memory row by row, and does it sort idx_TK itself?",
    )
    def test_other_inputs(self, subject, rng):
        idx_TK = oracles_dispatch.routing(whole(rng, 5, 7), 6, 3, rng)
        args = (strided(idx_TK), 6)
        expect_untouched(self.compare(subject, *args), args, PLAN)
        self.compare(subject, torch.zeros(4, 1, dtype=torch.int64), 1)

    def behaviour(self, subject):
        idx_TK = oracles_dispatch.routing(6, 5, 3, seed(301), among=(0, 1, 3))
        out = subject.run(call, "plan_dispatch", idx_TK, 5)
        (stored_TK,) = strided((oracles_dispatch.routing(4, 3, 2, seed(302)),))
        few_TK = torch.tensor([[1, 2]])
        return [
            _whole(out),
            out.inputs[0],
            _whole(subject.run(call, "plan_dispatch", stored_TK, 3)),
            _whole(subject.run(call, "plan_dispatch", oracles_dispatch.routing(60, 2, 1, seed(303)), 2)),
            _whole(subject.run(call, "plan_dispatch", few_TK, 4)),
        ]


@grades("gather_tokens", hidden=1)
class TestGatherTokens:
    @staticmethod
    def inputs(tokens, d_model, experts, k, rng, dtype=torch.float32):
        x_TD = torch.randn(tokens, d_model, generator=rng).to(dtype)
        return x_TD, plan_of(tokens, experts, k, rng), k

    def compare(self, subject, args, expect=expect_values):
        given = named(GATHER, args)
        out = subject.run(call, "gather_tokens", *args)
        want_ND = oracles_dispatch.gather_tokens(*args)
        expect(returned(out, given), want_ND, "ND", given, what="x_ND", rtol=0, atol=0)
        return out

    @criterion(
        1,
        "K = 1: the tokens, in the order of the plan",
        hint="Row 0 of x_ND: which token does order_N[0] name?",
    )
    def test_one_slot(self, subject, rng):
        x_TD, _, k = self.inputs(3, 2, 3, 1, rng)
        self.compare(subject, (x_TD, torch.tensor([1, 2, 0]), k))  # its inverse is another order
        self.compare(subject, self.inputs(whole(rng, 5, 9), 4, 3, 1, rng))

    @criterion(
        3,
        "K > 1: assignment n belongs to token n // K",
        hint="With K = 3, which token do the assignments 0, 1 and 2 belong to, and which one 3, 4 and 5?",
    )
    def test_several_slots(self, subject, rng):
        for tokens, d_model, experts, k in ((2, 3, 3, 2), (whole(rng, 5, 8), 2, 5, 3), (4, 3, 4, 4)):
            self.compare(subject, self.inputs(tokens, d_model, experts, k, rng))

    @criterion(
        1,
        "a token's gradient is the sum over its K rows",
        hint="Is x_ND still connected with x_TD when autograd goes back?",
    )
    def test_gradients(self, subject, rng):
        for tokens, d_model, experts, k in ((3, 2, 4, 2), (whole(rng, 4, 7), 3, 5, 3)):
            args = self.inputs(tokens, d_model, experts, k, rng)
            dx_ND = short(torch.randn(tokens * k, d_model, generator=rng))
            given = {**named(GATHER, args), "dx_ND": dx_ND}
            want = oracles.gradients(oracles_dispatch.gather_tokens, args, dx_ND, wrt=(0,))
            _, got = returned(subject.run(vjp, "gather_tokens", args, (dx_ND,), wrt=(0,)), given)
            expect_gradients(got, want, ("x_TD",), given)

    test_together = together(2, test_one_slot, test_several_slots, test_gradients)

    @criterion(
        1,
        "bfloat16, float64 and strided tokens work; no input is edited",
        hint="Which dtype has x_ND, and do you write into one of the arguments?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype in (torch.float64, torch.bfloat16):
            x_TD, order_N, k = self.inputs(whole(rng, 4, 6), 3, 5, 2, rng, dtype)
            args = (strided(x_TD), order_N, k)
            expect_untouched(self.compare(subject, args, expect_tensor), args, GATHER)

    def behaviour(self, subject):
        args = self.inputs(5, 3, 4, 3, seed(311))
        x_TD, order_N, k = self.inputs(4, 2, 3, 2, seed(312), torch.float64)
        out = subject.run(call, "gather_tokens", *args)
        dx_ND = torch.randn(15, 3, generator=seed(313))
        return [
            out,
            out.inputs,
            subject.run(call, "gather_tokens", *self.inputs(4, 2, 3, 1, seed(314))),
            subject.run(call, "gather_tokens", strided(1e60 * x_TD), order_N, k),
            subject.run(vjp, "gather_tokens", args, (dx_ND,), wrt=(0,)),
        ]


@grades("grouped_ffn", hidden=2)
class TestGroupedFfn:
    @staticmethod
    def inputs(d_model, d_ff, experts, rng, empty=(), dtype=torch.float32):
        """All arguments; the experts have different numbers of rows."""
        counts_E = oracles_dispatch.counts(experts, rng, empty)
        x_ND = torch.randn(int(counts_E.sum()), d_model, generator=rng)
        weights = oracles_dispatch.experts(experts, d_model, d_ff, rng)
        return x_ND.to(dtype), counts_E, *(w.to(dtype) for w in weights)

    def compare(self, subject, args, expect=expect_values, **tolerance):
        given = named(FFN, args)
        out = subject.run(call, "grouped_ffn", *args)
        want_ND = oracles_dispatch.grouped_ffn(*args)
        expect(returned(out, given), want_ND, "ND", given, what="y_ND", **tolerance)
        return out

    @criterion(
        1,
        "a single expert is the SwiGLU layer of notebook 01",
        hint="Which of the two products goes through silu?",
    )
    def test_one_expert(self, subject, rng):
        for d_model, d_ff in ((2, 3), (whole(rng, 4, 6), 3)):
            self.compare(subject, self.inputs(d_model, d_ff, 1, rng))

    @criterion(
        3,
        "the first counts_E[0] rows go through expert 0, the next counts_E[1] through expert 1, …",
        hint="Where does the group of expert e begin, and where does it end?",
    )
    def test_groups(self, subject, rng):
        for d_model, d_ff, experts in ((2, 3, 2), (3, 2, 4), (whole(rng, 3, 5), 6, whole(rng, 5, 7))):
            self.compare(subject, self.inputs(d_model, d_ff, experts, rng))

    @criterion(
        2,
        "experts without rows are skipped, and no expert after them is",
        hint="An expert with no rows: which weights does the group after it meet?",
    )
    def test_empty_experts(self, subject, rng):
        for experts, empty in ((4, (1,)), (5, (0, 3)), (6, (2, 3, 5)), (3, (0, 2))):
            self.compare(subject, self.inputs(3, 4, experts, rng, empty))

    @criterion(
        2,
        "gradients reach the rows and all three weights; an expert without rows gets zeros",
        hint="Can autograd follow every row from y_ND back to its expert's weights?",
    )
    def test_gradients(self, subject, rng):
        wrt = (0, 2, 3, 4)
        for sizes, empty in (((2, 3, 3), ()), ((3, whole(rng, 4, 6), 5), (1, 4))):
            args = self.inputs(*sizes, rng, empty)
            dy_ND = short(torch.randn(*args[0].shape, generator=rng))
            given = {**named(FFN, args), "dy_ND": dy_ND}
            want = oracles.gradients(oracles_dispatch.grouped_ffn, args, dy_ND, wrt)
            _, got = returned(subject.run(vjp, "grouped_ffn", args, (dy_ND,), wrt), given)
            expect_gradients(got, want, [FFN[i] for i in wrt], given)

    test_together = together(2, test_one_expert, test_groups, test_empty_experts, test_gradients)

    @criterion(
        1,
        "bfloat16, float64 and strided inputs work; no input is edited",
        hint="Which dtype does your result have, and do you write into x_ND?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype, rtol in ((torch.float64, 1e-9), (torch.float32, 1e-4), (torch.bfloat16, 6e-2)):
            args = strided(self.inputs(3, 5, whole(rng, 3, 5), rng, (1,), dtype))
            atol = rtol if dtype == torch.bfloat16 else rtol / 100
            out = self.compare(subject, args, expect_tensor, rtol=rtol, atol=atol)
            expect_untouched(out, args, FFN)

    def behaviour(self, subject):
        args = self.inputs(3, 4, 5, seed(321), (2,))
        x_ND, counts_E, *weights = self.inputs(2, 3, 4, seed(322), dtype=torch.float64)
        huge = (1e20 * w for w in weights)  # cubed, more than float32 can hold
        out = subject.run(call, "grouped_ffn", *args)
        dy_ND = torch.randn(len(x_ND), 2, generator=seed(323))
        half = subject.run(call, "grouped_ffn", x_ND.bfloat16(), counts_E, *(w.bfloat16() for w in weights))
        return [
            out,
            out.inputs[0],
            subject.run(call, "grouped_ffn", *self.inputs(2, 3, 3, seed(324))),
            subject.run(call, "grouped_ffn", *strided((x_ND, counts_E, *weights))),
            finite(subject.run(call, "grouped_ffn", x_ND, counts_E, *huge)),
            half.error or str(getattr(half.value, "dtype", None)),
            subject.run(vjp, "grouped_ffn", (x_ND, counts_E, *weights), (dy_ND,), wrt=(0, 2, 3, 4)),
        ]


@grades("combine", hidden=2)
class TestCombine:
    @staticmethod
    def inputs(tokens, d_model, experts, k, rng, dtype=torch.float32):
        """All arguments; the weights of a token sum to anything."""
        order_N = plan_of(tokens, experts, k, rng)
        y_ND = torch.randn(tokens * k, d_model, generator=rng)
        weights_TK = torch.rand(tokens, k, generator=rng) + 0.2
        return y_ND.to(dtype), order_N, weights_TK.to(dtype)

    def unweighted(self, *args):
        y_ND, order_N, weights_TK = self.inputs(*args)
        return y_ND, order_N, torch.ones_like(weights_TK)

    def compare(self, subject, args, expect=expect_values, **tolerance):
        given = named(COMBINE, args)
        out = subject.run(call, "combine", *args)
        want_TD = oracles_dispatch.combine(*args)
        expect(returned(out, given), want_TD, "TD", given, what="y_TD", **tolerance)
        return out

    @criterion(
        2,
        "K = 1, weights 1: every row goes back to its token",
        hint="Does order_N[0] say where row 0 of y_ND goes, or which row comes to row 0 of y_TD?",
    )
    def test_returns(self, subject, rng):
        for tokens, d_model, experts in ((4, 2, 3), (whole(rng, 7, 11), 3, 4)):
            self.compare(subject, self.unweighted(tokens, d_model, experts, 1, rng))

    @criterion(
        2,
        "K > 1, weights 1: the rows of a token are added up",
        hint="A token's second row arrives: what happens to its first one?",
    )
    def test_sums(self, subject, rng):
        for tokens, d_model, experts, k in ((2, 3, 3, 2), (whole(rng, 5, 8), 2, 6, 3)):
            self.compare(subject, self.unweighted(tokens, d_model, experts, k, rng))

    @criterion(
        2,
        "each row counts with the weight of its own assignment",
        hint="weights_TK stands in the order of the tokens. In which order stands y_ND?",
    )
    def test_weights(self, subject, rng):
        for tokens, d_model, experts, k in ((3, 2, 3, 1), (2, 3, 4, 2), (whole(rng, 5, 8), 4, 5, 3)):
            self.compare(subject, self.inputs(tokens, d_model, experts, k, rng))

    @criterion(
        1,
        "gradients reach the rows and the weights",
        hint="How does the router learn, if the weights are left out of the graph?",
    )
    def test_gradients(self, subject, rng):
        for tokens, d_model, experts, k in ((2, 3, 3, 2), (whole(rng, 4, 6), 2, 5, 3)):
            args = self.inputs(tokens, d_model, experts, k, rng)
            dy_TD = short(torch.randn(tokens, d_model, generator=rng))
            given = {**named(COMBINE, args), "dy_TD": dy_TD}
            want = oracles.gradients(oracles_dispatch.combine, args, dy_TD, wrt=(0, 2))
            _, got = returned(subject.run(vjp, "combine", args, (dy_TD,), wrt=(0, 2)), given)
            expect_gradients(got, want, ("y_ND", "weights_TK"), given)

    test_together = together(3, test_returns, test_sums, test_weights, test_gradients)

    @criterion(
        1,
        "bfloat16 rows come back as bfloat16, also when the weights are float32",
        hint="Which dtype has bfloat16 times float32, and which dtype do the rows have?",
    )
    def test_mixed_dtypes(self, subject, rng):
        y_ND, order_N, weights_TK = self.inputs(whole(rng, 4, 6), 3, 5, 2, rng, torch.bfloat16)
        for dtype in (torch.bfloat16, torch.float32):
            self.compare(subject, (y_ND, order_N, weights_TK.to(dtype)), expect_tensor, rtol=4e-2, atol=4e-2)

    @criterion(
        1,
        "float64 and strided inputs work; no input is edited",
        hint="Do you multiply y_ND in place, or make a new tensor?",
    )
    def test_other_inputs(self, subject, rng):
        for dtype, rtol in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
            args = strided(self.inputs(whole(rng, 4, 6), 3, 5, 2, rng, dtype))
            out = self.compare(subject, args, expect_tensor, rtol=rtol, atol=rtol / 100)
            expect_untouched(out, args, COMBINE)

    def behaviour(self, subject):
        args = self.inputs(5, 3, 4, 3, seed(331))
        y_ND, order_N, weights_TK = self.inputs(3, 2, 4, 2, seed(332), torch.float64)
        out = subject.run(call, "combine", *args)
        dy_TD = torch.randn(5, 3, generator=seed(333))
        half = subject.run(call, "combine", y_ND.bfloat16(), order_N, weights_TK.float())
        return [
            out,
            out.inputs[0],
            subject.run(call, "combine", *self.unweighted(4, 2, 3, 1, seed(334))),
            subject.run(call, "combine", *strided((1e60 * y_ND, order_N, weights_TK))),
            half.error or str(getattr(half.value, "dtype", None)),
            subject.run(vjp, "combine", args, (dy_TD,), wrt=(0, 2)),
        ]


@grades("MoELayer", hidden=4)
class TestMoELayer:
    names = ("d_model", "d_ff", "num_experts", "top_k")

    @staticmethod
    def state(d_model, d_ff, experts, rng, dtype=torch.float32):
        """Parameters by name, in the order of the oracle's arguments."""
        router_DE = 2 * torch.randn(d_model, experts, generator=rng) / d_model**0.5
        tensors = (router_DE, *oracles_dispatch.experts(experts, d_model, d_ff, rng))
        return {name: tensor.to(dtype) for name, tensor in zip(STATE, tensors, strict=True)}

    def case(self, batch, length, d_model, d_ff, experts, k, rng, **options):
        """Options of the constructor, a state to load, and tokens whose routing hangs on no rounding."""
        state = self.state(d_model, d_ff, experts, rng)
        x_BSD = oracles_dispatch.clear_tokens(batch, length, state["router"], rng)
        return {**named(self.names, (d_model, d_ff, experts, k)), **options}, state, x_BSD

    @staticmethod
    def step(subject, options, state, x_BSD, dy_BSD=None):
        """(outcome, y_BSD, idx_TK, given) of one step."""
        given = {"MoELayer": options, **state, "x_BSD": x_BSD}
        out = subject.run(moe_layer_step, options, state, x_BSD, dy_BSD)
        report = returned(out, given)
        y_BSD, idx_TK = expect_tuple(report["result"], 2, given, "y_BSD, idx_TK")
        return out, y_BSD, idx_TK, given

    def compare(self, subject, options, state, x_BSD, any_shape=True, expect=expect_values, **tolerance):
        out, y_BSD, _, given = self.step(subject, options, state, x_BSD)
        k, renormalize = options["top_k"], options.get("renormalize", True)
        want_BSD = oracles_dispatch.moe_layer(x_BSD, *state.values(), k, renormalize)
        if any_shape:
            y_BSD = self.shaped(y_BSD, want_BSD)
        expect(y_BSD, want_BSD, "BSD", given, what="y_BSD", **tolerance)
        return out

    @staticmethod
    def shaped(y_BSD, want_BSD):
        """The output in the shape wanted: a criterion of its own asks for the shape, the others for the values."""
        if isinstance(y_BSD, torch.Tensor) and y_BSD.numel() == want_BSD.numel():
            return y_BSD.reshape(want_BSD.shape)
        return y_BSD

    @criterion(
        2,
        "its parameters are router (D, E), w_gate (E, D, F), w_up (E, D, F) and w_down (E, F, D), all trained",
        hint="What makes an attribute of a module a parameter, and where does D stand in each of the four?",
    )
    def test_parameters(self, subject, rng):
        sizes = (whole(rng, 5, 8), 3, whole(rng, 9, 11), 2)
        options = named(self.names, sizes)
        size = named("D F E K", sizes)
        report = returned(subject.run(moe_layer_parameters, options), options)
        for name, axes in AXES.items():
            expect(name in report["first"], f"the layer has no parameter called {name}", options)
            got, want = tuple(report["first"][name].shape), tuple(size[axis] for axis in axes)
            letters = ", ".join(axes)
            expect(got == want, f"{name} should have shape ({letters}) = {want}, not {got}", options)
            expect(report["trained"][name], f"{name} does not ask for a gradient", options)

    @criterion(
        2,
        "y_BSD: route every token, run its experts, add their weighted outputs, restore the shape",
        hint="Do the tokens come out in the order and the shape in which they went in?",
    )
    def test_output(self, subject, rng):
        for sizes in ((1, 2, 2, 3, 3, 2), (2, 3, 4, 3, 5, 2), (whole(rng, 3, 4), 2, 5, 4, 6, 3)):
            self.compare(subject, *self.case(*sizes, rng), any_shape=False)

    @criterion(
        1,
        "idx_TK names the experts of each of the T = B·S tokens, one sequence after the other",
        hint="How many rows does idx_TK have, and whose experts stand in row S?",
    )
    def test_indices(self, subject, rng):
        options, state, x_BSD = self.case(2, whole(rng, 3, 5), 4, 3, 6, 3, rng)
        _, _, idx_TK, given = self.step(subject, options, state, x_BSD)
        want_TK = oracles_dispatch.chosen_experts(x_BSD, state["router"], options["top_k"])
        expect_index(idx_TK, want_TK, "TK", given, what="idx_TK", any_order=True)

    @criterion(
        1,
        "renormalize: by default the K weights sum to 1; with False they are the probabilities",
        hint="What does your layer do with its argument `renormalize`?",
    )
    def test_renormalize(self, subject, rng):
        for options in ({}, {"renormalize": False}, {"renormalize": True}):
            self.compare(subject, *self.case(2, 3, 4, 3, whole(rng, 5, 6), 2, rng, **options))

    @criterion(
        1,
        "the ends: one token, one expert, k = 1, k = E",
        hint="Which dimension of size 1 gets lost on the way, and is k = E something special for your code?",
    )
    def test_ends(self, subject, rng):
        for sizes in ((1, 1, 3, 4, 5, 2), (2, 3, 4, 2, 1, 1), (1, 4, 3, 2, 4, 1), (3, 2, 2, 3, 4, 4)):
            self.compare(subject, *self.case(*sizes, rng, renormalize=False), any_shape=False)

    @criterion(
        2,
        "gradients reach the tokens and each parameter, the router too",
        hint="Which way does the gradient take from y_BSD to the router?",
    )
    def test_gradients(self, subject, rng):
        for sizes, renormalize in (((1, 3, 2, 3, 4, 2), True), ((2, whole(rng, 3, 4), 3, 4, 5, 3), False)):
            options, state, x_BSD = self.case(*sizes, rng, renormalize=renormalize)
            dy_BSD = short(torch.randn(*x_BSD.shape, generator=rng))
            out, *_, given = self.step(subject, options, state, x_BSD, dy_BSD)
            args = (x_BSD, *state.values(), options["top_k"], renormalize)
            want = oracles.gradients(oracles_dispatch.moe_layer, args, dy_BSD, wrt=(0, 1, 2, 3, 4))
            names = ("x_BSD", *(f"{name}_{axes}" for name, axes in AXES.items()))
            got = (out.value["dx"], *(out.value["gradients"].get(name) for name in STATE))
            expect_gradients(got, want, names, {**given, "dy_BSD": dy_BSD})

    @criterion(
        1,
        "two layers share nothing",
        hint="Whose parameters does a second layer have: its own, or those of the class?",
    )
    def test_own_parameters(self, subject, rng):
        options, state, _ = self.case(2, 3, 4, 3, whole(rng, 5, 6), 2, rng)
        report = returned(subject.run(moe_layer_parameters, options, state), options)
        for name in STATE:
            shared = torch.equal(report["first"][name], report["second"].get(name, torch.empty(0)))
            expect(not shared, f"loading {name} into one layer changed it in another", options)

    test_together = together(
        5,
        test_parameters,
        test_output,
        test_indices,
        test_renormalize,
        test_ends,
        test_gradients,
        test_own_parameters,
    )

    @criterion(
        1,
        "bfloat16 comes back as bfloat16, but the router decides in float32",
        hint="Two logits differ by 0.001. In which dtype can your router still tell them apart?",
    )
    def test_float32_router(self, subject, rng):
        options, state, _ = self.case(1, 1, 8, 3, 6, 2, rng)
        half = {name: tensor.bfloat16() for name, tensor in state.items()}
        x_BSD = oracles_dispatch.close_calls(40, half["router"], 2, rng)[None]
        _, y_BSD, idx_TK, given = self.step(subject, options, half, x_BSD)
        want_TK = oracles_dispatch.chosen_experts(x_BSD, half["router"], 2)
        expect_index(idx_TK, want_TK, "TK", given, what="idx_TK", any_order=True)
        want_BSD = oracles_dispatch.moe_layer(x_BSD, *half.values(), 2, True)
        y_BSD = self.shaped(y_BSD, want_BSD)
        expect_tensor(y_BSD, want_BSD, "BSD", given, what="y_BSD", rtol=0.1, atol=0.1)

    @criterion(
        1,
        "float64 stays float64, strided tokens work, and a call edits no input",
        hint="Do you need x_BSD to lie in memory row by row, and which dtype does the result have?",
    )
    def test_other_inputs(self, subject, rng):
        options, state, x_BSD = self.case(2, 3, 4, 3, whole(rng, 5, 6), 2, rng)
        double = {name: tensor.double() for name, tensor in state.items()}
        x_BSD = strided(x_BSD.double())
        out = self.compare(subject, options, double, x_BSD, expect=expect_tensor, rtol=1e-5)
        expect_untouched(out, (x_BSD,), ("x_BSD",))

    def behaviour(self, subject):
        options, state, x_BSD = self.case(2, 3, 4, 3, 5, 2, seed(341))
        dy_BSD = torch.randn(2, 3, 4, generator=seed(342))
        double = {name: tensor.double() for name, tensor in state.items()}
        half = {name: tensor.bfloat16() for name, tensor in state.items()}
        close_BSD = oracles_dispatch.close_calls(24, half["router"], 2, seed(343))[None]
        fresh = subject.run(moe_layer_parameters, options)
        twins = subject.run(moe_layer_parameters, options, state)
        near = subject.run(moe_layer_step, options, half, close_BSD)
        out = subject.run(moe_layer_step, options, state, x_BSD, dy_BSD)
        return [
            out,
            out.inputs,
            subject.run(moe_layer_step, {**options, "renormalize": False}, state, x_BSD),
            subject.run(moe_layer_step, {**options, "renormalize": True}, state, x_BSD),
            subject.run(moe_layer_step, options, double, *strided((x_BSD.double(),))),
            subject.run(moe_layer_step, *self.case(1, 1, 2, 3, 4, 1, seed(344))),
            fresh.error or _layout(fresh.value),
            twins.error or _shared(twins.value),
            near.error or _half(near.value),
        ]


def _whole(out):
    """Two results of a call, whole numbers as int64: which kind of integer they are is the learner's choice."""
    if not isinstance(out.value, tuple | list):
        return out
    return [
        part.long() if isinstance(part, torch.Tensor) and not part.is_floating_point() else part
        for part in out.value
    ]


def _layout(report):
    """Names and shapes of the parameters, and whether they are trained; none of the drawn numbers."""
    return [
        [name, list(tensor.shape), report["trained"][name]]
        for name, tensor in sorted(report["first"].items())
    ]


def _shared(report):
    """The parameters that changed in the second layer when a state was loaded into the first."""
    return [name for name in STATE if torch.equal(report["first"][name], report["second"][name])]


def _half(report):
    """Dtype of the output, where digits are too few to compare, and the experts chosen."""
    result = report["result"]
    if not isinstance(result, tuple | list) or len(result) != 2:
        return "no pair"
    y_BSD, idx_TK = result
    order_TK = idx_TK.sort(-1).values.long() if isinstance(idx_TK, torch.Tensor) else idx_TK
    return [str(getattr(y_BSD, "dtype", None)), order_TK]
