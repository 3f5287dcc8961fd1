"""Hidden criteria of notebook 10: real sizes, and properties that any right answer has."""

from __future__ import annotations

import torch

from graders import oracles_serving as right
from graders import test_10_serving as public
from graders.common import expect_values, named, whole
from graders.probes import call
from graders.probes.serving import there_and_back
from graders.test_10_serving import expect_near, run_bytes
from graders.values import expect_value
from moe_course.grading.exercises.expect import expect, expect_tuple, returned
from moe_course.grading.exercises.rubric import criterion, grades


@grades("expected_distinct_experts")
class HiddenExpectedDistinctExperts:
    @criterion(
        4,
        "models as wide as Qwen3 and DeepSeek-V3, for batches of 1 to some hundreds",
        hint="Does each further token find fewer experts that nobody has used yet?",
    )
    def test_published(self, subject, rng):
        for experts, k in ((128, 8), (256, 8), (whole(rng, 30, 90), whole(rng, 3, 6))):
            for batch in (1, 2, 3, whole(rng, 5, 12), whole(rng, 20, 60), whole(rng, 100, 400)):
                args = (experts, k, batch)
                got = returned(subject.run(call, "expected_distinct_experts", *args))
                want = right.expected_distinct_experts(*args)
                expect_near(got, want, named(public.CHOICE, args), "the number of experts")


@grades("decode_bytes")
class HiddenDecodeBytes:
    @criterion(
        4,
        "gigabytes: a model with a cache, at several batch sizes",
        hint="Which of the three parts grows with the batch, and how fast?",
    )
    def test_large(self, subject, rng):
        fixed, kv = whole(rng, 10**9, 4 * 10**9), whole(rng, 10**7, 10**8)
        for batch in (1, 2, whole(rng, 4, 9), whole(rng, 20, 99)):
            args = (fixed, whole(rng, 10**6, 10**7), whole(rng, 20, 60), 64, whole(rng, 2, 8), batch, kv)
            got = returned(run_bytes(subject, *args))
            want = right.decode_bytes(*args)
            expect_near(got, want, named(public.BYTES, args), "the number of bytes")


@grades("decode_seconds")
class HiddenDecodeSeconds:
    @criterion(
        3,
        "on both sides of the batch at which arithmetic takes over",
        hint="From which batch on does a step get longer with every further sequence?",
    )
    def test_both_sides(self, subject, rng):
        params, bandwidth, peak = whole(rng, 10**9, 9 * 10**9), 3.35e12, 989e12
        for batch in (1, whole(rng, 2, 200), whole(rng, 400, 900), whole(rng, 1000, 4000)):
            args = (2 * params, params, batch, bandwidth, peak)
            got = returned(subject.run(call, "decode_seconds", *args))
            want = right.decode_seconds(*args)
            expect_near(got, want, named(public.STEP, args), "the number of seconds")


@grades("simulate_expert_cache")
class HiddenSimulateExpertCache:
    @criterion(
        5,
        "long traces, every capacity; experts renamed: the same rate",
        hint="Does the name of an expert decide anything?",
    )
    def test_long(self, subject, rng):
        rivals = {
            "lru": (public.fifo, public.most_recent_leaves, public.lfu),
            "lfu": (
                *(public.lru, public.remembers, public.newest_of_equals, public.oldest_of_equals),
                *(public.lowest_of_equals, public.highest_of_equals, public.fifo),
            ),
        }
        for policy, others in rivals.items():
            for capacity in (1, 2, whole(rng, 3, 5), 20):
                trace = public.draw_trace(rng, 120, 9)
                if capacity in range(3, 6):
                    trace, _ = public.told_apart(rng, policy, others, 9, 80, capacity)
                names = (torch.randperm(50, generator=rng)[:9]).tolist()
                for shown in (trace, [names[expert] for expert in trace]):
                    args = (shown, capacity, policy)
                    got = returned(subject.run(call, "simulate_expert_cache", *args))
                    want = right.simulate_expert_cache(*args)
                    expect_value(got, want, named(public.TRACE, args), what="the hit rate", atol=1e-9)


@grades("tail_latency")
class HiddenTailLatency(public.Latencies):
    @criterion(
        6,
        "three ranks with skewed experts, and blocks that differ in load",
        hint="Which experts lie together, who draws, and for whom does everybody wait?",
    )
    def test_skewed(self, subject, rng):
        self.law(subject, rng, [0.45, 0.45, 0.02, 0.02, 0.03, 0.03], 3, 5, rounds=400, seconds=0.25)
        self.law(subject, rng, [0.3, 0.3, 0.1, 0.3], 2, 6, rounds=400)
        asked = [99, 1, 50, 100, 0]
        args = (torch.tensor([0.1, 0.2, 0.3, 0.4]), 4, whole(rng, 15, 25), 2.0, asked, 2)
        found, given = self.times(subject, args, rng, calls=8)
        for times in found:
            at = dict(zip(asked, times, strict=True))
            rises = at[0] <= at[1] <= at[50] <= at[99] <= at[100]
            expect(rises, "the percentiles are not in the order in which they were asked for", given)
            middle = (at[0] + at[100]) / 2
            expect(abs(at[50] - middle) < 1e-4, "the median of two rounds is their mean", given)


@grades("quantize_int8")
class HiddenQuantizeInt8(public.TestQuantizeInt8):
    @criterion(
        3,
        "many experts, wide layers, columns of very different size: at most half a step lost",
        hint="How far may a weight be from what comes back of it?",
    )
    def test_half_a_step(self, subject, rng):
        w_EDF = self.weights(whole(rng, 4, 6), whole(rng, 30, 50), whole(rng, 10, 20), rng)
        w_EDF = w_EDF * 10.0 ** torch.randint(-1, 4, (len(w_EDF), 1, w_EDF.shape[2]), generator=rng)
        given = {"w_EDF": w_EDF}
        out = subject.run(there_and_back, w_EDF)
        q_EDF, scale_EF, back_EDF = expect_tuple(returned(out, given), 3, given, "q_EDF, scale_EF, w_EDF")
        self.expect_scales(scale_EF, w_EDF, given)
        self.expect_nearest(q_EDF, scale_EF, w_EDF, given)
        lost_EDF = (back_EDF.double() - w_EDF.double()).abs()
        within = bool((lost_EDF <= 0.51 * right.scales(w_EDF)[:, None]).all())
        expect(within, "a weight came back more than half a step away", given)

    @criterion(
        3,
        "square layers, and weights twice as large: the same q, twice the scales",
        hint="Which axis has its own scale when D equals F, and what does the size of the weights change?",
    )
    def test_square(self, subject, rng):
        size = whole(rng, 3, 6)
        w_EDF = self.weights(3, size, size, rng)
        replies = []
        for weights in (w_EDF, 2 * w_EDF, -w_EDF):
            given = {"w_EDF": weights}
            out = subject.run(there_and_back, weights)
            q_EDF, scale_EF, back_EDF = expect_tuple(returned(out, given), 3, given, "q_EDF, scale_EF, w_EDF")
            self.expect_scales(scale_EF, weights, given)
            self.expect_nearest(q_EDF, scale_EF, weights, given)
            expect_values(
                back_EDF, right.dequantize_int8(q_EDF, scale_EF).float(), "EDF", given, what="w_EDF"
            )
            replies.append(q_EDF)
        same = torch.equal(replies[0], replies[1]) and torch.equal(replies[0], -replies[2])
        expect(
            same, "a factor, or a sign, of all weights changed more than the scales, or the signs of q", given
        )
