"""Predictions: an answer is stored before the result is shown and compared with it afterwards. It is never scored."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from moe_course.lesson import home
from moe_course.viz.style import publish

FILE = "predictions.json"
_session: dict[str, dict[str, Any]] = {}  # questions and answers that could not be stored


def predict(key: str, question: str, options: Sequence[str], answer: int | None = None) -> None:
    """Ask a question, and store the learner's `answer` (1 for the first option).

    The last answer before the result is revealed counts; later answers are stored as changes of mind. An answer that
    is no option is not stored, and the output says so: a typing error must not stop Run All.
    """
    slip = answer is not None and (type(answer) is not int or not 1 <= answer <= len(options))
    wrong, answer = answer, None if slip else answer
    entry = _recall(key)
    if entry is None or entry["options"] != list(options):  # a new question, or its wording has changed since
        entry = {"question": question, "options": list(options), "answers": [], "revealed": False}
    last = entry["answers"][-1]["answer"] if entry["answers"] else None
    if answer is not None and answer != last:
        entry["answers"].append({"answer": answer, "when": _now(), "after_result": entry["revealed"]})
    unkept = _remember(key, entry)
    marks = ["▸" if answer == number else "" for number in range(1, len(options) + 1)]
    rows = "".join(
        f'<tr style="background:none"><td>{mark}</td><td><b>{number}</b></td>'
        f'<td style="text-align:left">{html.escape(option)}</td></tr>'
        for number, (mark, option) in enumerate(zip(marks, options, strict=True), start=1)
    )
    if slip:
        state = f"answer={wrong!r} is no option: choose a number from 1 to {len(options)}."
    elif answer is None:
        state = "Not committed yet: write your choice after answer= and run again."
    else:
        state = f"Noted for this session only: {unkept}." if unkept else "On record."
    choices = " ".join(f"{number}: {option}." for number, option in enumerate(options, start=1))
    _show(
        f"<p><b>Predict.</b> {html.escape(question)}</p><table>{rows}</table><p>{html.escape(state)}</p>",
        f"{question} {choices} {state}",
    )


def reveal(key: str, truth: int, why: str) -> None:
    """Compare the stored prediction with what happened."""
    entry = _recall(key)
    if entry is None:
        _show(f"<p>{html.escape(why)}</p>", why)
        return
    early = [a["answer"] for a in entry["answers"] if not a["after_result"]]
    right = entry["options"][truth - 1]
    if not early:
        verdict = "No prediction was committed before this result."
    elif early[-1] == truth:
        verdict = "You predicted that."
    else:
        verdict = f"You predicted: {entry['options'][early[-1] - 1]}."
    entry["revealed"] = True
    _remember(key, entry)
    text = f"What happened: {right}. {verdict}"
    _show(
        f"<p><b>What happened:</b> {html.escape(right)} — {html.escape(why)}.</p><p>{html.escape(verdict)}</p>",
        f"{text} ({why})",
    )


def _recall(key: str) -> dict[str, Any] | None:
    state = home.state_dir()
    entry = _session.get(key) or (home.read_json(state / FILE).get(key) if state else None)
    whole = isinstance(entry, dict) and {"options", "answers", "revealed"} <= entry.keys()
    return entry if whole else None  # someone edited the file by hand


def _remember(key: str, entry: dict[str, Any]) -> str:
    """Store a question and its answers. Returns why they last for this session only, or ""."""
    state, why = home.state_dir(), home.OUTSIDE
    if state is not None:
        try:
            home.update_json(state / FILE, lambda kept: {**kept, key: entry})
            return ""
        except OSError as error:  # a full disk must not stop a lesson
            why = str(error)
    _session[key] = entry
    return why


def _show(markup: str, text: str) -> None:
    box = f'<div style="border-left:4px solid #0072B2;padding:.2em 1em;max-width:46em">{markup}</div>'
    publish(box, text)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
