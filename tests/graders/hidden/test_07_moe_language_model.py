"""Hidden criteria of notebook 07, a language model: everything at once, at other sizes. They compare values alone."""

from __future__ import annotations

import math

import torch

from graders import oracles_lm as lm
from graders import test_07_moe_language_model as public
from graders.common import expect_values, whole
from graders.probes import call
from graders.probes.lm import objective_of_lists
from graders.values import expect_value
from moe_course.grading.exercises.expect import expect, expect_tuple, returned
from moe_course.grading.exercises.rubric import criterion, grades


@grades("moe_objective")
class HiddenMoeObjective:
    @staticmethod
    def whole_answer(subject, args):
        """The objective of lists, and what comes back to the cross-entropy and to every layer."""
        result, dce, dlb, dz = expect_tuple(returned(subject.run(objective_of_lists, *args)), 4)
        expect_values(result, public.TestMoeObjective.want(*args), "", rtol=1e-5)
        for grads, want in (([dce], 1.0), (dlb, args[3] / max(1, len(dlb))), (dz, args[4] / max(1, len(dz)))):
            for grad in grads:
                got = torch.zeros(()) if grad is None else grad
                expect_values(got, torch.tensor(want), "", what="a gradient", rtol=1e-4)

    @criterion(
        2,
        "a layer counts as much as any other, in a model of any depth, or of none",
        hint="What changes in your sum when two layers are exchanged, or all are doubled?",
    )
    def test_depth(self, subject, rng):
        layers = whole(rng, 9, 17)
        ce, lb_L, z_L, *weights = public.TestMoeObjective.case(layers, rng)
        order_L = torch.randperm(layers, generator=rng)
        for lb, z in ((lb_L, z_L), (lb_L[order_L], z_L[order_L]), (lb_L.repeat(2), z_L.repeat(2))):
            self.whole_answer(subject, (ce, lb, z, *weights))
        for lb, z in ((lb_L[:0], z_L[:0]), (lb_L[:0], z_L), (lb_L, z_L[:0])):
            self.whole_answer(subject, (ce, lb, z, *weights))

    @criterion(
        3,
        "weights of 0 leave the cross-entropy, and gradients of 0",
        hint="What should a weight of 0 change?",
    )
    def test_weight_of_zero(self, subject, rng):
        ce, lb_L, z_L, *own = public.TestMoeObjective.case(whole(rng, 4, 6), rng)
        for weights in ((0.0, 0.0), (0.25, 0.0), (0.0, 0.25), own):
            self.whole_answer(subject, (ce, lb_L, z_L, *weights))
        self.whole_answer(subject, (ce, lb_L[:0], z_L, *own))
        self.whole_answer(subject, (ce, lb_L[:0], z_L[:0], *own))


@grades("learning_rate")
class HiddenLearningRate(public.TestLearningRate):
    @criterion(
        3,
        "a whole run: up, down, and the floor; with a warm-up and without",
        hint="At equal distances from both ends of the cosine, what do two learning rates sum to?",
    )
    def test_shape(self, subject, rng):
        peak, warmup, total, floor = self.plan(rng)
        for up in (0, 1, warmup):
            for step in range(total + 3):
                self.compare(subject, step, peak, up, total, floor)

    @criterion(
        3,
        "a run of many steps, with learning rates as they are used",
        hint="Which of your numbers depends on the size of the run?",
    )
    def test_long(self, subject, rng):
        total, warmup = whole(rng, 90_000, 110_000), whole(rng, 1500, 2500)
        for up in (warmup, 0):
            steps = (0, 7, warmup // 2, warmup - 1, warmup, warmup + 1, total // 3, total // 2)
            for step in (*steps, total - 2, total - 1, total, total + 5):
                self.compare(subject, step, 3e-4, up, total, 3e-5)


@grades("TransformerBlock")
class HiddenTransformerBlock(public.TestTransformerBlock):
    @staticmethod
    def sizes(rng):
        heads = whole(rng, 4, 5)
        return whole(rng, 3, 4), whole(rng, 5, 6), heads * 2 * whole(rng, 1, 2), heads

    def every_part(self, subject, rng):
        """The visible criteria of the idea, at sizes that they do not try."""
        self.test_pair(subject, rng)
        self.test_ffn_called(subject, rng)
        self.test_attention_residual(subject, rng)
        self.test_no_mean(subject, rng)
        self.test_ffn_norm(subject, rng)
        self.test_ffn_residual(subject, rng)
        self.test_causal(subject, rng)
        self.test_attends(subject, rng)
        self.test_heads(subject, rng)
        self.test_submodule(subject, rng)
        self.test_gradients(subject, rng)

    @criterion(
        8,
        "the start of a text is computed as if nothing followed, and sequences do not meet",
        hint="Cut the text after three tokens: should the first three outputs change?",
    )
    def test_prefixes(self, subject, rng):
        batch, length, d_model, heads = 4, whole(rng, 8, 10), 24, 4
        x_BSD = torch.randn(batch, length, d_model, generator=rng)
        order_B = torch.randperm(batch, generator=rng)
        cuts = [x_BSD[:, :place].contiguous() for place in range(1, length)]
        inputs = [x_BSD, x_BSD[order_B], x_BSD[1:2], *cuts]
        (all_of_it, turned, single, *parts), _ = self.run(subject, d_model, heads, inputs, scale=0.8, draw=81)
        y_BSD = all_of_it["y"]
        expect(public.near(turned["y"], y_BSD[order_B]), "exchanging sequences changes their outputs")
        expect(public.near(single["y"], y_BSD[1:2]), "a sequence depends on the others of its batch")
        for part, cut in zip(parts, cuts, strict=True):
            same = public.near(part["y"], y_BSD[:, : cut.shape[1]])
            expect(same, f"the first {cut.shape[1]} outputs depend on what follows")
        self.every_part(subject, rng)

    @criterion(
        8,
        "two blocks on top of each other: what the first adds stays in the stream",
        hint="Where is the embedding of a token after ten blocks?",
    )
    def test_stream(self, subject, rng):
        d_model, heads = 16, 4
        x_BSD = 1000 * torch.randn(2, 5, d_model, generator=rng)
        scale = public.between(rng, 0.5, 2)
        (first,), _ = self.run(subject, d_model, heads, [x_BSD], scale, draw=82)
        (second,), _ = self.run(subject, d_model, heads, [first["y"]], scale, draw=83)
        for report, before in ((first, x_BSD), (second, first["y"])):
            moved = float((report["y"] - before).abs().max())
            expect(0.1 < moved < 100, f"a block adds {moved:.2g} to a stream of size 1000")
            shapes = [tuple(part.shape) for part in report["given"]]
            expect(shapes == [tuple(before.shape)], f"ffn was given {shapes}")
            stream = report["y"] - scale * torch.sin(report["given"][0])
            expect(public.near(report["given"][0], public.rms_normed(stream)), "ffn reads something else")
        self.every_part(subject, rng)


@grades("train_step")
class HiddenTrainStep(public.TestTrainStep):
    def whole_run(self, subject, case, share):
        """Losses and parameters of a run whose longest gradient is cut to `share` of its length."""
        clip = share * max(lm.train(*case)[2])
        report, losses, after, _, given = self.run(subject, (*case[:7], clip))
        self.expect_losses(report, losses, given, tolerance=1e-3)
        for name, axes in (("table", "VD"), ("head", "DV"), ("routers", "DL")):
            expect_values(report["after"].get(name), after[name], axes, what=name, rtol=5e-3, atol=1e-3)

    @criterion(
        5,
        "ten steps of Adam, with everything at once, and a dense model after that",
        hint="Which of your lines has an effect in a later step?",
    )
    def test_ten_steps(self, subject, rng):
        sizes = (3, 7, whole(rng, 11, 14), 6)
        self.whole_run(subject, self.case(rng, 10, "adam", 3, (0.2, 0.1), sizes=sizes), 0.6)
        self.whole_run(subject, self.case(rng, 4, "adam", 2, (0.3, 0.0), sizes=sizes), 4.0)
        self.whole_run(subject, self.case(rng, 4, "adam", 0, (0.3, 0.1), sizes=sizes), 0.5)

    @criterion(
        5,
        "a loss does not depend on the weights of the routers' losses, an update does",
        hint="Which of the two numbers would you compare with another model's?",
    )
    def test_weights(self, subject, rng):
        sizes = (2, 6, whole(rng, 8, 10), 4)
        case = self.case(rng, 3, "adam", 4, sizes=sizes)
        for weights in ((0.0, 0.0), (0.5, 0.2), (0.1, 0.4)):
            for share in (0.5, 2.0):
                self.whole_run(subject, (*case[:5], *weights, 1e6), share)
        plain = self.case(rng, 2, "sgd", 4, (0.3, 0.2), sizes=sizes)
        self.whole_run(subject, plain, 0.4)
        self.whole_run(subject, self.case(rng, 2, "sgd", 0, (0.3, 0.2), sizes=sizes), 0.7)


@grades("bits_per_byte")
class HiddenBitsPerByte:
    @criterion(
        2,
        "two tokenizers that need the same bits for a text get the same number",
        hint="Half as many tokens, each with twice the loss: has the model become worse?",
    )
    def test_tokenizers(self, subject, rng):
        nats, size = public.between(rng, 900, 2000), whole(rng, 1000, 4000)
        for tokens in (whole(rng, 200, 400), whole(rng, 500, 900), size):
            got = returned(subject.run(call, "bits_per_byte", nats / tokens, tokens, size))
            want = nats / math.log(2) / size
            expect_value(got, want, {"tokens": tokens, "bytes": size}, what="bits per byte", atol=1e-6 * want)


@grades("sample_next")
class HiddenSampleNext(public.TestSampleNext):
    def every_rule(self, subject, probs, rng):
        """Temperature, nucleus and their order, at this distribution; what remains, at distributions of its own."""
        logits_V = self.logits(probs, rng)
        for top_p in (1.0, 0.3):
            greedy, *_ = self.draw(subject, logits_V, 0.0, top_p, whole(rng, 1, 10**6), 40)
            expect(
                set(greedy) == {int(logits_V.argmax())},
                "temperature 0 draws another token than the likeliest",
            )
        for temperature, top_p in ((1.0, 1.0), (0.45, 1.0), (2.5, 1.0), (0.4, 0.75), (3.0, 0.6), (1.0, 0.62)):
            self.compare(subject, logits_V, temperature, top_p, rng)
        self._support(subject, logits_V, 0.62, rng)
        for flat, top_p in (([0.15, 0.13, *[0.09] * 8], 0.26), ([0.3, 0.06, *[0.032] * 20], 0.33)):
            self.compare(subject, self.logits(flat, rng), 1.0, top_p, rng, 400)
        self.test_ends(subject, rng)
        self.test_generator(subject, rng)
        self.test_extreme(subject, rng)

    @criterion(
        6,
        "a larger vocabulary, in any order, with logits shifted by any constant",
        hint="Does a token's number, or a constant that is added to all logits, change its chances?",
    )
    def test_vocabulary(self, subject, rng):
        share = whole(rng, 3, 5)
        probs = [0.5 / share] * share + [0.5 / 40] * 40  # the nucleus is the first few
        probs = [p * (1 + 1e-3 * n) for n, p in enumerate(reversed(probs))]
        for shift in (0.0, -300.0, 500.0):
            logits_V = self.logits([p / sum(probs) for p in probs], rng) + shift
            self.compare(subject, logits_V, 1.0, 0.45 - 0.2 / share, rng, 200)
        self.every_rule(subject, [0.42, 0.22, 0.16, 0.1, 0.06, 0.04], rng)

    @criterion(
        6,
        "temperature and nucleus together, at numbers of every size",
        hint="In which order do temperature, nucleus and draw follow each other?",
    )
    def test_together(self, subject, rng):
        logits_V = self.logits([0.42, 0.22, 0.16, 0.11, 0.06, 0.03], rng)
        for temperature, top_p in ((0.5, 0.7), (2.0, 0.65), (5.0, 0.5)):
            self.compare(subject, logits_V, temperature, top_p, rng, 300)
        self.every_rule(subject, [0.4, 0.25, 0.2, 0.1, 0.05], rng)
