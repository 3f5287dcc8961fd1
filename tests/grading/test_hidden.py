"""Hidden criteria: counted where they are at hand, never told to a learner, and missed where they are not."""

from dataclasses import replace

import pytest
from synthetic import answer, write

from moe_course.grading.cohort import grade_cohort
from moe_course.grading.exercises import rubric
from moe_course.grading.exercises.expect import CheckFailed
from moe_course.grading.exercises.rubric import Criterion, hidden_points, points
from moe_course.grading.judge.rendering import as_dict, as_html, as_text
from moe_course.grading.judge.subject import LiveSubject
from moe_course.grading.judge.verdict import CheckResult, grade, without_running

NAME = "ffn_params"
RIGHT = LiveSubject({NAME: lambda d_model, d_ff: 3 * d_model * d_ff})


def test_they_count_at_grading_and_not_before():
    public, whole = grade(NAME, RIGHT, 1, hidden=False), grade(NAME, RIGHT, 1)
    assert (public.status, public.score, public.undecided) == (
        "passed",
        points(NAME) - hidden_points(NAME),
        1,
    )
    assert (whole.status, whole.score, whole.undecided) == ("passed", points(NAME), 0)
    assert [line.criterion.hidden for line in whole.checks][-1:] == [True]


def test_a_learner_does_not_read_what_was_tried():
    line = Criterion("secret", "right for other sizes", 1, "What grows?", hidden=True)
    failure = CheckFailed("4711 is wrong", {"d_model": 4711}, expected=4711, got=4712)
    verdict = replace(grade(NAME, RIGHT, 1), status="failed", checks=(CheckResult(line, "failed", failure),))
    for text in (as_text(verdict), as_html(verdict)):
        assert "471" not in text
        assert "right for other sizes" in text
        assert "What grows?" in text
    assert "4711" in as_dict(verdict)["checks"][0]["message"]  # the instructor does


def test_a_score_without_them_is_no_grade(tmp_path, monkeypatch):
    """Nobody gets fewer points because a file was missing on the grader's machine."""
    monkeypatch.setattr(rubric, "hidden_grader_of", lambda name: None)
    verdict = grade(NAME, RIGHT, 1)
    assert verdict.undecided == hidden_points(NAME) > 0
    write(tmp_path / "in" / "ada.ipynb", answer(NAME))

    def grader(submission, names, seed, limits):
        return [verdict if name == NAME else without_running(name, "not attempted") for name in names]

    (record,) = grade_cohort.grade(
        tmp_path / "in", tmp_path / "out", "01_dense_ffn", unsafe=True, grader=grader
    )
    assert (record["status"], record["score"], record["again"]) == ("ungradable", None, True)
    assert "hidden tests" in record["reason"]


def test_a_wrong_declaration_is_named(monkeypatch):
    monkeypatch.setattr(rubric.grader_of(NAME), "hidden_points", 7)
    with pytest.raises(ValueError, match="worth 1 points, and its grader declares 7"):
        rubric.hidden_grader_of(NAME)
