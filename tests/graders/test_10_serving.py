"""Graders of notebook 10, serving."""

from __future__ import annotations

import itertools
import math

import torch

from graders import oracles_serving as right
from graders.common import (
    dtypes,
    expect_values,
    named,
    refusal,
    seed,
    strided,
    together,
    typed,
    whole,
)
from graders.probes import call
from graders.probes.parts import with_parts
from graders.probes.serving import there_and_back
from graders.probes.specialization import call_with_generator
from graders.values import expect_dtype, expect_type, expect_value, number
from moe_course.grading.exercises.expect import (
    CheckFailed,
    expect,
    expect_raises,
    expect_tuple,
    expect_untouched,
    returned,
)
from moe_course.grading.exercises.rubric import criterion, grades


def expect_near(got, want, given, what):
    """`got` is the number `want` to six digits."""
    expect_value(got, want, given, what=what, atol=1e-6 * abs(want) + 1e-12)


CHOICE = "num_experts top_k batch"


@grades("expected_distinct_experts", hidden=4)
class TestExpectedDistinctExperts:
    def compare(self, subject, *args):
        given = named(CHOICE, args)
        got = returned(subject.run(call, "expected_distinct_experts", *args), given)
        expect_near(got, right.expected_distinct_experts(*args), given, "the number of experts")
        return got, given

    @criterion(1, "one token uses its K experts", hint="How many experts does a step of a single token read?")
    def test_one_token(self, subject, rng):
        for experts, k in ((4, 1), (8, 2), (whole(rng, 9, 60), whole(rng, 2, 8)), (5, 5)):
            self.compare(subject, experts, k, 1)

    @criterion(
        3,
        "a few tokens: experts that two of them share count once",
        hint="With which probability does one token miss an expert, and with which do all B miss it?",
    )
    def test_few_tokens(self, subject, rng):
        for experts, k, batch in ((4, 1, 2), (8, 2, 3), (6, 3, 2), (10, 4, whole(rng, 2, 4))):
            self.compare(subject, experts, k, batch)
        experts = whole(rng, 20, 60)
        self.compare(subject, experts, whole(rng, 2, 9), whole(rng, 3, 8))

    @criterion(
        1,
        "many tokens use all experts, and never more",
        hint="What happens to your number when the batch grows without end?",
    )
    def test_many_tokens(self, subject, rng):
        for experts, k, batch in ((4, 1, 200), (whole(rng, 5, 9), 2, 500), (7, 7, whole(rng, 2, 9))):
            self.compare(subject, experts, k, batch)

    @criterion(1, "a Python float", hint="Is an average of whole numbers a whole number?")
    def test_float(self, subject, rng):
        for args in ((8, 2, 1), (9, 9, 3), (whole(rng, 10, 20), 3, 4)):
            got, given = self.compare(subject, *args)
            expect_type(got, float, given, what="the result")

    test_together = together(2, test_one_token, test_few_tokens, test_many_tokens)

    def behaviour(self, subject):
        cases = ((8, 2, 1), (8, 2, 3), (6, 3, 2), (16, 1, 5), (4, 1, 60), (5, 5, 2), (20, 7, 4))
        return [typed(subject.run(call, "expected_distinct_experts", *args)) for args in cases]


DISTINCT = """
def expected_distinct_experts(num_experts, top_k, batch):
    missed = 1.0
    for _ in range(batch):
        missed = missed * (num_experts - top_k) / num_experts
    return num_experts * (1.0 - missed)
"""


def run_bytes(subject, *args):
    """Call decode_bytes; where 10.1 was skipped a stand-in takes its place."""
    parts = {"expected_distinct_experts": DISTINCT}
    return subject.run(with_parts, parts, "decode_bytes", "graders.probes:call", ("decode_bytes", *args), {})


BYTES = "fixed_bytes expert_bytes num_layers num_experts top_k batch kv_bytes_per_sequence"


@grades("decode_bytes", hidden=4)
class TestDecodeBytes:
    def compare(self, subject, *args):
        given = named(BYTES, args)
        got = returned(run_bytes(subject, *args), given)
        expect_near(got, right.decode_bytes(*args), given, "the number of bytes")
        return got, given

    @criterion(
        1,
        "weights that every token uses are read once a step",
        hint="Do two sequences of a batch need two copies of the attention weights?",
    )
    def test_fixed(self, subject, rng):
        for batch in (1, 3, whole(rng, 4, 9)):
            self.compare(subject, whole(rng, 100, 999), 0, 3, 8, 2, batch, 0)

    @criterion(
        3,
        "of every layer, the experts that the batch uses",
        hint="How many experts of one layer does the step read on average, and in how many layers?",
    )
    def test_experts(self, subject, rng):
        self.compare(subject, 0, 10, 1, 8, 2, 1, 0)
        for layers, batch in ((1, 3), (3, 1), (whole(rng, 4, 9), whole(rng, 2, 6))):
            self.compare(subject, 0, whole(rng, 5, 50), layers, 8, 2, batch, 0)
        self.compare(subject, 0, 7, 2, whole(rng, 20, 40), 3, whole(rng, 3, 6), 0)

    @criterion(
        1,
        "every sequence reads its own keys and values",
        hint="Which bytes can the sequences of a batch not share?",
    )
    def test_cache(self, subject, rng):
        for batch in (1, 3, whole(rng, 4, 9)):
            self.compare(subject, 0, 0, whole(rng, 2, 5), 8, 2, batch, whole(rng, 10, 99))

    @criterion(1, "a Python float", hint="Are the bytes of an average step a whole number?")
    def test_float(self, subject, rng):
        for args in ((100, 10, 2, 8, 8, 2, 5), (whole(rng, 10, 99), 6, 3, 7, 2, 3, 11)):
            got, given = self.compare(subject, *args)
            expect_type(got, float, given, what="the result")

    test_together = together(3, test_fixed, test_experts, test_cache)

    def behaviour(self, subject):
        cases = (
            (100, 0, 3, 8, 2, 3, 0),
            (0, 10, 1, 8, 2, 1, 0),
            (0, 10, 1, 8, 2, 3, 0),
            (0, 10, 3, 8, 2, 1, 0),
            (0, 0, 3, 8, 2, 4, 7),
            (100, 10, 3, 12, 3, 5, 7),
            (50, 3, 2, 20, 4, 2, 9),
            (100, 10, 2, 8, 8, 2, 5),
        )
        return [typed(run_bytes(subject, *args)) for args in cases]


STEP = "bytes_per_step active_params batch bandwidth peak_flops"


@grades("decode_seconds", hidden=3)
class TestDecodeSeconds:
    def compare(self, subject, *args):
        given = named(STEP, args)
        got = returned(subject.run(call, "decode_seconds", *args), given)
        expect_near(got, right.decode_seconds(*args), given, "the number of seconds")
        return got, given

    @criterion(
        1,
        "arithmetic that costs nothing: the bytes decide",
        hint="How long does a memory of 100 bytes per second take for 500 bytes, whatever the batch?",
    )
    def test_memory(self, subject, rng):
        for batch in (1, 2, whole(rng, 3, 9)):
            self.compare(subject, whole(rng, 100, 900), 7, batch, whole(rng, 20, 90), 1e12)

    @criterion(
        2,
        "a memory that costs nothing: 2 FLOPs for each active parameter and token",
        hint="What does a token do with a weight: how many operations, and how many tokens are there?",
    )
    def test_arithmetic(self, subject, rng):
        for batch in (1, 2, whole(rng, 3, 9)):
            self.compare(subject, 5, whole(rng, 100, 900), batch, 1e12, whole(rng, 20, 90))

    @criterion(
        2,
        "where both take time, the longer one decides",
        hint="Reading and computing go on at the same time. Who waits for whom?",
    )
    def test_longer(self, subject, rng):
        for read, params in ((300, 100), (200, 250), (whole(rng, 90, 99), 40), (60, whole(rng, 80, 99))):
            self.compare(subject, read, params, 2, 50, 100)
        self.compare(subject, 4e9, 3e9, whole(rng, 2, 500), 3e12, 9e14)

    @criterion(1, "a Python float", hint="Which type do you return, a number or a tensor?")
    def test_float(self, subject, rng):
        for args in ((100, 10, 1, 50, 1000), (1, 100, whole(rng, 2, 9), 1000, 50)):
            got, given = self.compare(subject, *args)
            expect_type(got, float, given, what="the result")

    test_together = together(2, test_memory, test_arithmetic, test_longer)

    def behaviour(self, subject):
        cases = (
            (500, 7, 1, 100, 1e12),
            (500, 7, 4, 100, 1e12),
            (5, 300, 1, 1e12, 100),
            (5, 300, 4, 1e12, 100),
            (300, 100, 2, 50, 100),
            (200, 250, 2, 50, 100),
        )
        return [typed(subject.run(call, "decode_seconds", *args)) for args in cases]


TRACE = "trace capacity policy"


def rivals_differ(trace, capacity, policy, rivals):
    """Whether each of the rivals answers something else than the right rule."""
    true = right.simulate_expert_cache(trace, capacity, policy)
    return all(rival(trace, capacity) != true for rival in rivals)


def draw_trace(rng, length, experts):
    """Uses of skewed experts, in an order that has neighbours alike more often than by chance."""
    trace = [whole(rng, 0, experts - 1)]
    while len(trace) < length:
        stay = whole(rng, 0, 3) == 0
        trace.append(trace[-1] if stay else min(whole(rng, 0, experts - 1), whole(rng, 0, experts - 1)))
    return trace


def told_apart(rng, policy, rivals, experts=5, length=14, capacity=None):
    """(trace, capacity) on which every rival rule goes wrong."""
    for _ in range(5000):
        trace, slots = draw_trace(rng, length, experts), capacity or whole(rng, 2, experts - 2)
        if rivals_differ(trace, slots, policy, rivals):
            return trace, slots
    raise AssertionError("no trace tells the rivals apart")


def cache_rule(trace, capacity, victim, hit=lambda uses, now: (uses + 1, now), forget=True):
    """A cache with another rule: `victim` chooses among {expert: (uses, time)}; `hit` says what a use changes."""
    cache, counts, hits = {}, {}, 0
    for now, expert in enumerate(trace):
        if expert in cache:
            hits += 1
            cache[expert] = hit(*cache[expert][:1], now) if hit else cache[expert]
        else:
            if len(cache) == capacity:
                leaving = victim(cache)
                counts[leaving] = cache.pop(leaving)[0]
            cache[expert] = (1 if forget else counts.get(expert, 0) + 1, now)
    return hits / len(trace)


def fifo(trace, capacity):
    return cache_rule(trace, capacity, lambda c: min(c, key=lambda e: c[e][1]), hit=None)


def lru(trace, capacity):
    return right.simulate_expert_cache(trace, capacity, "lru")


def lfu(trace, capacity):
    return right.simulate_expert_cache(trace, capacity, "lfu")


def most_recent_leaves(trace, capacity):
    return cache_rule(trace, capacity, lambda c: max(c, key=lambda e: c[e][1]))


def remembers(trace, capacity):
    return cache_rule(trace, capacity, lambda c: min(c, key=lambda e: c[e]), forget=False)


def tie_by(key):
    """LFU with another rule for equal counts."""
    return lambda trace, capacity: cache_rule(
        trace, capacity, lambda c: min(c, key=lambda e: (c[e][0], key(e, c[e])))
    )


newest_of_equals = tie_by(lambda e, entry: -entry[1])
lowest_of_equals = tie_by(lambda e, entry: e)
highest_of_equals = tie_by(lambda e, entry: -e)


def oldest_of_equals(trace, capacity):
    """Of equals the one that was loaded first."""
    return cache_rule(
        trace, capacity, lambda c: min(c, key=lambda e: c[e][0]), hit=lambda uses, now: (uses + 1, now)
    )


@grades("simulate_expert_cache", hidden=5)
class TestSimulateExpertCache:
    def compare(self, subject, trace, capacity, policy):
        given = named(TRACE, (trace, capacity, policy))
        out = subject.run(call, "simulate_expert_cache", trace, capacity, policy)
        want = right.simulate_expert_cache(trace, capacity, policy)
        expect_value(returned(out, given), want, given, what="the hit rate", atol=1e-9)
        return out, given

    @criterion(
        1,
        "a cache with room for all: only the first use of each expert misses",
        hint="Is an expert in the cache before it was loaded, and what do you divide the hits by?",
    )
    def test_room(self, subject, rng):
        for trace in ([0, 0, 1], [3, 1, 3, 3, 1], draw_trace(rng, whole(rng, 8, 12), 4)):
            for policy in ("lru", "lfu"):
                self.compare(subject, trace, 6, policy)

    @criterion(
        2,
        '"lru": the expert that was not used for the longest time leaves',
        hint="Which expert leaves: the one that was loaded first, or the one whose last use is longest ago?",
    )
    def test_lru(self, subject, rng):
        self.compare(subject, [0, 1, 0, 2, 0, 1], 2, "lru")
        for _ in range(3):
            trace, capacity = told_apart(rng, "lru", (fifo, most_recent_leaves, lfu))
            self.compare(subject, trace, capacity, "lru")

    @criterion(
        2,
        '"lfu": the expert with the fewest uses leaves',
        hint="What must you know of each cached expert to find the one that is used least?",
    )
    def test_lfu(self, subject, rng):
        self.compare(subject, [0, 0, 0, 1, 2, 0], 2, "lfu")
        for _ in range(3):
            self.compare(subject, *told_apart(rng, "lfu", (lru, fifo, most_recent_leaves)), "lfu")

    @criterion(
        1,
        '"lfu": of experts with equally many uses, the less recently used one leaves',
        hint="Two experts were used twice each. Which of them did the text need last?",
    )
    def test_ties(self, subject, rng):
        rivals = (newest_of_equals, lowest_of_equals, highest_of_equals)
        for _ in range(3):
            self.compare(subject, *told_apart(rng, "lfu", rivals), "lfu")
        self.compare(subject, *told_apart(rng, "lfu", (oldest_of_equals,)), "lfu")

    @criterion(
        1,
        '"lfu": the count of an expert that leaves the cache is forgotten',
        hint="An expert comes back after it was evicted. How often has it been used, from the cache's point of view?",
    )
    def test_forgets(self, subject, rng):
        for _ in range(3):
            self.compare(subject, *told_apart(rng, "lfu", (remembers,), experts=6, length=24), "lfu")

    @criterion(
        1,
        "a capacity below 1, and another policy, raise ValueError",
        hint="What does a cache without room hold, and what should a misspelt policy do?",
    )
    def test_bad_values(self, subject, rng):
        trace = draw_trace(rng, 6, 3)
        self.compare(subject, trace, 1, "lru")
        for args in (
            (trace, 0, "lru"),
            (trace, -whole(rng, 1, 5), "lfu"),
            (trace, 2, "fifo"),
            (trace, 2, "LRU!"),
        ):
            expect_raises(subject.run(call, "simulate_expert_cache", *args), "ValueError", named(TRACE, args))

    @criterion(
        1, "a Python float; the trace stays as it was", hint="Do you empty the list that you were given?"
    )
    def test_form(self, subject, rng):
        for trace in ([1, 1], [0, 1, 2], draw_trace(rng, 9, 4)):
            out, given = self.compare(subject, trace, 2, "lru")
            expect_type(out.value, float, given, what="the hit rate")
            expect(out.inputs[0] == trace, "the trace was edited in place", given)

    test_together = together(4, test_room, test_lru, test_lfu, test_ties, test_forgets)

    def behaviour(self, subject):
        rng = seed(1041)
        cases = [
            ([0, 0, 1, 2, 1], 5, "lru"),
            ([0, 0, 1, 2, 1], 5, "lfu"),
            ([0, 1, 2], 2, "lru"),
            (*told_apart(rng, "lru", (fifo,), length=20), "lru"),
            (*told_apart(rng, "lru", (most_recent_leaves, lfu), length=20), "lru"),
            (*told_apart(rng, "lfu", (lru, fifo), length=20), "lfu"),
            (*told_apart(rng, "lfu", (newest_of_equals,), length=20), "lfu"),
            (*told_apart(rng, "lfu", (lowest_of_equals,), length=20), "lfu"),
            (*told_apart(rng, "lfu", (highest_of_equals,), length=20), "lfu"),
            (*told_apart(rng, "lfu", (oldest_of_equals,), length=24), "lfu"),
            (*told_apart(rng, "lfu", (remembers,), experts=6, length=24), "lfu"),
            (draw_trace(rng, 20, 5), 1, "lru"),
        ]
        outs = [subject.run(call, "simulate_expert_cache", *args) for args in cases]
        bad = (([0, 1], 0, "lru"), ([0, 1], -2, "lfu"), ([0, 1], 1, "fifo"))
        return [
            *(typed(out) for out in outs),
            outs[0].inputs,
            *(refusal(subject.run(call, "simulate_expert_cache", *args)) for args in bad),
        ]


TAIL = "probs_E num_ranks tokens seconds_per_token percentiles rounds"


def every_round(rounds):
    """Percentiles whose linear interpolation gives the sorted times of all rounds back."""
    return [100 * n / (rounds - 1) for n in range(rounds)]


def is_finite(time):
    return isinstance(number(time), int | float) and abs(number(time)) < 1e300


class Latencies:
    """Calls of the learner's tail_latency, and the laws that its numbers must follow."""

    def times(self, subject, args, rng=None, calls=1, elsewhere=0, start=None):
        """The percentiles of each call, as lists of numbers; and what was given."""
        given = named(TAIL, args)
        start = whole(rng, 0, 10**6) if start is None else start
        out = subject.run(call_with_generator, "tail_latency", args, start, calls, elsewhere)
        found = returned(out, given)
        for times in found:
            values = times.tolist() if isinstance(times, torch.Tensor) else times
            count = len(args[4])
            good = isinstance(values, list | tuple) and len(values) == count
            if not good or not all(is_finite(t) for t in values):
                raise CheckFailed(
                    f"return a list of {count} numbers, one for each percentile", given, None, times
                )
        return [[float(number(t)) for t in times] for times in found], given

    def law(self, subject, rng, probs, ranks, tokens, rounds=300, seconds=1.0):
        """Each largest load comes as often as it should."""
        args = (torch.tensor(probs), ranks, tokens, seconds, every_round(rounds), rounds)
        (times,), given = self.times(subject, args, rng)
        given = {**given, "percentiles": "those that list every round"}
        law = right.max_load_law(probs, ranks, tokens)
        counts = dict.fromkeys(law, 0)
        for time in times:
            load = round(time / seconds) if math.isfinite(time) else -1
            known = load in counts and abs(time / seconds - load) < 1e-3
            possible = [load * seconds for load in sorted(law)]
            expect(known, f"a round took {time} seconds; possible are {possible}", given)
            counts[load] += 1
        for load, p in law.items():
            took = f"{counts[load]} of {rounds} rounds took {load * seconds:g} seconds"
            message = f"{took}; the probability of that is {p:.3f}"
            expect(right.plausible(counts[load], rounds, min(max(p, 0.0), 1.0)), message, given)


@grades("tail_latency", hidden=6)
class TestTailLatency(Latencies):
    def exact(self, subject, rng, probs, ranks, tokens, seconds, want):
        args = (torch.tensor(probs), ranks, tokens, seconds, [50, 99], 5)
        (times,), given = self.times(subject, args, rng)
        expect_values(times, torch.tensor([want, want]), "N", given, what="the times")

    @criterion(
        1,
        "one rank does all the work: tokens × seconds_per_token",
        hint="If there is only one rank, how many tokens does it have?",
    )
    def test_one_rank(self, subject, rng):
        self.exact(subject, rng, [0.5, 0.5], 1, 3, 2.0, 6.0)
        self.exact(subject, rng, [0.2, 0.3, 0.5], 1, whole(rng, 7, 7), 0.5, 3.5)

    @criterion(
        2,
        "experts lie in blocks, and the rank with the most tokens decides",
        hint="With 4 experts on 2 ranks, where is expert 1: with expert 0, or with expert 3?",
    )
    def test_blocks(self, subject, rng):
        self.exact(subject, rng, [0.5, 0.5, 0.0, 0.0], 2, 6, 1.0, 6.0)
        self.exact(subject, rng, [0.0, 0.0, 0.0, 0.2, 0.5, 0.3], 2, whole(rng, 8, 8), 0.25, 2.0)

    @criterion(
        2,
        "the slowest rank decides, and the tokens are drawn anew in each round",
        hint="Which rank does a layer wait for, and are two rounds alike?",
    )
    def test_law(self, subject, rng):
        self.law(subject, rng, [0.5, 0.5], 2, 2)
        self.law(subject, rng, [0.85, 0.05, 0.06, 0.04], 2, 5)
        self.law(subject, rng, [0.3, 0.1, 0.1, 0.1, 0.3, 0.1], 3, 4, seconds=0.5)

    @criterion(
        1,
        "percentiles from 0 to 100, in the order asked, with linear interpolation between rounds",
        hint="What is the 50th percentile of two rounds that took 2 and 4?",
    )
    def test_percentiles(self, subject, rng):
        for rounds, asked in ((2, [100, 0, 50, 25]), (3, [0, 100, 75, 50])):
            args = (torch.tensor([0.5, 0.25, 0.25]), 3, 9, 1.0, asked, rounds)
            found, given = self.times(subject, args, rng, calls=12)
            for times in found:
                at = dict(zip(asked, times, strict=True))
                whole_loads = all(abs(at[p] - round(at[p])) < 1e-4 for p in (0, 100))
                expect(
                    whole_loads, "the 0th and the 100th percentile are rounds, so whole numbers here", given
                )
                expect(at[0] <= at[50] <= at[100], "percentiles rise, whatever the order asked for", given)
                between = at[0] + (at[100] - at[0]) * 0.25 if rounds == 2 else (at[50] + at[100]) / 2
                asked_for = at[25] if rounds == 2 else at[75]
                expect(
                    abs(asked_for - between) < 1e-4, "a percentile between two rounds is interpolated", given
                )

    @criterion(
        1,
        "all randomness comes from the generator: repeatable, and new with every call",
        hint="Does every random number come from `generator`, and does a second call go on from there?",
    )
    def test_generator(self, subject, rng):
        args = (torch.full((8,), 0.125), 4, 40, 1.0, [0, 50, 100], 5)
        start = whole(rng, 0, 10**6)

        def drawn(first, elsewhere):
            found, given = self.times(subject, args, calls=12, elsewhere=elsewhere, start=first)
            expect(
                len({*map(tuple, found)}) > 1,
                "twelve calls with one generator gave the same each time",
                given,
            )
            return found, given

        once, given = drawn(start, 1)
        expect(once == drawn(start, 2)[0], "the same generator state gave other times", given)
        expect(once != drawn(start + 1, 1)[0], "another generator state gave the same times", given)

    @criterion(
        1, "a list of Python floats; the probabilities stay as they were", hint="Which type has each number?"
    )
    def test_form(self, subject, rng):
        args = (torch.tensor([0.7, 0.3]), 2, 4, 1.0, [50, 99], 6)
        given = named(TAIL, args)
        out = subject.run(call_with_generator, "tail_latency", args, whole(rng, 0, 10**6))
        times = returned(out, given)[0]
        expect_type(times, list, given, what="the result")
        for time in times:
            expect_type(time, float, given, what="each percentile")
        expect_untouched(out, args, TAIL.split())

    test_together = together(3, test_one_rank, test_blocks, test_law, test_percentiles)

    def behaviour(self, subject):
        """Replies in words, since draws differ from one right answer to the next: the words are the same for all."""
        third = [1 / 3, 1 / 3, 1 / 3, 0.0, 0.0, 0.0]
        cases = (
            ([0.5, 0.5], 1, 3, 2.0, [50, 99], 4, 1.0),
            ([0.0, 1.0, 0.0, 0.0], 4, 5, 1.0, [100, 0], 3, 1.0),
            (third, 2, 600, 0.5, [50, 99], 20, 50.0),
            ([0.7, 0.1, 0.1, 0.1], 2, 600, 1.0, [50], 20, 100.0),
            ([0.5, 0.5], 2, 2, 1.0, every_round(201), 201, 0.5),
            ([0.25] * 4, 4, 30, 1.0, [50, 99], 100, 3.5),
            ([0.5, 0.25, 0.25], 3, 9, 1.0, [100, 0, 50], 2, 3.0),
        )
        replies = []
        for probs, *rest, unit in cases:
            args = (torch.tensor(probs), *rest)
            out = subject.run(call_with_generator, "tail_latency", args, 11, 20)
            replies.append(in_words(out, rest[3], unit))
        form = (torch.tensor([0.7, 0.3]), 2, 4, 1.0, [50, 99], 6)
        out = subject.run(call_with_generator, "tail_latency", form, 3)
        first = None if out.error else out.value[0]
        parts = [first, *first] if isinstance(first, list | tuple) else [first]
        kinds = out.error or [type(part).__name__ for part in parts]
        return [*replies, kinds, out.inputs[0] if out.inputs else None, elsewhere_too(subject, form)]


def in_words(out, asked, unit):
    """What is the same for every right answer: order, whole numbers, rough size, and whether calls differ."""
    if out.error:
        return out.error
    calls = [times.tolist() if isinstance(times, torch.Tensor) else times for times in out.value]
    if not all(isinstance(times, list | tuple) and len(times) == len(asked) for times in calls):
        return "another length"
    if not all(is_finite(time) for times in calls for time in times):
        return "no numbers"
    values = [[float(number(time)) for time in times] for times in calls]
    order = sorted(range(len(asked)), key=lambda n: asked[n])
    rises = all(all(a <= b for a, b in itertools.pairwise(t[n] for n in order)) for t in values)
    flat = all(max(times) == min(times) for times in values)
    every = [time for times in values for time in times]
    whole_numbers = all(abs(time - round(time)) < 1e-3 for time in every)
    words = ["flat" if flat else "rises" if rises else "falls", "whole" if whole_numbers else "between"]
    return [*words, round(sum(every) / len(every) / unit), len({tuple(times) for times in values}) > 1]


def elsewhere_too(subject, args):
    """Whether the generator alone decides, in words."""
    first, second = (
        subject.run(call_with_generator, "tail_latency", (*args[:2], 40, *args[3:]), 3, 4, elsewhere)
        for elsewhere in (1, 2)
    )
    if first.error or second.error:
        return first.error or second.error
    return "repeats" if str(first.value) == str(second.value) else "differs"


@grades("quantize_int8", hidden=6)
class TestQuantizeInt8:
    @staticmethod
    def weights(experts, d_model, d_ff, rng, dtype=torch.float32):
        """Columns and rows of very different size, none of them zero."""
        w_EDF = torch.randn(experts, d_model, d_ff, generator=rng)
        size_E1F = 0.5 + 4 * torch.rand(experts, 1, d_ff, generator=rng)
        size_1D1 = 0.5 + torch.rand(1, d_model, 1, generator=rng)
        return (w_EDF * size_E1F * size_1D1).to(dtype)

    def stored(self, subject, w_EDF):
        given = {"w_EDF": w_EDF}
        out = subject.run(call, "quantize_int8", w_EDF)
        return out, *expect_tuple(returned(out, given), 2, given, "q_EDF, scale_EF"), given

    def expect_scales(self, scale_EF, w_EDF, given, skip=None):
        want_EF = right.scales(w_EDF)
        tolerance = 1e-2 if w_EDF.dtype == torch.bfloat16 else 1e-4
        if skip is not None and isinstance(scale_EF, torch.Tensor) and scale_EF.shape == want_EF.shape:
            expect(
                bool(scale_EF.isfinite().all()),
                "the scale of a column of zeros should be a finite number",
                given,
            )
            scale_EF = torch.where(skip, want_EF.to(scale_EF.dtype), scale_EF)
        expect_values(scale_EF, want_EF.float(), "EF", given, what="scale_EF", rtol=tolerance, atol=0)

    def expect_nearest(self, q_EDF, scale_EF, w_EDF, given):
        """q · scale is the nearest multiple of the scale; a bfloat16 quotient may be one off."""
        if not isinstance(scale_EF, torch.Tensor):
            raise CheckFailed("scale_EF should be a tensor", given, None, scale_EF)
        if not isinstance(q_EDF, torch.Tensor) or q_EDF.shape != w_EDF.shape:
            raise CheckFailed("q_EDF should have the shape of w_EDF", given, None, q_EDF)
        error_EDF = (w_EDF.double() / scale_EF.double()[:, None] - q_EDF.double()).abs()
        most = 1.02 if w_EDF.dtype == torch.bfloat16 else 0.501
        worst = error_EDF.max().item()
        expect(
            worst <= most,
            f"a value of q is off by {worst:.2f} steps; the nearest is at most half a step away",
            given,
        )
        largest = q_EDF.double().abs().max().item()
        expect(largest <= 127, f"q should stay within ±127, and reaches {largest:g}", given)

    @criterion(
        2,
        "one scale for each expert and output column: max|w| / 127",
        hint="Over which axis is the maximum taken, and of what: of the weights or of their sizes?",
    )
    def test_scales(self, subject, rng):
        for sizes in ((1, 2, 3), (2, 4, 3), (whole(rng, 2, 3), 5, whole(rng, 6, 8))):
            w_EDF = self.weights(*sizes, rng)
            _, _, scale_EF, given = self.stored(subject, w_EDF)
            self.expect_scales(scale_EF, w_EDF, given)

    @criterion(
        2,
        "each weight is stored as the nearest multiple of its scale, within ±127",
        hint="What does a cast to int8 do with 3.9, and what with 128?",
    )
    def test_nearest(self, subject, rng):
        for sizes in ((1, 2, 3), (2, 9, 4), (3, whole(rng, 20, 30), whole(rng, 5, 7))):
            w_EDF = self.weights(*sizes, rng)
            _, q_EDF, scale_EF, given = self.stored(subject, w_EDF)
            self.expect_scales(scale_EF, w_EDF, given)
            self.expect_nearest(q_EDF, scale_EF, w_EDF, given)

    @criterion(
        2,
        "dequantize_int8 multiplies each column by its scale",
        hint="Where does the scale of a column stand in a tensor of shape (E, D, F)?",
    )
    def test_back(self, subject, rng):
        for experts, d_model, d_ff in ((1, 2, 3), (2, 3, 3), (3, whole(rng, 4, 6), 5)):
            q_EDF = torch.randint(-127, 128, (experts, d_model, d_ff), generator=rng, dtype=torch.int8)
            scale_EF = 0.1 + torch.rand(experts, d_ff, generator=rng)
            given = named("q_EDF scale_EF", (q_EDF, scale_EF))
            got = returned(subject.run(call, "dequantize_int8", q_EDF, scale_EF), given)
            want_EDF = right.dequantize_int8(q_EDF, scale_EF).float()
            expect_values(got, want_EDF, "EDF", given, what="w_EDF", rtol=1e-5, atol=1e-6)

    @criterion(
        1,
        "a column of zeros stays zero, and its scale is finite",
        hint="What is 0 / 0, and what does a cast to int8 make of it?",
    )
    def test_zeros(self, subject, rng):
        w_EDF = self.weights(2, 3, 4, rng)
        w_EDF[whole(rng, 0, 1), :, whole(rng, 0, 3)] = 0
        for with_zeros_EDF in (torch.zeros(1, 2, 1), w_EDF):
            given = {"w_EDF": with_zeros_EDF}
            out = subject.run(there_and_back, with_zeros_EDF)
            q_EDF, scale_EF, back_EDF = expect_tuple(returned(out, given), 3, given, "q_EDF, scale_EF, w_EDF")
            empty_EF = (with_zeros_EDF == 0).all(dim=1)
            self.expect_scales(scale_EF, with_zeros_EDF, given, skip=empty_EF)
            held = isinstance(q_EDF, torch.Tensor) and q_EDF.shape == with_zeros_EDF.shape
            expect(
                held and not q_EDF.mT[empty_EF].any(), "a column of zeros should be stored as zeros", given
            )
            values = isinstance(back_EDF, torch.Tensor) and back_EDF.shape == with_zeros_EDF.shape
            expect(
                values and not back_EDF.mT[empty_EF].any(),
                "a column of zeros should come back as zeros",
                given,
            )

    @criterion(
        1,
        "q is int8 and never wraps around, also for tiny float16 weights; scales and weights have the dtype of w",
        hint="How many bytes does a value of q take, and which dtype had the weights before?",
    )
    def test_dtypes(self, subject, rng):
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            w_EDF = strided(self.weights(2, 5, 4, rng, dtype))
            given = {"w_EDF": w_EDF}
            out = subject.run(there_and_back, w_EDF)
            q_EDF, scale_EF, back_EDF = expect_tuple(returned(out, given), 3, given, "q_EDF, scale_EF, w_EDF")
            expect_dtype(q_EDF, torch.int8, given, what="q_EDF")
            expect_dtype(scale_EF, dtype, given, what="scale_EF")
            expect_dtype(back_EDF, dtype, given, what="the weights that come back")
            expect_untouched(out, (w_EDF,), ["w_EDF"])
            self.expect_scales(scale_EF, w_EDF, given)
            self.expect_nearest(q_EDF, scale_EF, w_EDF, given)
        tiny_EDF = torch.tensor([[[1e-5, -1e-5], [-4e-6, 4e-6], [1e-5, -1e-5]]], dtype=torch.float16)
        _, q_EDF, _, given = self.stored(subject, tiny_EDF)
        kept = isinstance(q_EDF, torch.Tensor) and q_EDF.shape == tiny_EDF.shape
        largest = q_EDF.double()[0, 0].tolist() if kept else None
        expect(
            largest == [127, -127], "the largest weight of a column should be stored as 127 or −127", given
        )

    test_together = together(3, test_scales, test_nearest, test_back)

    def behaviour(self, subject):
        w_EDF = self.weights(2, 3, 4, seed(1061))
        square_EDF = self.weights(2, 3, 3, seed(1062))
        zero_EDF = self.weights(1, 2, 3, seed(1063))
        zero_EDF[0, :, 1] = 0
        q_EDF = torch.randint(-127, 128, (2, 3, 3), generator=seed(1064), dtype=torch.int8)
        scale_EF = 0.1 + torch.rand(2, 3, generator=seed(1065))
        outs = [subject.run(call, "quantize_int8", weights) for weights in (w_EDF, square_EDF)]
        back = subject.run(call, "dequantize_int8", q_EDF, scale_EF)
        others = [self.weights(1, 3, 2, seed(1066), dtype) for dtype in (torch.bfloat16, torch.float64)]
        large = self.weights(3, 40, 6, seed(1067), torch.bfloat16)
        return [
            *outs,
            outs[0].inputs,
            without_scale(subject.run(there_and_back, zero_EDF)),
            back,
            *(dtypes(out) for out in (outs[0], back)),
            *(dtypes(subject.run(there_and_back, other_EDF)) for other_EDF in others),
            sizes_of(subject.run(call, "quantize_int8", large), large),
            tiny_ones(subject),
        ]


def tiny_ones(subject):
    """How the largest weights of a column are stored whose float16 scale is rounded far."""
    out = subject.run(call, "quantize_int8", torch.tensor([[[1e-5], [-1e-5]]], dtype=torch.float16))
    if out.error or not isinstance(out.value, tuple) or len(out.value) != 2:
        return out.error or "no pair"
    return out.value[0] if isinstance(out.value[0], torch.Tensor) else "no tensor"


def without_scale(out):
    """What was stored of a column of zeros, and what came back: its scale may be any finite number."""
    if out.error or not isinstance(out.value, tuple) or len(out.value) != 3:
        return out.error or "no pair"
    q_EDF, scale_EF, back_EDF = out.value
    is_finite = bool(scale_EF.isfinite().all()) if isinstance(scale_EF, torch.Tensor) else "no tensor"
    return [q_EDF, is_finite, back_EDF]


def sizes_of(out, w_EDF):
    """How far the stored values are from the weights, in whole steps: rounding in bfloat16 is free."""
    if out.error or not isinstance(out.value, tuple) or len(out.value) != 2:
        return out.error or "no pair"
    q_EDF, scale_EF = out.value
    if not isinstance(q_EDF, torch.Tensor) or q_EDF.shape != w_EDF.shape:
        return "another shape"
    if not isinstance(scale_EF, torch.Tensor) or scale_EF.shape != (w_EDF.shape[0], w_EDF.shape[2]):
        return "scales of another shape"
    error_EDF = (w_EDF.double() / scale_EF.double()[:, None] - q_EDF.double()).abs()
    return "near" if error_EDF.max() < 1.02 else "far"
