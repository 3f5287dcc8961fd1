"""The rules about exercises: their cells, what stands around them, and that no answer leaves the house."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from nbformat import NotebookNode

from moe_course.grading.registry import Exercise

Found = Iterator[tuple[str, str]]
TELLING = 25  # characters from which on a line of an answer gives it away


def cells(notebook: NotebookNode, exercises: Sequence[Exercise], points: Mapping[str, float]) -> Found:
    """Each exercise has one solution cell and, directly behind it, a check worth its grader's points."""
    marked = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
    found = [cell.metadata.nbgrader.get("grade_id") for cell in marked]
    expected = [grade_id for one in exercises for grade_id in (one.name, f"check_{one.name}")]
    if found != expected:
        yield "", f"its nbgrader cells are {found}; they should be {expected}"
        return
    for exercise, solution, check in zip(exercises, marked[::2], marked[1::2], strict=True):
        call, full = f"check({', '.join(exercise.parts)})", points[exercise.name]
        if _roles(solution) != {"solution"}:
            yield solution.id, "is not marked as a solution cell, and only that"
        if _roles(check) != {"grade", "locked"}:
            yield check.id, "is not marked as a locked grade cell, and only that"
        if notebook.cells.index(check) != notebook.cells.index(solution) + 1:
            yield check.id, "does not follow its exercise directly"
        if check.metadata.nbgrader.get("points") != full:
            yield check.id, f"gives {check.metadata.nbgrader.get('points')} points, its grader {full}"
        if check.source != call:
            yield check.id, f"is not {call} alone"
    yield from _markers(notebook, {cell.id for cell in marked[::2]})


def _roles(cell: NotebookNode) -> set[str]:
    marks = cell.metadata.nbgrader
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
    """Above each exercise a header with number, name, stars and minutes; near it, folded help."""
    ids = [cell.id for cell in notebook.cells]
    for exercise in exercises:
        if exercise.name not in ids:
            continue
        texts = _belonging(notebook, ids.index(exercise.name))
        header = next((text for text in texts if _heads(text, exercise)), "")
        for what, pattern in {"stars": "[★⭐]", "minutes": r"\d\s*min"}.items():
            if not re.search(pattern, header):
                yield exercise.name, f"no header with {exercise.number}, {exercise.name} and {what} above it"
        if not any("<details" in text for text in texts):
            yield exercise.name, "no folded help (<details>) near it"


def _heads(text: str, exercise: Exercise) -> bool:
    number, name = re.escape(exercise.number), re.escape(exercise.name)
    return bool(re.search(rf"^#+ (?=.*\b{number}\b)(?=.*\b{name}\b)", text, flags=re.MULTILINE))


def _belonging(notebook: NotebookNode, place: int) -> list[str]:
    """The text cells around the solution cell at `place`: back to the last check, on to the next heading."""
    checks = [i for i, cell in enumerate(notebook.cells[:place]) if cell.id.startswith("check_")]
    before = notebook.cells[checks[-1] if checks else 0 : place]
    after = notebook.cells[place + 1 :]
    headings = [
        i for i, cell in enumerate(after) if cell.cell_type == "markdown" and "\n#" in "\n" + cell.source
    ]
    near = before + after[: headings[0] if headings else None]
    return [cell.source for cell in near if cell.cell_type == "markdown"]


def leaks(released: NotebookNode, authored: NotebookNode) -> Found:
    """No marker, and no telling line of an answer, stands anywhere in the release."""
    lines = {line.strip() for cell in code_cells(authored) for line in _answer(cell.source)}
    telling = sorted(line for line in lines if len(line) >= TELLING and not line.startswith("#"))
    for cell in released.cells:
        if re.search(r"(?:BEGIN|END) (?:SOLUTION|HIDDEN TESTS)", cell.source):
            yield cell.id, "a marker of solutions or hidden tests is in the release"
        for line in telling:
            if line in cell.source:
                yield cell.id, f"a line of an answer is in the release: {line}"


def _answer(source: str) -> Iterator[str]:
    """The lines between the markers of a solution cell."""
    inside = False
    for line in source.splitlines():
        if "BEGIN SOLUTION" in line or "END SOLUTION" in line:
            inside = "BEGIN" in line
        elif inside:
            yield line


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def markdown_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]
