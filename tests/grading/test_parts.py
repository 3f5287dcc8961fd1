"""A later exercise is graded with a stand-in where the earlier one that it calls was skipped, and only there."""

from __future__ import annotations

import pytest

from moe_course.grading.exercises.locate import notebooks_dir
from moe_course.grading.exercises.registry import find, label
from moe_course.grading.judge.rendering import as_text
from moe_course.grading.judge.subject import LiveSubject, WorkerSubject
from moe_course.grading.judge.verdict import grade
from moe_course.grading.submission.attempts import read

CALLS = {
    "batch_priority_positions": ["positions_in_expert"],
    "train_step": ["moe_objective"],
    "permutation_p_value": ["routing_counts", "mutual_information"],
}
UNWRITTEN = "def {part}(*args):\n    raise NotImplementedError"
WRONG = "def {part}(*args):\n    return 0"


def cells(name: str, earlier: str) -> list[str]:
    """The reference solution of `name` behind other texts of the parts that it calls."""
    imports = "import math\nimport torch\nimport torch.nn.functional as F\nfrom torch import nn"
    return [imports, *(earlier.format(part=part) for part in CALLS[name]), source(name)]


def source(name: str) -> str:
    """The reference solution of an exercise."""
    notebook = find(name).notebook
    return read(notebooks_dir().parent / "solutions" / notebook / f"{notebook}.ipynb").definitions[name]


def namespace(name: str, earlier: str) -> dict:
    found: dict = {}
    for cell in cells(name, earlier):
        exec(cell, found)
    return found


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("earlier", [UNWRITTEN, "{part} = None\ndel {part}"], ids=["stub", "missing"])
def test_a_skipped_part_costs_the_later_exercise_nothing(name, earlier):
    own = namespace(name, earlier)
    before = {part: own.get(part) for part in CALLS[name]}
    verdict = grade(name, LiveSubject(own), seed=3)
    assert verdict.status == "passed", [check.message for check in verdict.checks]
    assert {part: own.get(part) for part in CALLS[name]} == before
    for part in CALLS[name]:  # and it is said
        assert f"{label(part)} is not written yet: a reference version stood in" in as_text(verdict)


@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_said_where_the_parts_are_written(name):
    right = {part: cells(name, "")[0] + "\n" + source(part) for part in CALLS[name]}
    own: dict = {}
    for cell in (*right.values(), cells(name, "")[-1]):
        exec(cell, own)
    verdict = grade(name, LiveSubject(own), seed=3, hidden=False)
    assert (verdict.status, verdict.notes) == ("passed", ())


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_part_is_the_learners_own(name):
    assert grade(name, LiveSubject(namespace(name, WRONG)), seed=3).status == "failed"


def test_a_worker_has_the_stand_in_too():
    with WorkerSubject(cells("train_step", UNWRITTEN)) as subject:
        verdict = grade("train_step", subject, seed=3)
    assert verdict.status == "passed"
    assert "7.1 moe_objective is not written yet" in verdict.notes[0]
