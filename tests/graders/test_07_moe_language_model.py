"""Graders of notebook 07, a mini MoE language model."""

from __future__ import annotations

import math
import random

import torch

from graders import oracles_lm as lm
from graders.common import expect_values, named, seed, whole
from graders.probes import call, vjp
from graders.probes.lm import block_runs, block_with_module, draws, objective_of_lists, train_steps
from graders.stand_ins import run
from graders.values import expect_dtype, expect_type, expect_value, number
from moe_course.grading.exercises.expect import (
    CheckFailed,
    expect,
    expect_something,
    expect_tensor,
    expect_tuple,
    expect_untouched,
    returned,
)
from moe_course.grading.exercises.rubric import criterion, grades


def between(rng, low, high):
    """A number from low to high with three decimals, so that a report can show it in full."""
    return round(low + (high - low) * float(torch.rand((), generator=rng)), 3)


OBJECTIVE = "ce lb_losses_L z_losses_L lb_weight z_weight"


@grades("moe_objective", hidden=5)
class TestMoeObjective:
    @staticmethod
    def case(layers, rng, dtype=torch.float32):
        ce = 2 + torch.rand((), generator=rng)
        lb_losses_L, z_losses_L = (1 + 4 * torch.rand(layers, generator=rng) for _ in range(2))
        weights = between(rng, 0.1, 0.4), between(rng, 0.5, 0.9)
        return ce.to(dtype), lb_losses_L.to(dtype), z_losses_L.to(dtype), *weights

    @staticmethod
    def want(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
        total = ce.double()
        for losses_L, factor in [(lb_losses_L, lb_weight), (z_losses_L, z_weight)]:
            for loss in losses_L:
                total = total + factor * loss.double() / len(losses_L)
        return total.to(ce.dtype)

    @staticmethod
    def listed(args):
        """The losses as lists of 0-dim tensors, as a model hands them over."""
        return args[0], list(args[1].unbind()), list(args[2].unbind()), *args[3:]

    def compare(self, subject, args, rtol=1e-5):
        given = named(OBJECTIVE, args)
        out = subject.run(call, "moe_objective", *args)
        want = self.want(*args)
        expect_values(returned(out, given), want, "", given, what="the objective", rtol=rtol)
        return out

    @criterion(
        2,
        "one layer: the cross-entropy plus each loss times its own weight",
        hint="Which weight belongs to which loss, and does the cross-entropy have one?",
    )
    def test_weights(self, subject, rng):
        for _ in range(3):
            self.compare(subject, self.listed(self.case(1, rng)))

    @criterion(
        2,
        "several layers: the mean of their losses",
        hint="Should the weight mean something else in a model of twice the depth?",
    )
    def test_mean(self, subject, rng):
        for layers in (2, whole(rng, 3, 5), 7):
            self.compare(subject, self.listed(self.case(layers, rng)))

    @criterion(
        2,
        "no MoE layer: the cross-entropy itself",
        hint="What is the mean of an empty list, and what should a dense model add?",
    )
    def test_dense(self, subject, rng):
        ce, lb_losses_L, z_losses_L, *weights = self.case(3, rng)
        for losses in (([], []), (list(lb_losses_L.unbind()), []), ([], list(z_losses_L.unbind()))):
            self.compare(subject, (ce, *losses, *weights))

    @criterion(
        1,
        "the losses may come as one tensor, an empty one too; the objective has their dtype",
        hint="What do len(), iteration and mean() do with a list, and what with a tensor?",
    )
    def test_tensor(self, subject, rng):
        args = self.case(whole(rng, 2, 5), rng)
        out = self.compare(subject, args)
        expect_dtype(out.value, torch.float32, named(OBJECTIVE, args), what="the objective")
        ce, _, _, *weights = self.case(2, rng)
        self.compare(subject, (ce, torch.zeros(0), torch.zeros(0), *weights))
        for args in (self.case(4, rng, torch.float64), self.listed(self.case(3, rng, torch.float64))):
            out = self.compare(subject, args, rtol=1e-9)
            expect_dtype(out.value, torch.float64, named(OBJECTIVE, args), what="the objective")

    @criterion(
        2,
        "gradients reach the cross-entropy and the loss of every layer",
        hint="Does a loss that has become a Python number still teach the router?",
    )
    def test_gradients(self, subject, rng):
        args = self.case(whole(rng, 3, 5), rng)
        given = named(OBJECTIVE, args)
        report = returned(subject.run(objective_of_lists, *args), given)
        _, dce, dlb, dz = expect_tuple(report, 4)
        layers = len(args[1])
        for got, want, what in (
            ([dce], 1.0, "the cross-entropy"),
            (dlb, args[3] / layers, "a balancing loss"),
            (dz, args[4] / layers, "a z-loss"),
        ):
            for grad in got:
                expect(grad is not None, f"no gradient reaches {what}", given)
                expect_tensor(grad, torch.tensor(want), "", given, what=f"the gradient of {what}")

    @criterion(
        1,
        "the cross-entropy that is reported stays as it was",
        hint="After `ce += …`, what does the learning curve show?",
    )
    def test_untouched(self, subject, rng):
        for layers in (1, whole(rng, 2, 4)):
            args = self.listed(self.case(layers, rng))
            out = self.compare(subject, args)
            expect_untouched(out, args[:1] + out.inputs[1:], OBJECTIVE.split())

    def behaviour(self, subject):
        one, three = self.case(1, seed(701)), self.case(3, seed(702))
        out = subject.run(call, "moe_objective", *self.listed(three))
        return [
            subject.run(call, "moe_objective", *self.listed(one)),
            out,
            out.inputs[:1],
            subject.run(call, "moe_objective", *three),
            subject.run(call, "moe_objective", three[0], [], [], 0.5, 0.5),
            subject.run(call, "moe_objective", three[0], [], list(three[2].unbind()), 0.5, 0.5),
            subject.run(call, "moe_objective", three[0], torch.zeros(0), torch.zeros(0), 0.5, 0.5),
            subject.run(objective_of_lists, *three),
            subject.run(call, "moe_objective", *self.case(3, seed(703), torch.float64)),
            subject.run(vjp, "moe_objective", three, (torch.tensor(1.0),), wrt=(0, 1, 2)),
        ]


RATE = "step peak warmup total floor"


@grades("learning_rate", hidden=6)
class TestLearningRate:
    def compare(self, subject, *args):
        given = named(RATE, args)
        got = returned(subject.run(call, "learning_rate", *args), given)
        want = lm.learning_rate(*args)
        what = f"the learning rate of step {args[0]}"
        expect_value(got, want, given, what=what, atol=1e-6 * args[1])
        return got, given

    @staticmethod
    def plan(rng):
        """peak, warmup, total, floor: a total that is no round multiple of the warm-up."""
        warmup = whole(rng, 4, 9)
        return between(rng, 0.5, 0.9), warmup, 3 * warmup + whole(rng, 7, 12), between(rng, 0.05, 0.2)

    @criterion(
        2,
        "warm-up: in equal steps up from peak / warmup",
        hint="What is the learning rate of the very first update, step 0: zero?",
    )
    def test_warmup(self, subject, rng):
        for step in range(3):
            self.compare(subject, step, 1.0, 4, 20, 0.0)
        peak, warmup, total, floor = self.plan(rng)
        for step in range(warmup - 1):
            self.compare(subject, step, peak, warmup, total, floor)

    @criterion(
        2,
        "the last step of the warm-up and the one after it have the peak",
        hint="At step warmup − 1, and at step warmup: how far has the cosine turned?",
    )
    def test_peak(self, subject, rng):
        peak, warmup, total, floor = self.plan(rng)
        for step in (warmup - 1, warmup):
            self.compare(subject, step, peak, warmup, total, floor)

    @criterion(
        2,
        "then half a cosine from the peak down to the floor",
        hint="From 1 to −1 the cosine falls; what stretches that to peak and floor?",
    )
    def test_cosine(self, subject, rng):
        for step in (6, 8, 10):
            self.compare(subject, step, 1.0, 4, 13, 0.0)
        peak, warmup, total, floor = self.plan(rng)
        for step in range(warmup + 1, total - 1):
            self.compare(subject, step, peak, warmup, total, floor)

    @criterion(
        2,
        "the floor is reached at step total − 1, and kept",
        hint="How many updates does a run of `total` steps make, and what is the number of the last?",
    )
    def test_floor(self, subject, rng):
        peak, warmup, total, floor = self.plan(rng)
        for step in (total - 1, total, total + 1, total + whole(rng, 3, 9), 3 * total):
            self.compare(subject, step, peak, warmup, total, floor)

    @criterion(2, "no warm-up: the first step has the peak", hint="What do you divide by when warmup is 0?")
    def test_no_warmup(self, subject, rng):
        peak, _, total, floor = self.plan(rng)
        for step in (0, 1, total - 2, total - 1, total):
            self.compare(subject, step, peak, 0, total, floor)

    @criterion(1, "a Python number", hint="An optimizer takes a float. Which type do you return?")
    def test_python_float(self, subject, rng):
        peak, warmup, total, floor = self.plan(rng)
        for step in (warmup - 2, warmup + 2, total + 2):
            got, given = self.compare(subject, step, peak, warmup, total, floor)
            expect(type(got) in (int, float), f"return a float, not a {type(got).__name__}", given)

    def behaviour(self, subject):
        steps = (0, 1, 3, 4, 5, 8, 11, 12, 13, 14, 40)
        plans = [(step, 0.8, 5, 13, 0.1) for step in steps] + [
            (step, 0.8, 0, 6, 0.1) for step in (0, 1, 5, 6)
        ]
        return [subject.run(call, "learning_rate", *plan) for plan in plans]


def rms_normed(x, axes=-1):
    """x over the root of its mean square, gains of 1."""
    return x / (x.double() ** 2).mean(axes, keepdim=True).sqrt().to(x.dtype)


def near(a, b, tolerance=2e-3):
    """Two tensors of one shape agree, to the tolerance times the size of the second."""
    if not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.shape == b.shape):
        return False
    gap, size = (a.double() - b.double()).abs().max(), b.double().abs().max()
    return bool(gap <= tolerance * max(float(size), 1e-3))


def all_near(tensor, number):
    """Every number of a tensor is this one, to rounding."""
    return isinstance(tensor, torch.Tensor) and bool(((tensor - number).abs() < 1e-6).all())


def identical(after, before):
    """A tensor came back as it was sent."""
    return isinstance(after, torch.Tensor) and after.dtype == before.dtype and torch.equal(after, before)


def handed_on(report):
    """aux is the one of ffn's call: it holds the sum of what ffn was given then."""
    total, calls = report["total"], report["given"]
    return (
        type(total) is float
        and bool(calls)
        and math.isclose(total, float(calls[-1].double().sum()), rel_tol=1e-5, abs_tol=1e-5)
    )


@grades("TransformerBlock", hidden=16)
class TestTransformerBlock:
    @staticmethod
    def tokens(rng, batch, length, d_model, dtype=torch.float32):
        return torch.randn(batch, length, d_model, generator=rng).to(dtype)

    def run(self, subject, d_model, heads, inputs, scale=0.0, redraw=True, draw=71):
        """What the block did with each input; y_BSD must be there, with the input's shape."""
        given = {"d_model": d_model, "num_heads": heads, "x_BSD": inputs[0]}
        how = "redraw" if redraw else "fresh"
        reports = returned(subject.run(block_runs, d_model, heads, inputs, scale, draw, how), given)
        for x_BSD, report in zip(inputs, reports, strict=True):
            y = report["y"]
            expect_something(y, "what the block returned", given)
            expect(isinstance(y, torch.Tensor), "the block returns no y_BSD", given)
            expect(
                y.shape == x_BSD.shape, f"y_BSD has shape {tuple(y.shape)}, x_BSD {tuple(x_BSD.shape)}", given
            )
            expect(bool(torch.isfinite(y).all()), "y_BSD holds numbers that are not finite", given)
            expect(bool(y.any()), "nothing is left of x_BSD: y_BSD holds zeros only", given)
        return reports, given

    def attended(self, subject, d_model, heads, inputs, draw=71):
        """What attention adds to each input: y − x, while the feed-forward layer answers 0. It must add something."""
        reports, given = self.run(subject, d_model, heads, inputs, draw=draw)
        added = [report["y"] - x_BSD for report, x_BSD in zip(reports, inputs, strict=True)]
        nothing = near(reports[0]["y"], inputs[0])
        expect(not nothing, "y is x while ffn returns 0: where is what attention found?", given)
        return added, given

    @staticmethod
    def sizes(rng):
        """batch, length, d_model, heads: all different, heads of an even width."""
        heads = whole(rng, 2, 3)
        return whole(rng, 2, 3), whole(rng, 5, 7), heads * 2 * whole(rng, 2, 3), heads

    @criterion(
        2,
        "(y_BSD, aux): y_BSD has the shape of x_BSD, aux is what ffn returned",
        hint="Who will need aux later, and has anything happened to it on the way?",
    )
    def test_pair(self, subject, rng):
        for batch, length, d_model, heads in ((1, 1, 2, 1), self.sizes(rng)):
            (report,), given = self.run(subject, d_model, heads, [self.tokens(rng, batch, length, d_model)])
            expect(report["pair"], "the block should return y_BSD and aux", given)
            expect(handed_on(report), "aux is not the object that ffn returned", given)

    @criterion(
        2,
        "ffn is called once, with all of (B, S, D)",
        hint="Balancing counts the tokens of a batch. What does it see if ffn gets them one by one?",
    )
    def test_ffn_called(self, subject, rng):
        batch, length, d_model, heads = self.sizes(rng)
        x_BSD = self.tokens(rng, batch, length, d_model)
        (report,), given = self.run(subject, d_model, heads, [x_BSD], scale=0.5)
        calls = report["given"]
        expect(len(calls) == 1, f"ffn was called {len(calls)} times", given)
        expect(calls[0].shape == x_BSD.shape, f"ffn was called with shape {tuple(calls[0].shape)}", given)

    @criterion(
        2,
        "attention reads the normalised stream and adds to the stream as it is",
        hint="If x is ten times as large, what should attention see, and what should pass it by?",
    )
    def test_attention_residual(self, subject, rng):
        for batch, length, d_model, heads in ((1, 1, 4, 1), self.sizes(rng)):
            x_BSD = self.tokens(rng, batch, length, d_model)
            factor = between(rng, 8, 12)
            (first, second), given = self.attended(subject, d_model, heads, [x_BSD, factor * x_BSD])
            same = near(second, first, 5e-3)
            message = (
                f"while ffn returns 0, y − x should be the same for x and {factor}·x: attention reads norm(x)"
            )
            expect(same, message, given)

    @criterion(
        2,
        "the norm before attention is an RMSNorm: it does not take the mean away",
        hint="Does your norm see a constant that is added to all channels?",
    )
    def test_no_mean(self, subject, rng):
        batch, length, d_model, heads = self.sizes(rng)
        x_BSD = self.tokens(rng, batch, length, d_model)
        (first, second), given = self.attended(subject, d_model, heads, [x_BSD, x_BSD + between(rng, 1, 2)])
        expect(
            not near(second, first, 2e-2),
            "a constant added to every channel changes nothing in attention: is the mean taken away?",
            given,
        )

    @criterion(
        2,
        "ffn is given the RMS-normalised stream after attention, with gains of 1",
        hint="What is the root mean square of each row that ffn gets, and whose row is it?",
    )
    def test_ffn_norm(self, subject, rng):
        for redraw, (batch, length, d_model, heads) in ((False, self.sizes(rng)), (True, self.sizes(rng))):
            x_BSD = 3 * self.tokens(rng, batch, length, d_model) + 0.5
            (report,), given = self.run(subject, d_model, heads, [x_BSD], redraw=redraw)
            expect(len(report["given"]) > 0, "ffn was not called", given)
            got = torch.cat([part.reshape(-1) for part in report["given"]])
            want_BSD = rms_normed(report["y"])  # the stream after attention, since ffn adds 0
            expect(near(got, want_BSD.reshape(-1)), "ffn was not given the normalised stream", given)

    @criterion(
        2,
        "what ffn returns is added to the stream",
        hint="To what is the feed-forward layer's output added: to x, or to what attention made of it?",
    )
    def test_ffn_residual(self, subject, rng):
        batch, length, d_model, heads = self.sizes(rng)
        x_BSD = self.tokens(rng, batch, length, d_model)
        (silent,), _ = self.run(subject, d_model, heads, [x_BSD])
        expect(not near(silent["y"], x_BSD), "with an ffn that returns 0 nothing is left of attention")
        expect(bool(silent["y"].any()), "with an ffn that returns 0 nothing is left of the stream")
        scale = between(rng, 1, 2)
        (loud,), given = self.run(subject, d_model, heads, [x_BSD], scale=scale)
        expect(len(loud["given"]) > 0, "ffn was not called", given)
        added = scale * torch.sin(torch.cat([part.reshape(-1) for part in loud["given"]]))
        right = near((loud["y"] - silent["y"]).reshape(-1), added)
        expect(right, "y is not the stream after attention plus what ffn returned", given)

    def reach(self, subject, rng, sizes):
        """reach[t][s]: whether the output at position s changes when the token at t does."""
        batch, length, d_model, heads = sizes
        x_BSD = self.tokens(rng, batch, length, d_model)
        inputs = [x_BSD]
        for place in range(length):
            changed = x_BSD.clone()
            changed[:, place] = self.tokens(rng, batch, 1, d_model)[:, 0]
            inputs.append(changed)
        (first, *others), given = self.attended(subject, d_model, heads, inputs)
        size = float(first.abs().max())
        changes = [((other - first).abs().amax(dim=(0, 2)) > 1e-4 * size).tolist() for other in others]
        return changes, given

    @criterion(
        3,
        "causal: no position sees a later one",
        hint="Change the last token: which outputs may change?",
    )
    def test_causal(self, subject, rng):
        for sizes in ((1, 2, 4, 1), self.sizes(rng)):
            changes, given = self.reach(subject, rng, sizes)
            for place, row in enumerate(changes):
                for position in range(place):
                    expect(not row[position], f"position {position} sees position {place}", given)

    @criterion(
        3,
        "every position sees all that came before it, and itself",
        hint="Which keys may the query at position s meet: how many are there for s = 0?",
    )
    def test_attends(self, subject, rng):
        for sizes in ((1, 2, 4, 1), self.sizes(rng)):
            changes, given = self.reach(subject, rng, sizes)
            for place, row in enumerate(changes):
                for position in range(place, sizes[1]):
                    message = f"attention at position {position} does not depend on position {place}"
                    expect(row[position], message, given)

    @staticmethod
    def sidesteps(parts):
        """How far attention over two tokens is from the line between attention to one and to the other alone."""
        both, former, latter = (part[:, -1].double() for part in parts)
        along, off = former - latter, both - latter
        share = (off * along).sum(-1, keepdim=True) / (along**2).sum(-1, keepdim=True)
        return float(((off - share * along).norm(dim=-1) / along.norm(dim=-1)).max())

    @criterion(
        2,
        "each head has weights of its own",
        hint="Can your heads look at different tokens, or do all use the same weights?",
    )
    def test_heads(self, subject, rng):
        for heads in (2, whole(rng, 3, 4)):
            x_BSD = self.tokens(rng, 20, 2, 4 * heads)
            parts, given = self.attended(subject, 4 * heads, heads, [x_BSD, x_BSD[:, :1], x_BSD[:, 1:]])
            expect(self.sidesteps(parts) > 0.01, f"{heads} heads mix two tokens as one head would", given)

    @criterion(
        2,
        "an ffn that is a module belongs to the block; a plain function will do as well",
        hint="How does model.parameters() find the experts, and what happens if it does not?",
    )
    def test_submodule(self, subject, rng):
        batch, length, d_model, heads = self.sizes(rng)
        x_BSD = self.tokens(rng, batch, length, d_model)
        self.run(subject, d_model, heads, [x_BSD])
        report = returned(subject.run(block_with_module, d_model, heads, x_BSD[:1, :2], x_BSD[:1, :2], 72))
        number = x_BSD[0, 0, 0].double()
        expect(all_near(report["moved"], number), "the parameters of ffn are not among those of the block")
        expect(all_near(report["dropped"], number), "block.eval() does not reach ffn")

    @criterion(
        2,
        "gradients: right at the tokens, and one for every parameter",
        hint="Is a path cut on the way, by detach, no_grad, or a residual that was forgotten?",
    )
    def test_gradients(self, subject, rng):
        d_model = whole(rng, 2, 3) * 4
        x_BSD, dy_BSD = (self.tokens(rng, 1, 2, d_model) for _ in range(2))
        self.attended(subject, d_model, 2, [x_BSD])
        report = returned(subject.run(block_with_module, d_model, 2, x_BSD, dy_BSD, 73))
        given = {"d_model": d_model, "num_heads": 2, "x_BSD": x_BSD, "dy_BSD": dy_BSD}
        expect(report["dx"] is not None, "no gradient reaches x_BSD", given)
        if not near(report["dx"], report["slopes"], 2e-2):
            raise CheckFailed("the gradient of x_BSD is wrong", given, report["slopes"], report["dx"])
        for axes, arrived, size in report["parameters"]:
            expect(
                arrived and (axes < 2 or size > 0), "no gradient reaches one of the block's parameters", given
            )

    @criterion(
        2,
        "x_BSD is not edited; bfloat16, float64 and strided inputs come back in their own dtype",
        hint="Is `x += …` your x, and which dtype do you compute in?",
    )
    def test_other_inputs(self, subject, rng):
        batch, length, d_model, heads = self.sizes(rng)
        x_BSD = self.tokens(rng, batch, length, d_model)
        for dtype in (torch.float64, torch.bfloat16, torch.float32):
            (report,), given = self.run(subject, d_model, heads, [x_BSD.to(dtype)], scale=0.5)
            expect(report["y"].dtype == dtype, f"y_BSD is {report['y'].dtype}, x_BSD {dtype}", given)
            expect(identical(report["after"], x_BSD.to(dtype)), "x_BSD was edited in place", given)
        strided = x_BSD.transpose(0, 1).contiguous().transpose(0, 1)
        (plain, other), given = self.run(subject, d_model, heads, [x_BSD, strided])
        expect(
            near(other["y"], plain["y"]),
            "the same numbers, stored in another order, give another y_BSD",
            given,
        )

    def behaviour(self, subject):
        """Properties only: the numbers hang on how the block draws its weights."""
        rng = seed(740)
        x_BSD = self.tokens(rng, 2, 4, 12) + 0.3
        runs = [
            subject.run(block_runs, 12, 3, [x_BSD, 10 * x_BSD, x_BSD + 1.5, x_BSD[:, :1]], 0.0, 74),
            subject.run(block_runs, 12, 3, [x_BSD], 1.5, 74),
            subject.run(block_runs, 12, 3, [x_BSD], 0.0, 74, "fresh"),
            subject.run(block_runs, 12, 3, [x_BSD.bfloat16()], 1.5, 74),
            subject.run(block_runs, 12, 3, [x_BSD, x_BSD.flip(1), x_BSD[:, :1].repeat(1, 4, 1)], 0.0, 74),
            subject.run(block_runs, 12, 3, [x_BSD], 0.0, 74, "zero"),
        ]
        pair = self.tokens(rng, 20, 2, 12)
        modules = subject.run(block_with_module, 12, 3, x_BSD[:1, :2], x_BSD[1:, :2], 75)
        reach = _told(lambda: self.reach(subject, seed(741), (2, 4, 12, 3))[0])
        leaky = isinstance(reach, list) and any(reach[place][0] for place in (1, 2, 3))
        return [
            *(run.error for run in runs),
            _told(lambda: _traits(x_BSD, *runs[:3])),
            _told(lambda: _dtype_traits(x_BSD, runs[3])),
            _told(lambda: _leak_traits(runs[4])) if leaky else "no leak",
            _told(lambda: _bare_traits(x_BSD, runs[5])),
            reach,
            _told(lambda: self.sidesteps(self._pair(subject, pair)) > 0.01),
            modules.error or _module_traits(modules.value, x_BSD[1, 0, 0].double()),
        ]

    def _pair(self, subject, x_BSD):
        return self.attended(subject, 12, 3, [x_BSD, x_BSD[:, :1], x_BSD[:, 1:]])[0]


def _told(work):
    """What `work` finds, or that it cannot find anything in such replies."""
    try:
        return work()
    except (CheckFailed, TypeError, ValueError, IndexError, RuntimeError, AttributeError, KeyError):
        return "no such thing"


def _traits(x_BSD, silent, loud, fresh):
    """Which of many relations hold between input, output and what ffn was given."""
    first, tenfold, shifted, alone = returned(silent)
    y, given = first["y"], first["given"]
    (loud,) = returned(loud)
    (fresh,) = returned(fresh)
    rows = given[0].reshape(x_BSD.shape) if len(given) == 1 else torch.zeros(1)
    layer_normed = torch.nn.functional.layer_norm
    return {
        "pair": [first["pair"], handed_on(first), identical(first["after"], x_BSD), first["kind"]],
        "calls": [list(part.shape) for part in given],
        "adds as much to 10 x": near(tenfold["y"] - 10 * x_BSD, y - x_BSD, 5e-3),
        "is as large for 10 x": near(tenfold["y"], y, 5e-3),
        "grows with x": near(tenfold["y"] / 10, y, 2e-2),
        "adds as much to x + c": near(shifted["y"] - x_BSD - 1.5, y - x_BSD, 2e-2),
        "is as large for x + c": near(shifted["y"], y, 2e-2),
        "adds nothing": near(y, x_BSD),
        "alone": near(alone["y"], y[:, :1]),
        "rows": [
            near(rows, want)
            for want in (
                rms_normed(y),
                rms_normed(x_BSD),
                y,
                layer_normed(y, (12,)),
                0 * y,
                rms_normed(y, (1, 2)),
            )
        ],
        "fresh rows": near(fresh["given"][0].reshape(x_BSD.shape), rms_normed(fresh["y"])),
        "normed": [near(y, rms_normed(y)), near(y, layer_normed(y, (12,)))],
        "loud and normed": near(
            loud["y"], rms_normed((loud["given"][0] + 1.5 * torch.sin(loud["given"][0])).reshape(x_BSD.shape))
        ),
        "loud": near(loud["y"] - y, 1.5 * torch.sin(loud["given"][0]).reshape(x_BSD.shape)),
        "loud alone": near(loud["y"], 1.5 * torch.sin(loud["given"][0]).reshape(x_BSD.shape)),
        "loud on x": near(loud["y"] - x_BSD, 1.5 * torch.sin(loud["given"][0]).reshape(x_BSD.shape)),
    }


def _dtype_traits(x_BSD, half):
    (report,) = returned(half)
    return [str(getattr(report["y"], "dtype", None)), near(report["y"], x_BSD, 10)]


def _leak_traits(run):
    """How a block that sees the future does so: does the order matter, and do weights sum to 1?"""
    plain, turned, equal = (report["y"] for report in returned(run))
    places = [near(equal[:, place], equal[:, -1]) for place in range(equal.shape[1])]
    steps = equal.diff(dim=1)
    return [near(turned.flip(1), plain), places, near(steps[:, 1], steps[:, 0], 2e-2)]


def _bare_traits(x_BSD, run):
    """With matrices of zeros attention is the same for all tokens: what is left of x beside it?"""
    (report,) = returned(run)
    remainders = (report["y"] - part for part in (x_BSD, 0 * x_BSD, rms_normed(x_BSD)))
    return [near(rest, rest[:1, :1].expand_as(rest)) for rest in remainders]


def _module_traits(report, number):
    return [
        all_near(report["moved"], number),
        all_near(report["dropped"], number),
        near(report["dx"], report["slopes"], 2e-2),
        sum(not arrived for _, arrived, _ in report["parameters"]) > 0,
        sum(axes >= 2 and arrived and size == 0 for axes, arrived, size in report["parameters"]) > 0,
    ]


@grades("train_step", hidden=10)
class TestTrainStep:
    @staticmethod
    def case(rng, batches=1, optimizer="sgd", layers=0, weights=(0.0, 0.0), clip=1e6, sizes=(2, 4, 5, 3)):
        """Arguments of the probe `train_steps`; sizes: batch, length, vocabulary, width."""
        batch, length, vocabulary, width = sizes
        state = {
            "table": torch.randn(vocabulary, width, generator=rng),
            "head": torch.randn(width, vocabulary, generator=rng),
            "routers": 0.4 * torch.randn(width, max(layers, 2), generator=rng),
        }
        tokens = [torch.randint(vocabulary, (batch, length + 1), generator=rng) for _ in range(batches)]
        rate = 0.2 if optimizer == "sgd" else 0.05
        return state, tokens, optimizer, rate, layers, *weights, clip

    def run(self, subject, case):
        """(the probe's report, the oracle's losses, its parameters, its gradients' norms, what was given)."""
        given = {"tokens_BS1": case[1][0], "optimizer": case[2], **named("lb_weight z_weight clip", case[5:])}
        report = returned(run(subject, "train_step", train_steps, *case), given)
        return report, *lm.train(*case), given

    def compare(self, subject, case):
        report, _, after, _, given = self.run(subject, case)
        calls = len(case[1])
        for name, axes in (("table", "VD"), ("head", "DV"), ("routers", "DL")):
            got, what = report["after"].get(name), f"{name} after {calls} call{'s' * (calls > 1)}"
            expect_tensor(got, after[name], axes, given, what=what, rtol=1e-3, atol=5e-5)
        return report

    @staticmethod
    def expect_losses(report, losses, given, tolerance=1e-4):
        """Each call returned the cross-entropy before its own update, as a number."""
        for call_number, (got, want) in enumerate(zip(report["returned"], losses, strict=True), 1):
            if got is None:
                message = f"call {call_number} returned nothing (None), not the loss: is there a `return`?"
                raise CheckFailed(message, given, complete=True)
            what = f"the loss that call {call_number} of {len(losses)} returned"
            expect_value(got, want, given, what=what, atol=tolerance * want)

    def sizes(self, rng):
        return whole(rng, 2, 3), whole(rng, 4, 6), whole(rng, 7, 9), whole(rng, 3, 5)

    @criterion(
        2,
        "one step down the gradient of the cross-entropy of each next token",
        hint="Which token should be predicted at position s, and has anything changed after the call?",
    )
    def test_learns(self, subject, rng):
        self.compare(subject, self.case(rng, layers=1))
        self.compare(subject, self.case(rng, layers=2, sizes=self.sizes(rng)))

    @criterion(
        1,
        "the model is called once, with tokens[:, :-1]",
        hint="How many positions have a next token, if S + 1 are given?",
    )
    def test_inputs(self, subject, rng):
        case = self.case(rng, layers=1, sizes=self.sizes(rng))
        report, *_, given = self.run(subject, case)
        expect(len(report["seen"]) == 1, f"the model was called {len(report['seen'])} times", given)
        expect(torch.equal(report["seen"][0], case[1][0][:, :-1]), "the model saw other tokens", given)

    @criterion(
        2,
        "returns the cross-entropy before the update, alone",
        hint="Which loss can be compared between models: the cross-entropy, or its sum with others?",
    )
    def test_returns(self, subject, rng):
        case = self.case(rng, 2, layers=3, weights=(0.4, 0.3), sizes=self.sizes(rng))
        report, losses, *_, given = self.run(subject, case)
        self.expect_losses(report, losses, given)

    @criterion(
        2,
        "the routers' losses count, with their weights",
        hint="Which loss is it that gradients are taken of?",
    )
    def test_aux(self, subject, rng):
        for weights in ((0.3, 0.0), (0.0, 0.2), (0.15, 0.25)):
            self.compare(
                subject, self.case(rng, layers=whole(rng, 2, 3), weights=weights, sizes=self.sizes(rng))
            )

    @criterion(
        2,
        "gradients are clipped to a global norm of `clip`, and only if they are longer",
        hint="Is `clip` the length of all gradients together, of each one, or the largest number in them?",
    )
    def test_clip(self, subject, rng):
        drawn = self.case(rng, layers=2, weights=(0.3, 0.2), sizes=self.sizes(rng))
        (norm,) = lm.train(*drawn)[2]
        for share in (0.3, between(rng, 0.5, 0.7), 1.3, 4.0):
            self.compare(subject, (*drawn[:7], share * norm))

    @criterion(
        2,
        "the second step does not remember the gradients of the first",
        hint="Where are gradients kept between two calls of backward()?",
    )
    def test_forgets(self, subject, rng):
        self.compare(subject, self.case(rng, 3, layers=2, weights=(0.1, 0.1), sizes=self.sizes(rng)))

    @criterion(
        2,
        "the optimizer that is given makes the step, and keeps its state",
        hint="Who knows the two moments of Adam: your function, or the optimizer?",
    )
    def test_optimizer(self, subject, rng):
        self.compare(subject, self.case(rng, 3, "adam", layers=2, weights=(0.2, 0.1), sizes=self.sizes(rng)))

    @criterion(
        2,
        "a dense model, without routers' losses, trains too",
        hint="Which parameters have no gradient at all when no layer has a router?",
    )
    def test_dense(self, subject, rng):
        case = self.case(rng, 2, weights=(0.4, 0.3), clip=0.5, sizes=self.sizes(rng))
        self.compare(subject, case)

    @criterion(
        1,
        "what comes back is a Python float",
        hint="A list of a thousand losses is kept: what else does a tensor keep alive?",
    )
    def test_python_float(self, subject, rng):
        report, losses, *_, given = self.run(subject, self.case(rng, layers=1, sizes=self.sizes(rng)))
        self.expect_losses(report, losses, given)
        expect_type(report["returned"][0], float, given, what="the loss")

    def behaviour(self, subject):
        """Each run in three parts: what was returned, what the model saw, what became of its parameters."""
        cases = (
            self.case(seed(761), layers=1),
            self.case(seed(767), layers=2, weights=(0.4, 0.0)),
            self.case(seed(768), layers=3, weights=(0.0, 0.3)),
            self.case(seed(762), 2, layers=3, weights=(0.4, 0.3)),
            self.case(seed(763), layers=2, weights=(0.4, 0.3), clip=0.3),
            self.case(seed(764), layers=2, clip=1.1),
            self.case(seed(769), layers=2, clip=0.05),
            self.case(seed(765), 3, "adam", layers=2, weights=(0.2, 0.1)),
            self.case(seed(770), 2),
            self.case(seed(766), 2, weights=(0.4, 0.3), clip=0.5),
        )
        outs = [run(subject, "train_step", train_steps, *case) for case in cases]
        return [part for out in outs for part in _told_apart(out)]


def _told_apart(out):
    """What a run returned, how often and with which shapes the model was called, and the parameters afterwards."""
    if out.error is not None:
        return [out.error] * 5
    seen = [list(tokens.shape) for tokens in out.value["seen"]]
    types = [type(loss).__name__ for loss in out.value["returned"]]
    losses = [number(loss) for loss in out.value["returned"]]
    return [
        types,
        losses,
        seen,
        [out.value["after"][name] for name in ("table", "head")],
        out.value["after"]["routers"],
    ]


BITS = "ce_nats_per_token tokens bytes"


@grades("bits_per_byte", hidden=2)
class TestBitsPerByte:
    def compare(self, subject, *args):
        given = named(BITS, args)
        want = args[0] * args[1] / args[2] / math.log(2)
        got = returned(subject.run(call, "bits_per_byte", *args), given)
        expect_value(got, want, given, what="bits per byte", atol=1e-6 * want)
        return got, given

    @criterion(
        2,
        "one byte a token: nats become bits",
        hint="How many nats is one bit: ln 2, or 1 / ln 2?",
    )
    def test_bits(self, subject, rng):
        for ce in (math.log(2), math.log(256), between(rng, 1, 3)):
            self.compare(subject, ce, 5, 5)

    @criterion(
        2,
        "the loss of all tokens, shared by all bytes",
        hint="If a token stands for four bytes, has each byte more or less than the token's bits?",
    )
    def test_bytes(self, subject, rng):
        self.compare(subject, 2.0, 1, 4)
        for _ in range(3):
            tokens = whole(rng, 50, 900)
            self.compare(subject, between(rng, 1, 9), tokens, tokens + whole(rng, 100, 3000))

    @criterion(1, "a float, for large counts too", hint="Does `//` or a round() stand anywhere?")
    def test_float(self, subject, rng):
        tokens = 10**9 * whole(rng, 3, 9) + 7
        got, given = self.compare(subject, between(rng, 2, 4), tokens, 4 * tokens + 1)
        expect(type(got) is float, f"return a Python float, not a {type(got).__name__}", given)

    def behaviour(self, subject):
        cases = ((math.log(2), 5, 5), (2.0, 1, 4), (3.3, 70, 311), (0.0021, 3 * 10**9, 10**10))
        return [subject.run(call, "bits_per_byte", *case) for case in cases]


def elsewhere_drawn(seed):
    """What torch's and Python's own generators give from this seed, if nobody has drawn before."""
    own = random.Random(seed)
    drawn = torch.rand(4, generator=torch.Generator().manual_seed(seed)).tolist()
    return [drawn, [own.random() for _ in range(4)]]


COUNT = 250
SAMPLE = "logits_V temperature top_p"


@grades("sample_next", hidden=12)
class TestSampleNext:
    @staticmethod
    def logits(probs, rng=None, dtype=torch.float32):
        """Logits of these probabilities, in a drawn order and shifted: a softmax forgets the shift."""
        probs = torch.tensor(probs, dtype=torch.float64)
        if rng is not None:
            probs = probs[torch.randperm(len(probs), generator=rng)]
        return (probs.log() + 0.75).to(dtype)

    @staticmethod
    def draw(subject, logits_V, temperature, top_p, start, count=COUNT, global_seed=0):
        """The tokens drawn, each a whole number of the vocabulary."""
        given = named(SAMPLE, (logits_V, temperature, top_p))
        report = returned(subject.run(draws, logits_V, temperature, top_p, start, count, global_seed), given)
        drawn, elsewhere, after = report
        tokens = [number(token) for token in drawn]
        untouched, kept = elsewhere == elsewhere_drawn(global_seed), identical(after, logits_V)
        for token in tokens:
            if type(token) is not int:
                raise CheckFailed("a token should be a whole number", given, "an int", token)
            expect(0 <= token < len(logits_V), f"there is no token {token}", given)
        return tokens, untouched, kept, given

    def compare(self, subject, logits_V, temperature, top_p, rng, count=COUNT):
        """Draws fit the distribution that they should have, and stay within the nucleus."""
        tokens, *_, given = self.draw(subject, logits_V, temperature, top_p, whole(rng, 1, 10**6), count)
        want = lm.next_token(logits_V, temperature, top_p)
        for token in sorted(set(tokens)):
            expect(want[token] > 0, f"token {token} was drawn and is not in the nucleus", given)
        odd = lm.unlikely(tokens, want)
        if odd is not None:
            share = tokens.count(odd) / count
            expect(
                False, f"token {odd} has probability {want[odd]:.3f}, and {share:.1%} of {count} draws", given
            )

    @criterion(
        2,
        "temperature 0: the likeliest token",
        hint="What is logits / 0, and which token should win?",
    )
    def test_greedy(self, subject, rng):
        for probs in ([0.2, 0.5, 0.3], [0.1, 0.2, 0.3, 0.4], [0.6, 0.1, 0.3]):
            logits_V = self.logits(probs, rng)
            for top_p in (1.0, 0.3):
                tokens, *_, given = self.draw(subject, logits_V, 0.0, top_p, whole(rng, 1, 10**6), 4)
                best = int(logits_V.argmax())
                expect(set(tokens) == {best}, f"drew {tokens}, and {best} is the likeliest", given)

    @criterion(
        2,
        "temperature 1, top_p 1: tokens are drawn as often as the softmax says",
        hint="Is your answer a token of the vocabulary, or a place in a sorted list?",
    )
    def test_distribution(self, subject, rng):
        self.compare(subject, self.logits([0.15, 0.6, 0.25]), 1.0, 1.0, rng)
        self.compare(subject, self.logits([0.04, 0.06, 0.1, 0.3, 0.5], rng), 1.0, 1.0, rng)

    @criterion(
        2,
        "temperature divides the logits: below 1 it sharpens, above 1 it flattens",
        hint="At a temperature of 1/2 probabilities are squared, and at 2?",
    )
    def test_temperature(self, subject, rng):
        logits_V = self.logits([0.05, 0.15, 0.2, 0.6], rng)
        for temperature in (0.4, between(rng, 2.5, 3.5)):
            self.compare(subject, logits_V, temperature, 1.0, rng)

    @criterion(
        2,
        "the nucleus is the smallest set that reaches top_p: the token that crosses it is in",
        hint="0.5 and 0.3 do not reach 0.9. Is the token that does part of the set?",
    )
    def test_nucleus(self, subject, rng):
        logits_V = self.logits([0.1, 0.5, 0.1, 0.3], None)
        self._support(subject, logits_V, 0.6, rng)
        for top_p in (0.35, 0.72, 0.9):
            self._support(subject, self.logits([0.4, 0.25, 0.2, 0.11, 0.04], rng), top_p, rng)

    def _support(self, subject, logits_V, top_p, rng):
        tokens, *_, given = self.draw(subject, logits_V, 1.0, top_p, whole(rng, 1, 10**6))
        inside = sorted(lm.nucleus(lm.probabilities(logits_V), top_p))
        drawn = sorted(set(tokens))
        expect(drawn == inside, f"the nucleus is {inside}, and the tokens drawn are {drawn}", given)

    @criterion(
        2,
        "inside the nucleus probabilities keep their ratio and sum to 1",
        hint="What becomes of the probability of the tokens outside?",
    )
    def test_renormalised(self, subject, rng):
        for probs, top_p in (([0.16, 0.14, *[0.1] * 7], 0.28), ([0.3, 0.06, *[0.04] * 16], 0.33)):
            self.compare(subject, self.logits(probs, rng), 1.0, top_p, rng, 400)

    @criterion(
        2,
        "the nucleus is that of the probabilities at this temperature",
        hint="Which comes first: dividing by the temperature, or cutting the tail?",
    )
    def test_order(self, subject, rng):
        for temperature, top_p in ((0.4, 0.75), (3.0, 0.7)):
            self.compare(subject, self.logits([0.5, 0.25, 0.15, 0.1], rng), temperature, top_p, rng)

    @criterion(
        2,
        "the nucleus is never empty, and with top_p = 1 it is everything",
        hint="Which token is left when top_p is smaller than the largest probability?",
    )
    def test_ends(self, subject, rng):
        logits_V = self.logits([0.3, 0.25, 0.2, 0.15, 0.1], rng)
        for top_p in (0.2, 1e-6, 0.0):
            tokens, *_, given = self.draw(subject, logits_V, 1.0, top_p, whole(rng, 1, 10**6), 20)
            best = int(logits_V.argmax())
            expect(
                set(tokens) == {best},
                f"only token {best} is in the nucleus, drawn were {sorted(set(tokens))}",
                given,
            )
        self._support(subject, logits_V, 1.0, rng)

    @criterion(
        2,
        "all randomness comes from the generator: the same start, the same tokens",
        hint="Which random numbers does your draw use if nobody tells it?",
    )
    def test_generator(self, subject, rng):
        logits_V, start = self.logits([0.4, 0.3, 0.2, 0.1], rng), whole(rng, 1, 10**6)
        first, untouched, _, given = self.draw(subject, logits_V, 1.0, 0.95, start, 80)
        expect(untouched, "a random state that is not the generator's has changed", given)
        again, *_ = self.draw(subject, logits_V, 1.0, 0.95, start, 80, global_seed=whole(rng, 1, 10**6))
        expect(first == again, "the same generator from the same start drew other tokens", given)
        other, *_ = self.draw(subject, logits_V, 1.0, 0.95, start + 1, 80)
        expect(first != other, "another start of the generator draws the same tokens", given)

    @criterion(
        2,
        "extreme logits, impossible tokens, bfloat16 and float64",
        hint="What is exp(1000) in float32, and what is exp(−inf)?",
    )
    def test_extreme(self, subject, rng):
        spread = torch.tensor([-1e4, 1000.0, -1e4, 1000.7])[torch.randperm(4, generator=rng)]
        impossible = torch.tensor([-math.inf, 0.5, 2.0, -math.inf, 1.0])[torch.randperm(5, generator=rng)]
        for logits_V in (spread, impossible, impossible.double(), impossible.bfloat16()):
            self.compare(subject, logits_V, 1.0, 1.0, rng, 150)
        tokens, *_, given = self.draw(subject, 40 * spread, 0.01, 0.9, 1, 10)
        expect(set(tokens) == {int(spread.argmax())}, "a small temperature draws the likeliest token", given)

    @criterion(
        1,
        "a Python int comes back, and the logits are not edited",
        hint="Which type has a token that a tokenizer can read, and do you divide in place?",
    )
    def test_plain_int(self, subject, rng):
        first_V = self.logits([0.4, 0.3, 0.2, 0.1], rng)
        for logits_V, temperature in ((first_V, 0.0), (first_V.roll(1), 0.0), (first_V, 0.7)):
            given = named(SAMPLE, (logits_V, temperature, 0.9))
            tokens, _, after = returned(
                subject.run(draws, logits_V, temperature, 0.9, whole(rng, 1, 10**6), 3), given
            )
            for token in tokens:
                expect_type(token, int, given, what="a token")
            best = int(logits_V.argmax())
            expect(temperature > 0 or set(tokens) == {best}, "temperature 0 takes the likeliest token", given)
            expect(identical(after, logits_V), "the logits were edited in place", given)

    def behaviour(self, subject):
        """Which tokens can be drawn, and which of several distributions the draws are likeliest under."""
        logits_V = self.logits([0.13, 0.42, 0.1, 0.2, 0.09, 0.06])
        plans = ((1.0, 1.0), (3.0, 1.0), (1.0, 0.55), (1.0, 0.8), (2.5, 0.7), (0.4, 0.8), (1.0, 0.0))
        runs = [subject.run(draws, logits_V, *plan, 77, 300) for plan in plans]
        even, uneven = self.logits([0.16, 0.14, *[0.1] * 7]), self.logits([0.3, 0.06, *[0.04] * 16])
        shared = [
            subject.run(draws, logits, 1.0, top_p, 77, 400)
            for logits, top_p in ((even, 0.28), (uneven, 0.33))
        ]
        greedy = subject.run(draws, logits_V, 0.0, 0.9, 77, 3)
        spread_V = torch.tensor([-1e4, 1000.0, -math.inf, 1000.7])
        extreme = subject.run(draws, spread_V, 1.0, 0.95, 77, 80)
        closed = subject.run(draws, torch.tensor([0.5, -math.inf, 2.0, 1.0]), 1.0, 1.0, 77, 150)
        again = subject.run(draws, logits_V, 1.0, 1.0, 77, 60, global_seed=5)
        first = subject.run(draws, logits_V, 1.0, 1.0, 77, 60)
        return [
            *(run.error or _told(lambda run=run: sorted(set(run.value[0]))) for run in runs),
            *(
                _told(
                    lambda run=run, plan=plan: _fits(
                        logits_V, *plan, run.value[0], RULES if plan[0] != 1 else (*RULES, "flat")
                    )
                )
                for run, plan in zip(runs, plans, strict=True)
            ),
            _told(lambda: _fits(even, 1.0, 0.28, shared[0].value[0], ("the rest to the best",))),
            _told(lambda: _fits(uneven, 1.0, 0.33, shared[1].value[0], ("the rest to all",))),
            greedy.error or greedy.value[0],
            extreme.error
            or [_told(lambda: sorted(set(extreme.value[0]))), identical(extreme.value[2], spread_V)],
            closed.error or _told(lambda: sorted(set(closed.value[0]))),
            again.error
            or first.error
            or [repr(first.value[0]) == repr(again.value[0]), _untouched(first.value[1])],
        ]


def _untouched(elsewhere):
    """Whether torch's and Python's own generators, started from 0, gave what they give if nobody has drawn."""
    return [drawn == right for drawn, right in zip(elsewhere, elsewhere_drawn(0), strict=True)]


RULES = ("temperature upside down", "no temperature", "no nucleus", "neither")


def _fits(logits_V, temperature, top_p, tokens, names):
    """The rule under which the tokens are likeliest: the right one, or one that is easily taken for it."""
    hot = lm.probabilities(logits_V, temperature)
    inside = lm.nucleus(hot, top_p)
    rest = 1 - sum(hot[v] for v in inside)
    best = max(range(len(hot)), key=lambda v: hot[v])
    rules = {
        "temperature upside down": lm.next_token(logits_V, 1 / temperature, top_p),
        "no temperature": lm.next_token(logits_V, 1.0, top_p),
        "no nucleus": hot,
        "neither": lm.probabilities(logits_V),
        "flat": [float(v in inside) / len(inside) for v in range(len(hot))],
        "the rest to the best": [(v in inside) * (p + rest * (v == best)) for v, p in enumerate(hot)],
        "the rest to all": [(v in inside) * (p + rest / len(inside)) for v, p in enumerate(hot)],
    }
    right = lm.next_token(logits_V, temperature, top_p)
    return lm.likeliest(tokens, {"right": right} | {name: rules[name] for name in names})
