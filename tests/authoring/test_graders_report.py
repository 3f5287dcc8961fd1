"""docs/graders.md holds for the graders and exercises as they are, and the mutation runner notices a survivor."""

from __future__ import annotations

import functools
import re
import sys
import tomllib
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("the mutation runner forks", allow_module_level=True)

from moe_course.authoring import graders_report, mutants
from moe_course.authoring.naming import Named
from moe_course.grading.exercises.registry import EXERCISES
from moe_course.grading.exercises.rubric import points
from moe_course.grading.judge import verdict
from moe_course.grading.judge.catalogue import entries

ROOT = Path(__file__).parent.parent.parent
REPORT = (ROOT / graders_report.REPORT).read_text(encoding="utf-8")
REASONS = tomllib.loads((ROOT / graders_report.REASONS).read_text(encoding="utf-8"))

SOURCE = '''
def share(part, whole: int = 1):
    """Part of whole."""
    if whole < 1:
        raise ValueError(f"{whole + 1}")
    return min(part, whole) / whole
'''


def lines():
    """{exercise: its line of the table}, and that of the sums under "All"."""
    rows = [line.strip("| ").split(" | ") for line in REPORT.splitlines() if line.startswith("|")]
    return {re.sub(r"^[\d.]+ ", "", row[0]).strip("`*"): row for row in rows[2:]}


@functools.cache
def mutated(name):
    return mutants.mutants_of(name, mutants.reference(EXERCISES[name].notebook))


def judged(name, cell, seconds=60.0):
    namespace = mutants.namespace_of(mutants.reference(EXERCISES[name].notebook))
    return mutants.passes(name, cell, namespace, range(2), seconds)


def test_mutants_leave_annotations_docstrings_and_messages_alone():
    assert {mutants.change(SOURCE, mutant) for mutant in mutants.mutants(SOURCE)} == {
        "def share(part, whole: int = 1): → def share(part, whole: int = 2):",
        "if whole < 1: → if whole <= 1:",
        "if whole < 1: → if whole < 2:",
        "return min(part, whole) / whole → return min(part, whole) * whole",
        "return min(part, whole) / whole → return min(None, whole) / whole",
        "return min(part, whole) / whole → return min(part, None) / whole",
        "return min(part, whole) / whole → return min(whole) / whole",
        "return min(part, whole) / whole → return min(part, ) / whole",
    }


def test_the_reference_passes_and_its_mutants_do_not():
    assert judged("ffn_params", "") == 2
    assert [judged("ffn_params", source) for source in mutated("ffn_params").values()] == [0, 0, 0]


def test_a_grader_that_accepts_everything_shows(monkeypatch):
    """Every mutant survives it, and every misconception is a false accept."""
    monkeypatch.setattr(
        verdict, "judged", lambda grader, line, subject, rng: verdict.CheckResult(line, "passed")
    )
    row = graders_report.measure("ffn_params", ROOT, range(2))
    assert row.survivors == dict.fromkeys(mutated("ffn_params"), graders_report.UNEXPLAINED)
    assert (
        len(row.false_accepts) == row.wrong == len(entries(ROOT / "tests" / "misconceptions", "ffn_params"))
    )
    assert row.false_rejects == ()
    assert row.cells[10] == "0.0%"


def test_second_tellings_and_kept_points_have_their_columns():
    """Two of three nameable tellings have their own name, one another; the fourth ended in an exception."""

    def telling(name, found, told=False):
        return Named("ffn_params", name, found, told, "count")

    named = telling("a", "a"), telling("b", "b"), telling("c", "a"), telling("d", "", told=True)
    row = graders_report.Row(
        EXERCISES["ffn_params"], 3, (), 2, (), 1, {}, {}, named=named, kept=(0.5, 0.0, 0.1)
    )
    columns = dict(zip(graders_report.COLUMNS, row.cells, strict=True))
    assert columns["Named rightly"] == "2 of 3"
    assert columns["Named wrongly"] == "1"
    assert columns["Points kept"] == "0% / 10% / 50%"


def test_a_grader_that_rejects_everything_shows(monkeypatch):
    monkeypatch.setattr(
        verdict, "judged", lambda grader, line, subject, rng: verdict.CheckResult(line, "failed")
    )
    row = graders_report.measure("ffn_params", ROOT, range(1))
    assert (
        len(row.false_rejects) == row.right == 2 + len(entries(ROOT / "tests" / "alternatives", "ffn_params"))
    )
    assert row.false_accepts == ()


@pytest.mark.parametrize("body", ["while True: pass", "import os; os._exit(0)", "[0] * 2**40"])
def test_a_mutant_that_hangs_crashes_or_eats_memory_is_rejected(body):
    assert judged("ffn_params", f"def ffn_params(d_model, d_ff): {body}", seconds=2.0) == 0


def test_every_exercise_has_its_line():
    """Stale? `make graders-report` writes docs/graders.md anew."""
    assert list(lines()) == [*EXERCISES, "All"]
    for name, cells in lines().items():
        if name != "All":
            wrong, alternatives = (
                len(entries(ROOT / "tests" / k, name)) for k in ("misconceptions", "alternatives")
            )
            assert cells[1:3] == [str(points(name)), str(wrong)], name
            assert cells[4] == str(alternatives + 2), name
            assert cells[6] == str(len(mutated(name))), name


def test_no_grader_errs_and_at_least_95_percent_of_the_mutants_are_killed():
    for name, cells in lines().items():
        assert (cells[3], cells[5]) == ("0", "0"), name
        made, equivalent, killed, survived = map(int, cells[6:10])
        assert made == equivalent + killed + survived, name
        assert killed >= (0.95 if name == "All" else 0.85) * (killed + survived), name
        assert made, name
    assert graders_report.UNEXPLAINED not in REPORT


@pytest.mark.parametrize("kind", ["equivalent", "survivor"])
def test_every_reason_is_of_a_mutant_and_in_the_report(kind):
    for name, reasons in REASONS.get(kind, {}).items():
        assert reasons.keys() <= mutated(name).keys()
        for change, reason in reasons.items():
            assert f"- `{name}`: `{change}`  \n  {reason}\n" in REPORT


@pytest.mark.slow
def test_the_lines_are_what_is_measured():
    names = ["moe_ffn_params", "router_probs"]
    rows = graders_report.measure_all(names, ROOT, range(graders_report.SEEDS))
    assert [list(row.cells) for row in rows] == [lines()[name] for name in names]
