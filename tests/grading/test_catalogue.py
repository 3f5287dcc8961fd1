"""The graders themselves are tested: every misconception is rejected by the criterion it names, every
alternative and the library's own answer is accepted, with every seed of this session."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_library import library_version

from moe_course.grading.exercises.expect import CheckFailed
from moe_course.grading.exercises.locate import graders_dir
from moe_course.grading.exercises.registry import EXERCISES, NOTEBOOKS
from moe_course.grading.exercises.rubric import criteria, grader_of, hidden_grader_of
from moe_course.grading.judge.catalogue import Entry, entries, record
from moe_course.grading.judge.diagnosis import behaviour, diagnose, same
from moe_course.grading.judge.subject import LiveSubject, ProbeFailed
from moe_course.grading.judge.verdict import grade, seeded

TESTS = Path(__file__).parent.parent


def all_entries(kind: str) -> list[Entry]:
    return [entry for name in EXERCISES for entry in entries(TESTS / kind, name)]


def subject_of(entry: Entry) -> LiveSubject:
    return LiveSubject({entry.exercise: entry.written})


def title(entry: Entry) -> str:
    return f"{entry.exercise}-{entry.name}"


@pytest.mark.parametrize("entry", all_entries("misconceptions"), ids=title)
def test_misconception_is_rejected_by_the_criterion_it_names(entry, grader_seeds):
    grader = grader_of(entry.exercise)
    assert entry.caught_by in {line.name for line in criteria(grader)}
    for seed in grader_seeds:
        rng = seeded(seed, entry.exercise, entry.caught_by)
        with pytest.raises((CheckFailed, ProbeFailed)):
            getattr(grader(), f"test_{entry.caught_by}")(subject_of(entry), rng)


@pytest.mark.parametrize("entry", all_entries("misconceptions"), ids=title)
def test_misconception_is_named(entry):
    """Diagnosis gives its name, or the name of one that behaves alike on the fixed probes."""
    found = diagnose(entry.exercise, subject_of(entry))
    if found is None:
        pytest.fail(f"{entry.name} is not diagnosed: is graders/recorded up to date?")
    assert found.name == entry.name


def test_a_second_mistake_does_not_hide_the_first():
    """The router counted once for each expert, and bad arguments accepted besides."""

    def moe_ffn_params(d_model, d_ff, num_experts, top_k, num_shared=0):
        expert = 3 * d_model * d_ff
        return (num_experts + num_shared) * expert, (top_k + num_shared) * expert

    found = diagnose("moe_ffn_params", LiveSubject({"moe_ffn_params": moe_ffn_params}))
    assert found is not None
    assert found.name == "no_router"


@pytest.mark.parametrize("entry", all_entries("misconceptions"), ids=title)
def test_misconception_asks_a_question(entry):
    assert entry.question.endswith("?") or "?" in entry.question
    assert len(entry.question) > 15


@pytest.mark.parametrize("entry", all_entries("alternatives"), ids=title)
def test_alternative_is_accepted(entry, grader_seeds):
    for seed in grader_seeds:
        verdict = grade(entry.exercise, subject_of(entry), seed)
        assert verdict.status == "passed", f"seed {seed}: {[r.message for r in verdict.checks if r.failure]}"


@pytest.mark.parametrize("name", EXERCISES)
def test_right_answers_are_never_diagnosed(name):
    assert diagnose(name, library_version(name)) is None
    right = behaviour(name, library_version(name))
    for entry in entries(TESTS / "alternatives", name):
        assert same(behaviour(name, subject_of(entry)), right)


@pytest.mark.parametrize("name", EXERCISES)
def test_catalogue_is_large_enough(name):
    assert len(entries(TESTS / "misconceptions", name)) >= 3
    assert len(entries(TESTS / "alternatives", name)) >= 2


@pytest.mark.parametrize("name", EXERCISES)
def test_every_criterion_catches_a_misconception(name):
    """A criterion that no misconception needs is either idle or lacks its misconception.

    The criterion `together` repeats others, so none needs it alone: it must reject one that another names.
    """
    catalogue = entries(TESTS / "misconceptions", name)
    needed = {entry.caught_by for entry in catalogue}
    repeated = {line.name for line in criteria(grader_of(name))} - needed
    assert repeated <= {"together"}
    assert all(any(rejects(grader_of(name), line, entry) for entry in catalogue) for line in repeated)


@pytest.mark.parametrize("name", [name for name in EXERCISES if EXERCISES[name].graded])
def test_hidden_criteria_are_worth_what_is_declared_and_catch_something(name):
    secret = hidden_grader_of(name)
    assert secret is not None, "an exercise that counts has hidden criteria"
    assert not {line.name for line in criteria(secret)} & {line.name for line in criteria(grader_of(name))}
    for line in criteria(secret):
        assert any(rejects(secret, line.name, entry) for entry in entries(TESTS / "misconceptions", name)), (
            line.name
        )


def rejects(grader: type, criterion: str, entry: Entry) -> bool:
    try:
        getattr(grader(), f"test_{criterion}")(subject_of(entry), seeded(1, entry.exercise, criterion))
    except (CheckFailed, ProbeFailed):
        return True
    return False


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_recorded_behaviour_is_fresh(notebook):
    """`moe-course record` writes these files."""
    path = graders_dir() / "recorded" / f"{notebook}.json"
    assert path.read_text(encoding="utf-8") == record(TESTS / "misconceptions", notebook)
