"""The rules for notebooks of this course, as code: readers can rely on them in every notebook.

`course_problems(root)` reads both trees. Each rule is a generator of (cell id, text) over one notebook; the
rules about exercises are in `exercise_rules`.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import nbformat
from nbformat import NotebookNode

from moe_course.authoring import exercise_rules, promises, stubs, times
from moe_course.authoring.exercise_rules import Found, code_cells, markdown_cells
from moe_course.grading.exercises.registry import Exercise, exercises_of

SETUP_LINES = 12
CELL_LINES = 35
MEDIAN_CELL_LINES = 8
MEDIAN_WORDS = 60  # words of a markdown cell, without folded help
SECTIONS = ("Recap", "What not to conclude", "Going deeper", "References")

_SLUG = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_RANDOM = re.compile(r"(?=.*\d)[0-9a-f]{8}(?:-[0-9a-f-]{27})?")  # ids that tools generate
_FOLDED = re.compile(r"<details.*?</details>", re.DOTALL)
_BANNED = {
    r"^\s*!": "a shell command",
    r"^\s*%(?!matplotlib\b)": "an IPython magic",
    r"\b(urlopen|urlretrieve|load_dataset|hf_hub_download|from_pretrained)\b|\brequests\.|\btorch\.hub\b": (
        "a download"
    ),
}
_MACHINE_PATH = re.compile(r"(?<![\w./])/(?:home|Users|tmp|root|opt|work|mnt|content)/\w|[A-Z]:\\Users")


class Problem(NamedTuple):
    """A broken rule: where it is broken, and how. Without a cell, the rule is about the whole notebook."""

    file: str
    cell: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}: cell {self.cell}: {self.text}" if self.cell else f"{self.file}: {self.text}"


def course_problems(root: Path, points: Callable[[str], float] | None = None) -> list[Problem]:
    """The problems of every notebook in `root`/solutions and of its release.

    `points` gives the full marks of an exercise, by default those of its grader.
    """
    if points is None:
        from moe_course.grading.exercises import rubric

        points = rubric.points
    problems: list[Problem] = []
    sources = sorted((root / "solutions").glob("*/*.ipynb"))
    books = {path.stem: nbformat.read(path, as_version=4) for path in sources}
    files = {path.stem: path for path in sources}
    for name, cell, text in promises.broken(books):
        problems += _named(files[name], (cell, text))
    for path in sources:
        exercises = exercises_of(path.stem)
        marks = {exercise.name: points(exercise.name) for exercise in exercises}
        problems += source_problems(path, exercises, marks)
        if any(exercise.graded for exercise in exercises):
            problems += _named(path, *times.problems(books[path.stem]))
        released = root / "notebooks" / path.parent.name / path.name
        if released.exists():
            problems += release_problems(released, path)
    return problems


def source_problems(path: Path, exercises: Sequence[Exercise], points: Mapping[str, float]) -> list[Problem]:
    """The broken rules of an authored notebook, which must have these `exercises`."""
    notebook = nbformat.read(path, as_version=4)
    return _named(
        path,
        *_form(path, notebook),
        *_ids(notebook),
        *_no_outputs(notebook),
        *_lengths(notebook),
        *_nothing_foreign(notebook),
        *_figures(notebook),
        *_frame(notebook),
        *(_sections(notebook) if any(exercise.graded for exercise in exercises) else ()),
        *exercise_rules.cells(notebook, exercises, points),
        *exercise_rules.surroundings(notebook, exercises),
    )


def release_problems(path: Path, source: Path) -> list[Problem]:
    """The broken rules of a released notebook: above all, it must contain no answer."""
    released, authored = (nbformat.read(file, as_version=4) for file in (path, source))
    ids = [[cell.id for cell in notebook.cells] for notebook in (released, authored)]
    return _named(
        path,
        *([("", "its cells are not those of its source")] if ids[0] != ids[1] else ()),
        *_no_outputs(released),
        *exercise_rules.leaks(released, authored),
    )


def _named(path: Path, *found: tuple[str, str]) -> list[Problem]:
    return [Problem("/".join(path.parts[-3:]), cell, text) for cell, text in found]


def _form(path: Path, notebook: NotebookNode) -> Found:
    if path.stem != path.parent.name:
        yield "", f"a notebook has the name of its folder: {path.parent.name}.ipynb"
    if path.read_text(encoding="utf-8") != nbformat.writes(notebook) + "\n":
        yield "", "not in nbformat's own layout, so every diff is noisy; read and write it once with nbformat"
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "", "its kernel is not python3"


def _ids(notebook: NotebookNode) -> Found:
    for cell in notebook.cells:  # nbformat renames the second of two equal ids as it reads them
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id", cell.id)
        if cell.id != grade_id:
            yield cell.id, f"its id differs from its grade_id {grade_id}"
        exercise = (
            "nbgrader" in cell.metadata
        )  # its id is the exercise's name, which a class writes in capitals
        if (not exercise and not _SLUG.fullmatch(cell.id)) or _RANDOM.fullmatch(cell.id):
            yield cell.id, "its id is not a readable name such as softmax-figure"


def _no_outputs(notebook: NotebookNode) -> Found:
    for cell in code_cells(notebook):
        if cell.outputs or cell.execution_count is not None:
            yield cell.id, "has outputs or an execution count; clear them"


def _lengths(notebook: NotebookNode) -> Found:
    lines = {cell.id: _count_lines(cell.source) for cell in code_cells(notebook)}
    for cell_id, count in lines.items():
        if count > CELL_LINES:
            yield cell_id, f"{count} lines of code; at most {CELL_LINES}"
    if lines and median(lines.values()) > MEDIAN_CELL_LINES:
        yield (
            "",
            f"the median of its code cells is {median(lines.values())} lines; at most {MEDIAN_CELL_LINES}",
        )
    words = [len(_FOLDED.sub("", cell.source).split()) for cell in markdown_cells(notebook)]
    if words and median(words) > MEDIAN_WORDS:
        yield "", f"the median of its text cells is {median(words)} words; at most {MEDIAN_WORDS}"


def _count_lines(source: str) -> int:
    """The number of lines of a cell, without its stub and without the lines that mark a solution."""
    stub = stubs.split(source)[1]
    marks = sum("BEGIN SOLUTION" in line or "END SOLUTION" in line for line in source.splitlines())
    return len(source.splitlines()) - marks - (len(stub) + 1 if stub else 0)


def _nothing_foreign(notebook: NotebookNode) -> Found:
    for cell in code_cells(notebook):
        for pattern, what in _BANNED.items():
            if re.search(pattern, cell.source, flags=re.MULTILINE):
                yield cell.id, f"contains {what}"
    for cell in notebook.cells:
        if found := _MACHINE_PATH.search(cell.source):
            yield cell.id, f"contains a path of one machine: {found[0]}…"


def _figures(notebook: NotebookNode) -> Found:
    """A cell that draws a figure also shows it, and gives it an alt text."""
    for cell in code_cells(notebook):
        try:
            tree = ast.parse(re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.MULTILINE))
        except SyntaxError as error:
            yield cell.id, f"is not Python ({error.msg}, line {error.lineno})"
            continue
        calls = [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        shows = [call for name, call in calls if name in ("show", "viz.show")]
        if not all(_has_alt(call) for call in shows):
            yield cell.id, "show() without an alt text"
        if not shows and any(name.split(".")[-1] in figure_functions() for name, _ in calls):
            yield cell.id, "draws a figure but does not show(fig, alt=...) it"


@functools.cache
def figure_functions() -> frozenset[str]:
    """The functions that make a figure: those of moe_course.viz that return a Figure, and matplotlib's own."""
    sources = (Path(__file__).parent.parent / "viz").glob("*.py")
    functions = (node for path in sources for node in ast.parse(path.read_text(encoding="utf-8")).body)
    return frozenset({"subplots", "figure", "plot"}) | {
        node.name
        for node in functions
        if isinstance(node, ast.FunctionDef) and node.returns and "Figure" in ast.unparse(node.returns)
    }


def _has_alt(call: ast.Call) -> bool:
    """Whether the call has an `alt` that is not empty. A computed one counts as not empty."""
    alts = [keyword.value for keyword in call.keywords if keyword.arg == "alt"]
    return any(not isinstance(alt, ast.Constant) or bool(str(alt.value or "").strip()) for alt in alts)


def _frame(notebook: NotebookNode) -> Found:
    setups = [cell for cell in code_cells(notebook) if "setup" in cell.metadata.get("tags", ())]
    if len(setups) != 1 or setups[0] is not code_cells(notebook)[0]:
        yield "", f"its first code cell alone is tagged setup; here {len(setups)} are"
        return
    if len(setups[0].source.splitlines()) > SETUP_LINES:
        yield setups[0].id, f"the set-up cell has more than {SETUP_LINES} lines"
    opening = "\n".join(cell.source for cell in notebook.cells[: notebook.cells.index(setups[0])])
    if not re.match(r"# \S", opening):
        yield "", "does not open with a title"
    if "?" not in opening:
        yield "", "asks no question before the set-up cell"
    if not re.search(r"\d\s*(min|hour)", opening):
        yield "", "does not say before the set-up cell how long it takes"


def _sections(notebook: NotebookNode) -> Found:
    text = "\n".join(cell.source for cell in markdown_cells(notebook))
    headings = re.findall(r"^#+ (.*)$", text.lower(), flags=re.MULTILINE)
    for section in SECTIONS:
        if not any(section.lower() in heading for heading in headings):
            yield "", f"has no section “{section}”"
