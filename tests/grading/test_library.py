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


JUNK = (None, 3, 2.75, "text", (), (1,), (None, None), [[1, 2], [3]], {"a": 1}, object(), float("nan"), True)


@pytest.mark.parametrize("name", EXERCISES)
def test_junk_scores_nothing_and_raises_nothing(name):
    for junk in JUNK:
        verdict = grade(name, LiveSubject({name: lambda *args, _junk=junk, **kwargs: _junk}), seed=1)
        assert verdict.status == "failed", junk
        assert verdict.score == 0, junk
