"""The rules about exercises: their cells, the text around them, and that a release contains no answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from nbformat import NotebookNode

from moe_course.authoring import stubs
from moe_course.grading.exercises.registry import Exercise

Found = Iterator[tuple[str, str]]
LADDER = ("A nudge", "Pseudocode", "The solution")  # other rungs may stand between these
TELLING = 25  # characters from which on a line of an answer gives it away


def cells(notebook: NotebookNode, exercises: Sequence[Exercise], points: Mapping[str, float]) -> Found:
    """Each exercise has one solution cell and, directly after it, a check with the points of its grader.

    The check of an exercise that is not graded is an ordinary cell.
    """
    marked = {grade_id: i for i, cell in enumerate(notebook.cells) if (grade_id := _grade_id(cell))}
    expected = {one.name for one in exercises} | {f"check_{one.name}" for one in exercises if one.graded}
    for missing in sorted(expected - marked.keys()):
        yield "", f"has no nbgrader cell {missing}"
    for unknown in sorted(marked.keys() - expected):
        yield unknown, "is an nbgrader cell of no exercise of this notebook"
    for exercise in exercises:
        if exercise.name in marked:
            place = marked[exercise.name]
            yield from _pair(notebook.cells[place], notebook.cells[place + 1 : place + 2], exercise, points)
    yield from _markers(notebook, {exercise.name for exercise in exercises})


def _pair(
    solution: NotebookNode, following: list[NotebookNode], exercise: Exercise, points: Mapping[str, float]
) -> Found:
    """The solution cell of an exercise and its check, the cell after it."""
    call = f"check({', '.join(exercise.parts)})"
    if _roles(solution) != {"solution"}:
        yield solution.id, "is not marked as a solution cell, and only that"
    if not following or following[0].source != call:
        yield solution.id, f"is not followed by a cell with {call} alone"
    elif exercise.graded:
        check, full = following[0], points[exercise.name]
        if _roles(check) != {"grade", "locked"}:
            yield check.id, "is not marked as a locked grade cell, and only that"
        elif check.metadata.nbgrader.points != full:
            yield check.id, f"gives {check.metadata.nbgrader.points} points, its grader {full}"


def _grade_id(cell: NotebookNode) -> str | None:
    return cell.metadata.get("nbgrader", {}).get("grade_id")


def _roles(cell: NotebookNode) -> set[str]:
    marks = cell.metadata.get("nbgrader", {})
    return {role for role in ("grade", "solution", "locked", "task") if marks.get(role)}


def _markers(notebook: NotebookNode, solutions: set[str]) -> Found:
    for cell in notebook.cells:
        marks = re.findall(r"(BEGIN|END) SOLUTION", cell.source)
        if marks != ["BEGIN", "END"] * (len(marks) // 2):
            yield cell.id, "BEGIN SOLUTION and END SOLUTION do not pair up"
        if marks and cell.id not in solutions:
            yield cell.id, "marks an answer outside a solution cell"
        if not marks and cell.id in solutions:
            yield cell.id, "marks no answer, so the release would lose the signature with it"


def surroundings(notebook: NotebookNode, exercises: Sequence[Exercise]) -> Found:
    """Above each exercise: a header with number, name, stars and minutes. Before the next heading: a help ladder."""
    ids = [cell.id for cell in notebook.cells]
    for exercise in exercises:
        if exercise.name not in ids:
            continue
        place = ids.index(exercise.name)
        headers = [i for i, cell in enumerate(notebook.cells[:place]) if _heads(cell, exercise)]
        if not headers:
            yield exercise.name, f"no header with {exercise.number} and {exercise.name} above it"
            continue
        for what, pattern in {"stars": "[★⭐]", "minutes": r"\d\s*min"}.items():
            if not re.search(pattern, notebook.cells[headers[-1]].source):
                yield exercise.name, f"its header does not say its {what}"
        behind = [i for i in range(place, len(ids)) if _is_heading(notebook.cells[i])]
        near = notebook.cells[headers[-1] : behind[0] if behind else None]
        rungs = [name for cell in near for name in re.findall(r"<summary>(.*?)</summary>", cell.source)]
        if [name for name in rungs if name in LADDER] != [*LADDER]:
            yield (
                exercise.name,
                f"its folded help is no ladder of {', '.join(LADDER)}, but {', '.join(rungs) or 'none'}",
            )


def _heads(cell: NotebookNode, exercise: Exercise) -> bool:
    number, name = re.escape(exercise.number), re.escape(exercise.name)
    return bool(re.search(rf"^#+ (?=.*\b{number}\b)(?=.*\b{name}\b)", cell.source, flags=re.MULTILINE))


def _is_heading(cell: NotebookNode) -> bool:
    return cell.cell_type == "markdown" and bool(re.search(r"^#+ ", cell.source, flags=re.MULTILINE))


def leaks(released: NotebookNode, authored: NotebookNode) -> Found:
    """The release contains no marker of a solution, and no line that would give an answer away.

    A line of an answer that the exercise's own stub has as well tells nothing.
    """
    parts = [stubs.split(cell.source) for cell in code_cells(authored)]
    shown = {line.strip() for _, stub in parts for line in stub}
    lines = {line.strip() for answer, _ in parts for line in answer} - shown
    telling = sorted(line for line in lines if len(line) >= TELLING and not line.startswith("#"))
    for cell in released.cells:
        if re.search(r"(?:BEGIN|END) (?:SOLUTION|HIDDEN TESTS)", cell.source):
            yield cell.id, "a marker of solutions or hidden tests is in the release"
        for line in telling:
            if line in cell.source:
                yield cell.id, f"a line of an answer is in the release: {line}"


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def markdown_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]
