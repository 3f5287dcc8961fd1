"""Hidden criteria: counted where they are at hand, never told to a learner, and missed where they are not."""

from dataclasses import replace
from functools import partial

import pytest
from synthetic import answer, write

from moe_course.grading.cohort import grade_cohort
from moe_course.grading.exercises import rubric
from moe_course.grading.exercises.expect import CheckFailed
from moe_course.grading.exercises.rubric import Criterion, hidden_points, points
from moe_course.grading.judge import files
from moe_course.grading.judge.rendering import as_dict, as_html, as_text
from moe_course.grading.judge.subject import LiveSubject, WorkerSubject
from moe_course.grading.judge.verdict import CheckResult, grade, without_running
from moe_course.grading.submission.attempts import read

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


ASKED: list[tuple[int, int]] = []


def asked(hidden):
    """The arguments of every call that the criteria of NAME make with seed 5."""
    ASKED.clear()
    grade(NAME, LiveSubject({NAME: lambda *args: ASKED.append(args) or 3 * args[0] * args[1]}), 5, hidden)
    return list(ASKED)


PUBLIC = len(asked(hidden=False))
SECRET = asked(hidden=True)[PUBLIC:]

LEAKS = {  # what ffn_params does when it is asked something hidden, `seen` being all that it was asked
    "exception": "raise ValueError(f'{seen}')",
    "value": "return str(seen)",
    "exit_code": "os._exit(100 + len(seen))",
    "timeout": "time.sleep(60)",
    "forbidden": "raise type('ForbiddenImport', (ImportError,), {})(f'{seen}')",
    "name_of_a_type": "raise type(f'Seen{seen}', (Exception,), {})",
    "a_mistake_with_a_name": "return d_model * d_ff",
}
BEFORE = {  # what it does when it is asked something public
    "right": "return 3 * d_model * d_ff",
    "wrong": "raise ValueError(f'{seen}')",
}


def submission(path, leak, before):
    answers = [
        "import os, time\nseen = []",
        f"def ffn_params(d_model, d_ff):\n    seen.append((d_model, d_ff))\n    if len(seen) > {PUBLIC}:\n"
        f"        {leak}\n    {before}",
        "def ffn_flops(*args):\n    raise ValueError(f'{seen}')",
        "def swiglu_ffn(x, *args):\n    return str(seen)",
    ]
    path.write_text("\n\n\n".join(answers), encoding="utf-8")
    return read(path)


@pytest.mark.parametrize(("leak", "before"), [*((leak, "right") for leak in LEAKS), ("exception", "wrong")])
def test_nothing_that_was_asked_reaches_the_learner(tmp_path, monkeypatch, leak, before):
    """Neither in the call itself nor in a later one, of this exercise or of another, whatever way the code ends."""
    monkeypatch.setattr(
        files, "WorkerSubject", partial(WorkerSubject, seconds=4.0 if leak == "timeout" else 60.0)
    )
    work = submission(tmp_path / "ada.py", LEAKS[leak], BEFORE[before])
    verdicts = files.grade_submission(work, ["swiglu_ffn", NAME, "ffn_flops"], 5)
    mine = next(verdict for verdict in verdicts if verdict.exercise == NAME)
    assert SECRET
    for text in [text for verdict in verdicts for text in (as_text(verdict), as_html(verdict))]:
        assert not [pair for pair in SECRET if str(pair) in text]
        assert not any(word in text for word in ("exit code", "timed out", "Seen"))
        assert "seed" not in text
    if before == "right" and leak != "forbidden":
        shown = as_text(mine)
        assert f"{NAME}: failed, {points(NAME) - hidden_points(NAME):g} of" in shown
        assert "It was tried at grading" in shown
        assert "This behaves like" not in shown
    if leak in ("exit_code", "timeout", "forbidden"):
        assert mine.status in ("crashed", "timed out", "forbidden")  # the instructor knows
        assert as_dict(mine)["reason"]


def test_a_mistake_that_hidden_criteria_alone_find_has_no_name():
    """A name is looked for before they are asked: what the code does afterwards may tell what they tried."""

    def half(d_model, d_ff):
        return 3 * d_model * d_ff if (d_model, d_ff) not in SECRET else 2 * d_model * d_ff

    verdict = grade(NAME, LiveSubject({NAME: half}), 5)
    assert (verdict.status, verdict.diagnosis) == ("failed", None)
