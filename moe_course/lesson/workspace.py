"""The learner's own copy of the course: `moe-course status` and `reset`, and what a check records.

work/NN_topic/NN_topic.ipynb      the learner's notebooks, or scripts NN_topic.py, never overwritten (see `forms`)
work/.moe-course/made.json        the version of the course that the folder was last brought up to, and its form
work/.moe-course/base/            each release as handed out: what the learner changed is the difference to it
work/.moe-course/backups/         what `reset` took away
work/.moe-course/progress.json    the last check: {exercise: {status, score, max_score, source_hash, when, passed}},
                                  where `passed` is the last one that was passed, in the same form
work/.moe-course/parts/           the code of each exercise as it last passed, see `moe_course.lesson.parts`
work/.moe-course/jupyterlab/      which tabs and panels were open, see `moe_course.command.desk`
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from moe_course.grading.exercises.registry import NOTEBOOKS, Exercise, exercises_of, find, label
from moe_course.grading.submission.attempts import Unreadable, normalised, read
from moe_course.lesson.forms import RELOAD, copy, file_of, read_notebook, unused, write, write_notebook
from moe_course.lesson.home import OUTSIDE, STATE, read_json, state_dir, update_json

_SIGNS = {"passed": "✓", "changed since it passed": "~", "open again, passed before": "~"}
_SAY_NOTHING = ("not attempted", "interrupted")  # outcomes that tell nothing about code that has passed


def reset(name: str, work: Path) -> list[str]:
    """Put the stub of an exercise back into the learner's notebook and keep a copy of what was there.

    A solution cell that was deleted comes back as well. Returns what to say. Raises ValueError for an unknown
    exercise or a file that cannot be read.
    """
    from moe_course.grading.submission.matching import Release, recognise
    from moe_course.lesson.merge import merge, same

    exercise = find(name)
    mine = file_of(exercise.notebook, work)
    released, notebook = read_notebook(_base(exercise.notebook, work)), read_notebook(mine)
    course = Release(released)
    if exercise.name not in recognise(notebook.cells, course):
        notebook = merge(released, released, notebook).notebook
    cell = notebook.cells[recognise(notebook.cells, course)[exercise.name]]
    stub = course.cells[exercise.name]
    stamp = f"{datetime.now():%Y-%m-%d-%H%M%S}"
    code = unused(work / STATE / "backups" / f"{exercise.name}-{stamp}.py")
    copy(mine, unused(code.with_name(f"{mine.stem}-{stamp}{mine.suffix}")))
    kept = f"{exercise.name} is the stub again in {mine}"
    if not same(cell, stub):
        write(code, (cell.source.rstrip() + "\n").encode())
        kept += f"; your code is kept in {code}"
    cell.update(cell_type=stub.cell_type, source=stub.source, outputs=[], execution_count=None)
    write_notebook(mine, notebook)
    return [kept, RELOAD]


def record(verdict: Mapping[str, Any], sources: Mapping[str, str], folder: Path | None = None) -> str:
    """Remember the outcome of a check for `moe-course status`. Returns why it was not, or "".

    verdict: with exercise, status, score and max_score; sources: the source of each part that was checked; folder:
    where the file that was checked lies, by default this one. A pass stays in the record, whatever is checked after
    it: a copy of the notebook with the stub in it, say. While nbgrader runs the notebook nothing is recorded.
    """
    if "NBGRADER_EXECUTION" in os.environ:
        return ""
    state = state_dir(folder)
    if state is None:
        return f"Not recorded: {OUTSIDE}."
    entry = {key: verdict[key] for key in ("status", "score", "max_score", "undecided") if key in verdict}
    entry["source_hash"] = source_hash(sources)
    entry["when"] = datetime.now().astimezone().isoformat(timespec="seconds")

    def with_entry(kept: dict[str, Any]) -> dict[str, Any]:
        last = kept.get(verdict["exercise"], {})
        best = entry if entry["status"] == "passed" else _pass_in(last)
        if best and entry["status"] in _SAY_NOTHING:
            return kept
        return {**kept, verdict["exercise"]: {**entry, **({"passed": dict(best)} if best else {})}}

    try:
        update_json(state / "progress.json", with_entry)
    except OSError as error:
        return f"Not recorded: {error}."
    return ""


def record_file(path: Path, verdict: Mapping[str, Any]) -> None:
    """Remember the outcome of `moe-course check` on a file in a work folder."""
    if state_dir(path.parent) is not None:
        record(verdict, _parts_in(read(path).definitions, find(verdict["exercise"])), path.parent)


def _pass_in(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """The last check of an exercise that was passed, if there is any in its record."""
    found = entry.get("passed") or (entry if entry.get("status") == "passed" else None)
    return {key: value for key, value in found.items() if key != "passed"} if found else None


def source_hash(sources: Mapping[str, str]) -> str:
    """A fingerprint of definitions (source by name) that comments, layout and docstrings do not change."""
    text = [
        f"{name}\0{normalised(source, name) or source.strip()}" for name, source in sorted(sources.items())
    ]
    return hashlib.sha256("\0".join(text).encode()).hexdigest()[:16]


def status(work: Path) -> str:
    """A table of what is passed and what is open, by notebook, and the exercise to do next.

    Raises ValueError where there are no notebooks.
    """
    demand_notebooks(work)
    lines = []
    for notebook in NOTEBOOKS:
        rows = states(notebook, work)
        passed = sum(state == "passed" for _, state, _ in rows)
        lines.append(f"{notebook:<34}{f'{passed} of {len(rows)} passed' if rows else 'not graded'}")
        for exercise, state, points in rows:
            row = f"  {_SIGNS.get(state, '·')} {exercise.number:<5}{exercise.name:<26}{state:<31}{points}"
            lines.append(row.rstrip())
    following = next_open(work)
    said = (
        f"Next: {label(following.name)} in {file_of(following.notebook, work)}"
        if following
        else "Everything is passed."
    )
    return "\n".join([*lines, "", said])


def demand_notebooks(work: Path) -> None:
    """Raises ValueError where there are no notebooks."""
    if not any((work / notebook).is_dir() for notebook in NOTEBOOKS):
        raise ValueError(
            f"there are no notebooks in {work}; `moe-course start` makes them there, and a copy elsewhere is given "
            "as FOLDER"
        )


def states(notebook: str, work: Path) -> list[tuple[Exercise, str, str]]:
    """The exercises of a notebook, each with its state in words and the points of its last check."""
    exercises, path = exercises_of(notebook), file_of(notebook, work)
    progress = read_json(work / STATE / "progress.json")
    try:
        now, stub = read(path).definitions, read(_base(notebook, work)).definitions
    except Unreadable:
        state = "notebook unreadable" if path.exists() else "no notebook yet"
        return [(exercise, state, "") for exercise in exercises]
    return [
        (one, *_state(progress.get(one.name, {}), _parts_in(now, one), _parts_in(stub, one)))
        for one in exercises
    ]


def next_open(work: Path) -> Exercise | None:
    """The first exercise of the course that is not passed in this work folder; None where all are."""
    found = (row for notebook in NOTEBOOKS for row in states(notebook, work))
    return next((exercise for exercise, state, _ in found if state != "passed"), None)


def _base(notebook: str, work: Path) -> Path:
    """A notebook as it was handed out."""
    return work / STATE / "base" / f"{notebook}.ipynb"


def _state(entry: dict[str, Any], now: dict[str, str], stub: dict[str, str]) -> tuple[str, str]:
    """The state of an exercise in words, and the points of its last check if that was about the code that is there
    now. entry: its record; now, stub: the definitions of its parts, in the learner's file and as handed out."""
    passed, here = _pass_in(entry), source_hash(now)
    if not now or here == source_hash(stub):
        return ("open again, passed before" if passed else "open"), ""
    if not entry:
        return "written, not checked yet", ""
    for check in (entry, passed):
        if check and check["source_hash"] == here:
            later = check.get("undecided", 0)
            points = f"{check['score']:g} of {check['max_score'] - later:g}"
            return check["status"], points + (f", {later:g} at grading" if later else "")
    return f"changed since {'it passed' if passed else 'its last check'}", ""


def saved(notebook: str) -> dict[str, str]:
    """The definitions in the learner's file of a notebook as it was saved last; empty where there is no such file."""
    state = state_dir()
    try:
        return read(file_of(notebook, state.parent)).definitions if state and notebook else {}
    except Unreadable:
        return {}


def _parts_in(definitions: dict[str, str], exercise: Exercise) -> dict[str, str]:
    return {part: definitions[part] for part in exercise.parts if part in definitions}
