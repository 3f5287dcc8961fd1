"""Hidden criteria of notebook 07, a mini MoE language model."""

from __future__ import annotations

import math
from itertools import pairwise

import torch

from graders import oracles_lm as lm
from graders import test_07_moe_language_model as public
from graders.common import expect_float, whole
from graders.probes import call
from graders.probes.lm import objective_of_lists, train_steps
from moe_course.grading.exercises.expect import expect, expect_tensor, expect_tuple, returned
from moe_course.grading.exercises.rubric import criterion, grades


@grades("moe_objective")
class HiddenMoeObjective:
    @criterion(
        1,
        "a layer counts as much as any other, in a model of any depth",
        hint="What changes in your sum when two layers are exchanged, or all are doubled?",
    )
    def test_depth(self, subject, rng):
        layers = whole(rng, 9, 17)
        ce, lb_L, z_L, *weights = public.TestMoeObjective.case(layers, rng, torch.float64)
        order_L = torch.randperm(layers, generator=rng)
        want = public.TestMoeObjective.want(ce, lb_L, z_L, *weights)
        for lb, z in ((lb_L, z_L), (lb_L[order_L], z_L[order_L]), (lb_L.repeat(2), z_L.repeat(2))):
            args = public.TestMoeObjective.listed((ce, lb, z, *weights))
            expect_tensor(returned(subject.run(call, "moe_objective", *args)), want, "", rtol=1e-9)

    @criterion(
        1,
        "weights of 0 leave the cross-entropy, and gradients of 0",
        hint="What should a weight of 0 change?",
    )
    def test_weight_of_zero(self, subject, rng):
        args = public.TestMoeObjective.case(whole(rng, 4, 6), rng)
        for weights in ((0.0, 0.0), (0.25, 0.0), (0.0, 0.25)):
            case = (*args[:3], *weights)
            result, dce, dlb, dz = expect_tuple(returned(subject.run(objective_of_lists, *case)), 4)
            expect_tensor(result, public.TestMoeObjective.want(*case), "", rtol=1e-5)
            for grads, want in (([dce], 1.0), (dlb, weights[0] / len(dlb)), (dz, weights[1] / len(dz))):
                for grad in grads:
                    got = torch.zeros(()) if grad is None else grad
                    expect_tensor(got, torch.tensor(want), "", what="a gradient")


@grades("learning_rate")
class HiddenLearningRate:
    @criterion(
        1,
        "a whole run: up, down, and as much above the middle as below it",
        hint="At equal distances from both ends of the cosine, what do two learning rates sum to?",
    )
    def test_shape(self, subject, rng):
        warmup = whole(rng, 5, 15)
        total = warmup + whole(rng, 20, 40)
        peak, floor = public.between(rng, 0.5, 1), public.between(rng, 0.01, 0.1)
        rates = [
            returned(subject.run(call, "learning_rate", step, peak, warmup, total, floor))
            for step in range(total)
        ]
        expect(all(type(rate) in (int, float) for rate in rates), "a learning rate should be a Python float")
        up, down = rates[:warmup], rates[warmup:]
        expect(all(0 < a < b for a, b in pairwise(up)), "the warm-up should go up")
        expect(all(a > b for a, b in pairwise(down)), "the cosine should go down")
        sums = [a + b for a, b in zip(down, down[::-1], strict=True)]
        expect(all(abs(one - peak - floor) < 1e-6 for one in sums), "the cosine's two halves do not match")

    @criterion(
        1,
        "a run of many steps, with learning rates as they are used",
        hint="Which of your numbers depends on the size of the run?",
    )
    def test_long(self, subject, rng):
        total, warmup = whole(rng, 90_000, 110_000), whole(rng, 1500, 2500)
        for step in (
            0,
            7,
            warmup - 1,
            warmup,
            warmup + 1,
            total // 2,
            total - 2,
            total - 1,
            total,
            total + 5,
        ):
            public.TestLearningRate().compare(subject, step, 3e-4, warmup, total, 3e-5)


@grades("TransformerBlock")
class HiddenTransformerBlock:
    @criterion(
        1,
        "the start of a text is computed as if nothing followed, and sequences do not meet",
        hint="Cut the text after three tokens: should the first three outputs change?",
    )
    def test_prefixes(self, subject, rng):
        batch, length, d_model, heads = 4, whole(rng, 8, 10), 24, 4
        x_BSD = torch.randn(batch, length, d_model, generator=rng)
        order_B = torch.randperm(batch, generator=rng)
        cuts = [x_BSD[:, :place].contiguous() for place in range(1, length)]
        inputs = [x_BSD, x_BSD[order_B], x_BSD[1:2], *cuts]
        block = public.TestTransformerBlock()
        (all_of_it, turned, single, *parts), _ = block.run(
            subject, d_model, heads, inputs, scale=0.8, draw=81
        )
        y_BSD = all_of_it["y"]
        expect(public.near(turned["y"], y_BSD[order_B]), "exchanging sequences changes their outputs")
        expect(public.near(single["y"], y_BSD[1:2]), "a sequence depends on the others of its batch")
        for part, cut in zip(parts, cuts, strict=True):
            same = public.near(part["y"], y_BSD[:, : cut.shape[1]])
            expect(same, f"the first {cut.shape[1]} outputs depend on what follows")

    @criterion(
        1,
        "two blocks on top of each other: what the first adds stays in the stream",
        hint="Where is the embedding of a token after ten blocks?",
    )
    def test_stream(self, subject, rng):
        d_model, heads = 16, 4
        x_BSD = 1000 * torch.randn(2, 5, d_model, generator=rng)
        scale = public.between(rng, 0.5, 2)
        block = public.TestTransformerBlock()
        (first,), _ = block.run(subject, d_model, heads, [x_BSD], scale, draw=82)
        (second,), _ = block.run(subject, d_model, heads, [first["y"]], scale, draw=83)
        for report, before in ((first, x_BSD), (second, first["y"])):
            moved = float((report["y"] - before).abs().max())
            expect(0.1 < moved < 100, f"a block adds {moved:.2g} to a stream of size 1000")
            shapes = [tuple(part.shape) for part in report["given"]]
            expect(shapes == [tuple(before.shape)], f"ffn was given {shapes}")
            stream = report["y"] - scale * torch.sin(report["given"][0])
            expect(public.near(report["given"][0], public.rms_normed(stream)), "ffn reads something else")


@grades("train_step")
class HiddenTrainStep:
    @criterion(
        1,
        "ten steps of Adam, with everything at once",
        hint="Which of your lines has an effect in a later step?",
    )
    def test_ten_steps(self, subject, rng):
        sizes = (3, 7, whole(rng, 11, 14), 6)
        case = public.TestTrainStep.case(rng, 10, "adam", 3, (0.2, 0.1), 1e6, sizes)
        clip = 0.6 * max(lm.train(*case)[2])
        case = (*case[:7], clip)
        report = returned(subject.run(train_steps, *case))
        losses, after, _ = lm.train(*case)
        expect(len(report["returned"]) == len(losses), "not every step returned a loss")
        for got, want in zip(report["returned"], losses, strict=True):
            expect(
                type(got) is float and abs(got - want) < 1e-3 * want,
                f"a loss of {want:.4f} was given as {got}",
            )
        for name, axes in (("table", "VD"), ("head", "DV"), ("routers", "DL")):
            expect_tensor(report["after"][name], after[name], axes, what=name, rtol=5e-3, atol=1e-3)

    @criterion(
        1,
        "a loss does not depend on the weights of the routers' losses, an update does",
        hint="Which of the two numbers would you compare with another model's?",
    )
    def test_weights(self, subject, rng):
        sizes = (2, 6, whole(rng, 8, 10), 4)
        case = public.TestTrainStep.case(rng, 1, layers=4, sizes=sizes)
        reports = [
            returned(subject.run(train_steps, *case[:5], *weights, 1e6))
            for weights in ((0.0, 0.0), (0.5, 0.5))
        ]
        (plain,), (heavy,) = (report["returned"] for report in reports)
        expect(type(plain) is float and type(heavy) is float, "train_step should return a float")
        expect(abs(plain - heavy) <= 1e-5 * abs(plain), "the loss returned depends on lb_weight and z_weight")
        moved = [(report["after"]["routers"] - case[0]["routers"]).abs().max() for report in reports]
        expect(
            float(moved[0]) < 1e-6 < 1e-3 < float(moved[1]),
            "the routers should learn from their losses alone here",
        )


@grades("bits_per_byte")
class HiddenBitsPerByte:
    @criterion(
        1,
        "two tokenizers that need the same bits for a text get the same number",
        hint="Half as many tokens, each with twice the loss: has the model become worse?",
    )
    def test_tokenizers(self, subject, rng):
        nats, size = public.between(rng, 900, 2000), whole(rng, 1000, 4000)
        for tokens in (whole(rng, 200, 400), whole(rng, 500, 900), size):
            got = returned(subject.run(call, "bits_per_byte", nats / tokens, tokens, size))
            want = nats / math.log(2) / size
            expect_float(got, want, {"tokens": tokens, "bytes": size}, what="bits per byte", atol=1e-6 * want)


@grades("sample_next")
class HiddenSampleNext:
    @criterion(
        1,
        "a larger vocabulary, in any order, with logits shifted by any constant",
        hint="Does a token's number, or a constant that is added to all logits, change its chances?",
    )
    def test_vocabulary(self, subject, rng):
        share = whole(rng, 3, 5)
        probs = [0.5 / share] * share + [0.5 / 40] * 40  # the nucleus is the first few
        probs = [p * (1 + 1e-3 * n) for n, p in enumerate(reversed(probs))]
        sampler = public.TestSampleNext()
        for shift in (0.0, -300.0, 500.0):
            logits_V = sampler.logits([p / sum(probs) for p in probs], rng) + shift
            sampler.compare(subject, logits_V, 1.0, 0.45 - 0.2 / share, rng, 200)

    @criterion(
        1,
        "temperature and nucleus together, at numbers of every size",
        hint="In which order do temperature, nucleus and draw follow each other?",
    )
    def test_together(self, subject, rng):
        sampler = public.TestSampleNext()
        logits_V = sampler.logits([0.42, 0.22, 0.16, 0.11, 0.06, 0.03], rng)
        for temperature, top_p in ((0.5, 0.7), (2.0, 0.65), (5.0, 0.5)):
            sampler.compare(subject, logits_V, temperature, top_p, rng, 300)
