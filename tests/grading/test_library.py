"""The graders and the library agree: its answers get full marks, with every seed of this session, and junk gets none.

Part of the student bundle, so it needs nothing of what stays out of that.
"""

import importlib

import pytest

from moe_course.grading.exercises.registry import EXERCISES
from moe_course.grading.judge.subject import LiveSubject
from moe_course.grading.judge.verdict import grade


def library_version(name: str) -> LiveSubject:
    exercise = EXERCISES[name]
    module = importlib.import_module(exercise.library)
    return LiveSubject({part: getattr(module, part) for part in exercise.parts})


@pytest.mark.parametrize("name", EXERCISES)
def test_library_is_accepted(name, grader_seeds):
    for seed in grader_seeds:
        verdict = grade(name, library_version(name), seed)
        assert verdict.status == "passed", f"seed {seed}: {[r.message for r in verdict.checks if r.failure]}"


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("noisy_logits", 119),  # a noise scale beyond 709, whose exp is no float64
        ("noisy_logits", 133),
        ("MoELayer", 1054),  # two experts so alike that no token of common length tells them apart
    ],
)
def test_seeds_that_once_cost_a_right_answer_points(name, seed):
    assert grade(name, library_version(name), seed).status == "passed"


JUNK = (None, 3, 2.75, "text", (), (1,), (None, None), [[1, 2], [3]], {"a": 1}, object(), float("nan"), True)


@pytest.mark.parametrize("name", EXERCISES)
def test_junk_scores_nothing_and_raises_nothing(name):
    for junk in JUNK:
        verdict = grade(name, LiveSubject({name: lambda *args, _junk=junk, **kwargs: _junk}), seed=1)
        assert verdict.status == "failed", junk
        assert verdict.score == 0, junk
