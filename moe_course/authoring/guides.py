"""docs/teaching/: the parts of the teachers' material that are made from notebooks, graders and catalogue.

A generated part stands between two comments, and everything around them is written by hand:

    <!-- generated: minutes 02_topk_routing -->
    …
    <!-- end -->
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from moe_course import files
from moe_course.authoring import syllabus
from moe_course.grading.exercises.registry import NOTEBOOKS, Exercise, exercises_of
from moe_course.grading.exercises.rubric import criteria, grader_of, hidden_points, points
from moe_course.grading.judge.catalogue import Entry, entries
from moe_course.tables import markdown_table

FOLDER = Path("docs/teaching")
_PART = re.compile(r"<!-- generated: (\S+) (\S+) -->\n.*?<!-- end -->", re.DOTALL)


def update(root: Path, check: bool = False, say: Callable[[str], None] = print) -> bool:
    """Bring the generated parts up to date; with `check`, only say what is stale. Returns whether they are.

    Raises ValueError when a file asks for a part that there is not.
    """
    fresh = True
    for path in sorted((root / FOLDER).glob("*.md")):
        text = path.read_text(encoding="utf-8")
        new = _PART.sub(lambda part: _filled(root, part[1], part[2]), text)
        if new == text:
            continue
        fresh = False
        say(f"{path.relative_to(root).as_posix()}: {'stale' if check else 'updated'}")
        if not check:
            files.write(path, new)
    return fresh or not check


def _filled(root: Path, kind: str, of: str) -> str:
    if kind not in PARTS:
        raise ValueError(f"there is no generated part “{kind} {of}”; there are {', '.join(PARTS)}")
    return f"<!-- generated: {kind} {of} -->\n\n{PARTS[kind](root, of)}\n\n<!-- end -->"


def minutes(root: Path, notebook: str) -> str:
    """The sections of a notebook with their minutes, which add up to what its title says."""
    found = syllabus.sections_of(root, notebook)
    rows = [
        (section.title, f"{section.minutes}", ", ".join(f"{n} ({m})" for n, m in section.exercises.items()))
        for section in found
    ]
    rows.append(("**all**", f"**{sum(section.minutes for section in found)}**", ""))
    return markdown_table(("Section", "Minutes", "Of these, exercises"), rows, left=(0, 2))


def predictions(root: Path, notebook: str) -> str:
    """The votes of a notebook, their options, and the right one with its reason, as far as no run decides it."""
    import nbformat

    cells = nbformat.read(root / "solutions" / notebook / f"{notebook}.ipynb", as_version=4).cells
    calls = [
        (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", ""), node.args)
        for cell in cells
        if cell.cell_type == "code"
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Call)
    ]
    reveals = {_constant(args[0]): [*args[1:], None][:2] for name, args in calls if name == "reveal"}
    reveals |= {_constant(args[1]): [args[2], None] for name, args in calls if name == "verdict"}
    lines = []
    for key, question, options in (map(_constant, args) for name, args in calls if name == "predict"):
        truth, reason = map(_constant, reveals[key])
        told = [
            f"**{n}. {option}**" if n == truth else f"{n}. {option}" for n, option in enumerate(options, 1)
        ]
        because = "*Why:*" if truth else "*The run decides:*"
        why = f" {because} {reason or 'see the figure'}." if reason or not truth else ""
        lines.append(f"- `{key}`: {question} ({'; '.join(told)}){why}")
    return "\n".join(lines)


def _constant(node: ast.expr | None) -> Any:
    """The value of a literal; None for anything that has to be computed."""
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def mistakes(root: Path, notebook: str) -> str:
    """The catalogue's mistakes of a notebook: for each, what the learner has not yet, and the question that helps."""
    return "\n\n".join(_mistakes_of(root, exercise) for exercise in exercises_of(notebook))


def _mistakes_of(root: Path, exercise: Exercise) -> str:
    titles = {line.name: line.title for line in criteria(grader_of(exercise.name))}
    found = [e for e in entries(root / "tests" / "misconceptions", exercise.name) if "__" not in e.name]
    found.sort(key=lambda entry: list(titles).index(entry.caught_by))
    ideas = [entry for entry in found if not entry.form]
    above = ["", *(entry.caught_by for entry in ideas)]  # a criterion is told once, in the first of its rows
    rows = [
        (titles[entry.caught_by] if entry.caught_by != before else "", _words(entry), entry.question)
        for before, entry in zip(above, ideas, strict=False)
    ]
    head = ("It tells you: not yet", "Mistake", "Ask")
    text = (
        f"### {exercise.number} · `{exercise.name}`\n\n{markdown_table(head, _escaped(rows), left=(0, 1, 2))}"
    )
    form = [_words(entry) for entry in found if entry.form]
    return f"{text}\n\nOf form only: {', '.join(form)}." if form else text


def _words(entry: Entry) -> str:
    return entry.name.replace("_", " ")


def _escaped(rows: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    return (tuple(cell.replace("|", "\\|") for cell in row) for row in rows)


def rubrics(root: Path, notebook: str) -> str:
    """What each exercise of a notebook is graded for; of the hidden criteria only what they are worth."""
    told = []
    for exercise in exercises_of(notebook):
        grader, hidden = grader_of(exercise.name), hidden_points(exercise.name)
        rows = [(line.title, f"{line.points}") for line in criteria(grader)]
        rows += [("*hidden, tried at grading only*", f"{hidden}")] if hidden else []
        rows.append(("**all**", f"**{points(exercise.name)}**"))
        table = markdown_table(("Criterion", "Points"), _escaped(rows))
        told.append(f"### {exercise.number} · `{exercise.name}`\n\n{table}")
    return "\n\n".join(told)


def totals(root: Path, of: str) -> str:
    """The points of every notebook, and how many of them hidden criteria decide."""
    rows = [
        (
            f"[{notebook}]({notebook}.md)",
            f"{len(exercises_of(notebook))}",
            f"{sum(points(exercise.name) for exercise in exercises_of(notebook))}",
            f"{sum(hidden_points(exercise.name) for exercise in exercises_of(notebook))}",
        )
        for notebook in NOTEBOOKS
    ]
    return markdown_table(("Notebook", "Exercises", "Points", "Hidden"), rows)


PARTS: dict[str, Callable[[Path, str], str]] = {
    "minutes": minutes,
    "predictions": predictions,
    "mistakes": mistakes,
    "rubrics": rubrics,
    "totals": totals,
    "plan": syllabus.table,
}
