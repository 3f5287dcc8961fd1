"""Verdicts for people: the rubric as HTML in a notebook and as text elsewhere, and as JSON for programs."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_course.grading.exercises.expect import CheckFailed, show
from moe_course.grading.exercises.registry import EXERCISES
from moe_course.grading.judge.diagnosis import Diagnosis, words
from moe_course.grading.judge.templates import environment, printable
from moe_course.grading.judge.verdict import CheckResult, Verdict, for_the_learner

if TYPE_CHECKING:
    from jinja2 import Template

_SIGNS = {"passed": "✓", "failed": "✗", "not run": "–", "not reached": "–"}
_COLOURS = {"passed": "#1a7f37", "failed": "#cf222e", "not run": "#6e7781", "not reached": "#6e7781"}
PRINTED = "Your code printed:"
_ADVICE = {
    "not attempted": "Fill the gap, run its cell, and check again.",
    "interrupted": "Stopped before all criteria were tried.",
}


def headline(verdict: Verdict) -> str:
    """One line: exercise, status and points; points that only grading decides are no lost ones, and stand apart."""
    label = f"{EXERCISES[verdict.exercise].number} {verdict.exercise}: {verdict.status}"
    if not verdict.undecided:
        return f"{label}, {verdict.score:g} of {verdict.max_score:g} points"
    visible = verdict.max_score - verdict.undecided
    counted = f"all {visible:g}" if verdict.score == visible else f"{verdict.score:g} of {visible:g}"
    verb = "is" if verdict.undecided == 1 else "are"
    return f"{label}, {counted} visible points; {verdict.undecided:g} more {verb} decided at grading"


def as_text(verdict: Verdict) -> str:
    """The rubric as text, without what hidden criteria tried."""
    verdict = for_the_learner(verdict)
    lines = [headline(verdict)]
    lines += [
        f"  {_SIGNS[shown]} {result.criterion.title} ({_points(result, shown)})"
        for result in verdict.checks
        for shown in [_status(result, verdict)]
    ]
    if first := verdict.first_failure:
        lines += ["", *str(first.failure).splitlines()]
        if hint := _hint(verdict):
            lines += ["", f"Hint: {hint}"]
    if verdict.diagnosis:
        before, name, after = mistake_told(verdict.diagnosis)
        lines += ["", f"{before}“{name}”{after}"]
    for note in _notes(verdict):
        lines += ["", note]
    if verdict.printed:
        lines += ["", PRINTED, *(f"  | {line}" for line in verdict.printed.splitlines())]
    return printable("\n".join(lines))


def as_html(verdict: Verdict, with_seed: bool = False) -> str:
    """The rubric as HTML that reads well on light and dark pages; everything from a learner is escaped.

    It tells nothing of what hidden criteria tried, nor, unless `with_seed`, the seed, which would tell it.
    """
    seed, verdict = verdict.seed if with_seed else 0, for_the_learner(verdict)
    kind = {"passed": "passed", "not attempted": "not run"}.get(verdict.status, "failed")
    return _template().render(
        verdict=verdict,
        headline=headline(verdict),
        colour=_COLOURS[kind],
        colours=_COLOURS,
        signs=_SIGNS,
        first=verdict.first_failure,
        hint=_hint(verdict),
        mistake=verdict.diagnosis and mistake_told(verdict.diagnosis),
        notes=_notes(verdict),
        printed=PRINTED,
        status=lambda result: _status(result, verdict),
        seed=seed,
    )


@functools.cache
def _template() -> Template:
    templates = environment(Path(__file__).parent)
    templates.filters |= {"points": _points, "example": _example}
    return templates.get_template("rubric.html")


def as_dict(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain data for JSON."""
    return {
        "exercise": verdict.exercise,
        "status": verdict.status,
        "score": verdict.score,
        "max_score": verdict.max_score,
        "undecided": verdict.undecided,
        "seconds": round(verdict.seconds, 3),
        "seed": verdict.seed,
        "reason": verdict.reason,
        "needs": verdict.needs,
        "notes": list(verdict.notes),
        "checks": [
            {
                "name": result.criterion.name,
                "title": result.criterion.title,
                "status": result.status,
                "points": result.criterion.points,
                "hidden": result.criterion.hidden,
                "message": result.message,
                "hint": result.criterion.hint if result.status == "failed" else "",
            }
            for result in verdict.checks
        ],
        "diagnosis": verdict.diagnosis
        and {
            "name": verdict.diagnosis.name,
            "question": verdict.diagnosis.question,
            "fit": verdict.diagnosis.fit,
        },
    }


def display(verdict: Verdict) -> None:
    """Show the rubric: as HTML (with the text beside it) in a notebook, printed elsewhere."""
    try:
        from IPython import get_ipython
        from IPython.display import publish_display_data
    except ImportError:
        print(as_text(verdict))
        return
    if get_ipython() is None:
        print(as_text(verdict))
    else:
        page = as_html(verdict, with_seed=True)  # a live check: it tries nothing hidden, and is no grade
        publish_display_data({"text/html": page, "text/plain": as_text(verdict)})


def _status(result: CheckResult, verdict: Verdict) -> str:
    """What is shown of a criterion: "not reached" where the fault that is reported kept it from being tried."""
    return result.status if verdict.reached(result) else "not reached"


def _notes(verdict: Verdict) -> list[str]:
    """What is said below the rubric, sentence by sentence."""
    return [note for note in (verdict.reason or _ADVICE.get(verdict.status, ""), *verdict.notes) if note]


def _example(failure: CheckFailed) -> list[tuple[str, str]]:
    """The example on which the code failed, as (name, value) pairs."""
    rows = [("given " + name, show(value)) for name, value in failure.given.items()]
    if failure.expected is not None:
        rows += [("expected", show(failure.expected)), ("got", show(failure.got))]
    return rows


def _points(result: CheckResult, shown: str) -> str:
    full = result.criterion.points
    before = "not reached, " if shown == "not reached" else ""
    return f"{before}{full if shown == 'passed' else 0} of {full}"


def _hint(verdict: Verdict) -> str:
    """The hint of the first criterion that fails, unless something else says more exactly what is wrong."""
    first = verdict.first_failure
    if (
        first is None
        or first.failure is None
        or first.failure.complete
        or verdict.diagnosis
        or verdict.reason
    ):
        return ""
    return first.failure.hint or first.criterion.hint


def mistake_told(found: Diagnosis) -> tuple[str, str, str]:
    """What is said of a named mistake: the words before its name, the name, and the words after it."""
    if found.fit == "part":
        return "One mistake here is ", words(found.name), f"; there is another one besides. {found.question}"
    if found.fit == "near":
        return (
            "On most inputs this behaves like the mistake ",
            words(found.name),
            f", though not on all. {found.question}",
        )
    return "This behaves like the mistake ", words(found.name), f". {found.question}"
