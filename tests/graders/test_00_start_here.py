"""Grader of notebook 00's warm-up."""

from __future__ import annotations

import math

from graders.common import whole
from graders.probes import call
from moe_course.grading.exercises.expect import CheckFailed, expect_number, returned
from moe_course.grading.exercises.rubric import criterion, grades


@grades("tokens_per_expert")
class TestTokensPerExpert:
    @criterion(
        2, "assignments, shared evenly among the experts", hint="How many experts does each token choose?"
    )
    def test_share(self, subject, rng):
        experts, per_expert = whole(rng, 2, 99), whole(rng, 2, 99)
        for args in ((8, 2, 4), (12, 3, 9), (1000, 4, 16), (experts * per_expert, whole(rng, 2, 9), experts)):
            given = dict(zip(("num_tokens", "top_k", "num_experts"), args, strict=True))
            got = returned(subject.run(call, "tokens_per_expert", *args), given)
            if type(got) not in (int, float) or not math.isclose(got, args[0] * args[1] / args[2]):
                raise CheckFailed("the share is wrong", given, args[0] * args[1] / args[2], got)

    @criterion(2, "5 tokens over 2 experts are 2.5", hint="Which division keeps the half?")
    def test_float(self, subject, rng):
        given = {"num_tokens": 5, "top_k": 1, "num_experts": 2}
        expect_number(returned(subject.run(call, "tokens_per_expert", 5, 1, 2), given), 2.5, given)

    def behaviour(self, subject):
        return [subject.run(call, "tokens_per_expert", *args) for args in ((8, 2, 4), (5, 1, 2))]
