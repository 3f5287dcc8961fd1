"""Verdicts for people: the rubric as HTML in a notebook and as text elsewhere, and as JSON for programs."""

from __future__ import annotations

import html
from typing import Any
from unicodedata import category

from moe_course.grading.exercises.expect import show
from moe_course.grading.exercises.registry import EXERCISES
from moe_course.grading.judge.verdict import CheckResult, Verdict, for_the_learner

_SIGNS = {"passed": "✓", "failed": "✗", "not run": "–"}
_COLOURS = {"passed": "#1a7f37", "failed": "#cf222e", "not run": "#6e7781"}
_CELL = "text-align:left;padding:.15em .6em"
_STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, direction of writing, half characters, line ends
_ADVICE = {
    "not attempted": "Fill the gap in the cell above, run it, then run this cell again.",
    "interrupted": "Stopped before all criteria were tried. Does a loop in your code ever end?",
}


def headline(verdict: Verdict) -> str:
    """One line: exercise, status and points."""
    number = EXERCISES[verdict.exercise].number
    line = f"{number} {verdict.exercise}: {verdict.status}, {verdict.score:g} of {verdict.max_score:g} points"
    return line + (f" ({verdict.undecided:g} decided at grading)" if verdict.undecided else "")


def printable(text: str) -> str:
    """Text that a terminal shows and does not obey: whatever steers it becomes its escape, so ESC is `\\x1b`."""
    return "".join(
        char.encode("unicode_escape").decode() if category(char) in _STEERING and char not in "\n\t" else char
        for char in text
    )


def as_text(verdict: Verdict) -> str:
    """The rubric as text, without what hidden criteria tried."""
    verdict = for_the_learner(verdict)
    lines = [headline(verdict)]
    lines += [
        f"  {_SIGNS[result.status]} {result.criterion.title} ({_points(result)})" for result in verdict.checks
    ]
    if first := _first_failure(verdict):
        lines += ["", *str(first.failure).splitlines(), "", f"Hint: {first.criterion.hint}"]
    if verdict.diagnosis:
        lines.append(f"This behaves like “{_words(verdict.diagnosis.name)}”. {verdict.diagnosis.question}")
    if note := verdict.reason or _ADVICE.get(verdict.status, ""):
        lines += ["", note]
    return printable("\n".join(lines))


def as_html(verdict: Verdict, with_seed: bool = False) -> str:
    """The rubric as HTML that reads well on light and dark pages; everything from a learner is escaped.

    It tells nothing of what hidden criteria tried, nor, unless `with_seed`, the seed, which would tell it.
    """
    seed, verdict = verdict.seed, for_the_learner(verdict)
    good = verdict.status == "passed"
    colour = _COLOURS["passed" if good else "not run" if verdict.status == "not attempted" else "failed"]
    rows = "".join(
        f'<tr style="background:none"><td style="{_CELL};color:{_COLOURS[result.status]}">'
        f"<b>{_SIGNS[result.status]}</b></td>"
        f'<td style="{_CELL}">{html.escape(result.criterion.title)}</td>'
        f'<td style="{_CELL};white-space:nowrap">{_points(result)}</td></tr>'
        for result in verdict.checks
    )
    parts = [
        f'<div style="border-left:4px solid {colour};padding:.2em 1em;max-width:52em">',
        f'<p style="margin:.3em 0"><b>{html.escape(headline(verdict))}</b></p>',
        f'<table style="margin:.3em 0;border-collapse:collapse"><tbody>{rows}</tbody></table>',
    ]
    if first := _first_failure(verdict):
        parts.append(_failure_html(first))
    if verdict.diagnosis:
        parts.append(
            f"<p>This behaves like <b>{html.escape(_words(verdict.diagnosis.name))}</b>. "
            f"{html.escape(verdict.diagnosis.question)}</p>"
        )
    if note := verdict.reason or _ADVICE.get(verdict.status, ""):
        parts.append(f"<p>{html.escape(note)}</p>")
    parts.append(
        f'<p style="opacity:.6;font-size:85%;margin:.3em 0">seed {seed}</p>' if with_seed and seed else ""
    )
    return printable("".join(parts) + "</div>")


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
        and {"name": verdict.diagnosis.name, "question": verdict.diagnosis.question},
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


def _first_failure(verdict: Verdict) -> CheckResult | None:
    return next((result for result in verdict.checks if result.failure), None)


def _failure_html(result: CheckResult) -> str:
    failure = result.failure
    assert failure is not None
    rows = [("given " + name, show(value)) for name, value in failure.given.items()]
    if failure.expected is not None:
        rows += [("expected", show(failure.expected)), ("got", show(failure.got))]
    table = "".join(
        f'<tr style="background:none"><td style="{_CELL};vertical-align:top;white-space:nowrap">'
        f"{html.escape(name)}</td>"
        f'<td style="{_CELL}"><code style="white-space:pre-wrap">{html.escape(text)}</code></td></tr>'
        for name, text in rows
    )
    return (
        f'<p style="margin:.5em 0"><b>{html.escape(result.criterion.title)}:</b> {html.escape(failure.message)}</p>'
        f"<table><tbody>{table}</tbody></table>"
        f"<p><b>Hint:</b> {html.escape(result.criterion.hint)}</p>"
    )


def _points(result: CheckResult) -> str:
    full = result.criterion.points
    return f"{full if result.status == 'passed' else 0} of {full}"


def _words(name: str) -> str:
    return name.replace("_", " ")
