"""The graders themselves are tested: every misconception is rejected by the criterion it names, every
alternative and the library's own answer is accepted, with every seed of this session."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest
from synthetic import one_in
from test_library import library_version

from moe_course.grading.exercises.expect import CheckFailed
from moe_course.grading.exercises.locate import graders_dir
from moe_course.grading.exercises.registry import EXERCISES, NOTEBOOKS
from moe_course.grading.exercises.rubric import criteria, grader_of, hidden_grader_of
from moe_course.grading.judge import catalogue
from moe_course.grading.judge.catalogue import Entry, entries, record, same_recording
from moe_course.grading.judge.diagnosis import behaviour, diagnose, mistake, recorded, same
from moe_course.grading.judge.subject import LiveSubject, ProbeFailed
from moe_course.grading.judge.verdict import grade, seeded

TESTS = Path(__file__).parent.parent


def all_entries(kind: str) -> list[Entry]:
    return [entry for name in EXERCISES for entry in entries(TESTS / kind, name)]


def subject_of(entry: Entry) -> LiveSubject:
    return LiveSubject(entry.namespace)


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
    """Diagnosis gives its name, as the whole explanation, or says that the code computes nothing."""
    fails = recorded(EXERCISES[entry.exercise].notebook)[entry.exercise][entry.name]["fails"]
    assert entry.caught_by in fails, "is graders/recorded up to date?"
    found, sentence = diagnose(entry.exercise, subject_of(entry), fails)
    if not sentence:
        assert found is not None
        assert (found.name, found.fit) == (mistake(entry.name), "whole")


def test_a_second_mistake_does_not_hide_the_first():
    """The router is not counted, and bad arguments are accepted besides: the message says that it is two."""

    def moe_ffn_params(d_model, d_ff, num_experts, top_k, num_shared=0):
        expert = 3 * d_model * d_ff
        return (num_experts + num_shared) * expert, (top_k + num_shared) * expert

    found = grade(
        "moe_ffn_params", LiveSubject({"moe_ffn_params": moe_ffn_params}), 1, hidden=False
    ).diagnosis
    assert found is not None
    assert (found.name, found.fit) == ("no_router", "part")


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
    """Not even if a grader rejected them."""
    for line in criteria(grader_of(name)):
        assert diagnose(name, library_version(name), [line.name]) == (None, "")
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
    """`moe-course release` writes these files; it runs again what is made of files that have changed."""
    text = (graders_dir() / "recorded" / f"{notebook}.json").read_text(encoding="utf-8")
    assert same_recording(text, record(TESTS / "misconceptions", notebook, text, with_criteria=False))


@pytest.mark.slow
@pytest.mark.parametrize("notebook", one_in(6, NOTEBOOKS))
def test_recorded_behaviour_is_what_a_new_recording_gives(notebook):
    text = (graders_dir() / "recorded" / f"{notebook}.json").read_text(encoding="utf-8")
    fresh = record(TESTS / "misconceptions", notebook)
    assert same_recording(text, fresh)
    assert criteria_of(text) == criteria_of(fresh)


def criteria_of(recording: str) -> dict[tuple[str, str], list[str]]:
    return {
        (exercise, name): content.get("fails", [])
        for exercise, found in json.loads(recording).items()
        for name, content in found.items()
    }


def test_what_a_recording_is_made_of_does_not_depend_on_earlier_imports():
    """Once imported, each of a package's modules is an attribute of it."""
    importlib.import_module("graders.probes.dispatch")
    grader = sys.modules[grader_of("router_probs").__module__]
    names = {path.name for path in catalogue._used(grader)}
    assert "common.py" in names
    assert "dispatch.py" not in names


def test_a_changed_catalogue_is_recorded_anew(tmp_path):
    """One misconception is written otherwise: its line changes, and the exercises beside it are not run again."""
    shutil.copytree(TESTS / "misconceptions" / "00_start_here", tmp_path / "00_start_here")
    before = record(tmp_path, "00_start_here")
    file = tmp_path / "00_start_here" / "tokens_per_expert.py"
    first = entries(tmp_path, "tokens_per_expert")[0]
    file.write_text(
        f'{file.read_text()}\n\ndef {first.name}(*args):\n    """Is this another question?"""\n    return 7\n'
    )
    after = json.loads(record(tmp_path, "00_start_here", before))["tokens_per_expert"]
    assert after[""]["made_of"] != json.loads(before)["tokens_per_expert"][""]["made_of"]
    assert after[first.name]["question"] == "Is this another question?"
