"""A later exercise is graded with a stand-in where the earlier one that it calls was skipped, and only there."""

from __future__ import annotations

import linecache

import pytest

from moe_course.grading.exercises.locate import notebooks_dir
from moe_course.grading.exercises.registry import EXERCISES, find, label
from moe_course.grading.judge import earlier, live
from moe_course.grading.judge.files import check_file
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


IMPORTS = "import math\nimport torch"
COUNTS, INFORMATION, P_VALUE = "routing_counts", "mutual_information", "permutation_p_value"
ZERO = WRONG.format(part=INFORMATION)
NEVER = f"def {P_VALUE}(*args):\n    return {INFORMATION}(torch.ones(2, 2))"  # wrong, whatever it calls


def checked_live(cells: list[str], name: str):
    """The verdict of a notebook's check, where Python finds the source of what its cells define."""
    own: dict = {}
    for place, cell in enumerate(cells):
        file = f"<cell {place} of {name}>"
        linecache.cache[file] = (len(cell), None, cell.splitlines(keepends=True), file)
        exec(compile(cell, file, "exec"), own)
    return live.examine(own[name], namespace=own, seed=3)


def checked_as_a_file(cells: list[str], name: str, folder):
    path = folder / "answers.py"
    path.write_text("\n\n\n".join(cells), encoding="utf-8")
    _, (verdict,) = check_file(path, name, 3)
    return verdict


@pytest.mark.parametrize("answer", [source(P_VALUE), NEVER], ids=["right", "wrong"])
def test_an_earlier_answer_that_is_wrong_is_named(tmp_path, answer):
    """In a notebook and in a file alike, also where the file is checked for the later one alone."""
    cells = [IMPORTS, source(COUNTS), ZERO, answer]
    for verdict in (checked_live(cells, P_VALUE), checked_as_a_file(cells, P_VALUE, tmp_path)):
        assert verdict.status == "failed"
        said = as_text(verdict)
        assert "Your code calls 8.2 mutual_information, which does not pass when checked alone." in said
        assert "8.1" not in said
        assert "Hint" not in said, "it would look for the fault in the later answer"
        assert verdict.diagnosis is None


def test_an_earlier_answer_that_passes_or_is_not_written_is_not_blamed(tmp_path):
    for part in (source(INFORMATION), UNWRITTEN.format(part=INFORMATION)):
        cells = [IMPORTS, source(COUNTS), part, NEVER]
        for verdict in (checked_live(cells, P_VALUE), checked_as_a_file(cells, P_VALUE, tmp_path)):
            assert verdict.status == "failed"
            assert "does not pass when checked alone" not in as_text(verdict)


@pytest.mark.parametrize(
    ("code", "names"),
    [
        (
            "def combine(y):\n    return plan_dispatch(y), gather_tokens(y)",
            ["plan_dispatch", "gather_tokens"],
        ),
        ("def combine(y):\n    return combine(y) + gate + self.top_k_gate(y)", ["gate"]),
        ("def combine(y, gate):\n    router_probs = y\n    return gate(router_probs)", []),
        ("def combine(y):\n    return working(plan_dispatch)(y)", []),
        ("def combine(y):\n    return dequantize_int8(y)", ["quantize_int8"]),
        ("def combine(y:", []),
    ],
)
def test_which_exercises_an_answer_calls(code, names):
    assert earlier.called("combine", {"combine": code}) == sorted(names, key=[*EXERCISES].index)
