"""Reading what a learner handed in, and telling an untouched stub from an attempt."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moe_course.grading.exercises import locate
from moe_course.grading.exercises.registry import EXERCISES, NOTEBOOKS, PART_OF
from moe_course.grading.submission import scripts
from moe_course.grading.submission.demonstrations import defines, needed
from moe_course.grading.submission.scripts import statement_forms
from moe_course.grading.submission.syntax import definitions_in, parsed, without_docstrings

KINDS = ("answer", "demonstration", "own")  # of a cell that runs
_CHECK = re.compile(r"^check\((\w+)", re.MULTILINE)


class Unreadable(ValueError):
    """A file that holds no gradable submission; the message says what a person can do."""


@dataclass(frozen=True)
class Submission:
    """A learner's file: the cells to run, in order, and the source of each exercise part it defines.

    checked: for each part that the file checks, the number of cells above its (last) check.
    """

    path: Path
    cells: tuple[str, ...]
    definitions: dict[str, str]
    checked: Mapping[str, int] = field(default_factory=dict)

    @property
    def exercises(self) -> tuple[str, ...]:
        """The exercises that the file defines a part of, in the order of the course."""
        present = {PART_OF[part].name for part in self.definitions}
        return tuple(name for name in EXERCISES if name in present)

    def untouched(self, exercise: str) -> bool:
        """Whether every part of the exercise still is the released stub."""
        mine = [part for part in EXERCISES[exercise].parts if part in self.definitions]
        return all(is_stub(part, self.definitions[part]) for part in mine)

    def checked_after(self, exercise: str) -> int | None:
        """How many cells stand above the check of an exercise, if a cell below it defines a name anew that it uses.

        In the learner's kernel, run from top to bottom, the check met the earlier definition: a helper of the same
        name that another exercise has, say. None where the end of the notebook serves as well.
        """
        at = self.checked.get(exercise)
        texts = {name: text for cell in self.cells[:at] for name, text in definitions_in(cell).items()}
        used: set[str] = set()
        wanted = set(EXERCISES[exercise].parts) & texts.keys()
        while wanted:
            used |= wanted
            trees = [parsed(texts[name]) for name in wanted]
            read = {n.id for tree in trees if tree for n in ast.walk(tree) if isinstance(n, ast.Name)}
            wanted = (read & texts.keys()) - used
        below = (
            {name for cell in self.cells[at:] for name in definitions_in(cell)} if at is not None else set()
        )
        return at if used & below and not below & {*EXERCISES[exercise].parts} else None

    def fingerprint(self, exercise: str) -> dict[str, Any] | None:
        """What answers share that differ in comments, layout and docstrings only: {"hash", "statements"}.

        statements: how many the answer adds to the stub. None for an untouched stub, for a part that is missing and
        for code that does not parse.
        """
        parts = EXERCISES[exercise].parts
        trees = [normalised(self.definitions.get(part, ""), part) for part in parts]
        if None in trees or self.untouched(exercise):
            return None
        written = sum(len(_added(part, self.definitions[part])) for part in parts)
        return {"hash": hashlib.sha256(repr(trees).encode()).hexdigest()[:16], "statements": written}


def read(path: str | Path) -> Submission:
    """Read a .py or .ipynb file. Raises Unreadable with a reason."""
    path = Path(path)
    if path.suffix not in (".py", ".ipynb"):
        raise Unreadable(f"{path}: a submission is a .py or an .ipynb file")
    try:
        data = path.read_bytes()
        text = scripts.decoded(data) if path.suffix == ".py" else data.decode("utf-8-sig")
    except FileNotFoundError:
        raise Unreadable(f"{path}: no such file") from None
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise Unreadable(f"{path}: cannot be read as UTF-8 text ({error})") from None
    if path.suffix == ".py":
        return _submission(path, [(source, {}) for source in scripts.cells_of(text, _demonstrations())])
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{path}: not a Jupyter notebook ({error})") from None
    return from_notebook(path, notebook)


def from_notebook(path: Path, notebook: Any) -> Submission:
    """The submission in a notebook, as JSON holds it. Raises Unreadable where it is none."""
    try:
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        sources = [cell_source(cell) for cell in cells]
    except (KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"{path}: not a Jupyter notebook ({type(error).__name__}: {error})") from None
    return _submission(
        path, [(source, cell.get("metadata")) for cell, source in zip(cells, sources, strict=True)]
    )


def _submission(path: Path, cells: list[tuple[str, Any]]) -> Submission:
    """The submission in code cells, each with its metadata if the file had any.

    Everything runs but the checks, for in batch grading the judge asks the questions, and the demonstrations of the
    course, of which only those run that an answer needs; also where the learner has deleted them, since in their own
    kernel the values were still there.
    """
    definitions: dict[str, str] = {}
    found_cells: list[tuple[str, str]] = []  # each with what it is
    variables = _variables(source for source, _ in cells)
    for source, metadata in cells:
        marks = metadata if isinstance(metadata, Mapping) else {}
        nbgrader = marks.get("nbgrader")
        nbgrader = nbgrader if isinstance(nbgrader, Mapping) else {}
        found = {name: text for name, text in _definitions(source).items() if name not in variables}
        found = found or _definition_by_id(nbgrader.get("grade_id"), source)
        definitions |= found
        if nbgrader.get("grade") and not found:  # an answer is one whatever its marks say
            kind = "check"
        elif found or nbgrader.get("solution"):
            kind = "answer"
        elif "setup" not in _tags(marks) and statement_forms(source) in _demonstrations():
            kind = "demonstration"
        else:
            kind = "own"
        found_cells.append((source, kind))
    found_cells = _with_deleted(found_cells, {PART_OF[part].notebook for part in definitions})
    sources = [source for source, _ in found_cells]
    places = {sort: {n for n, (_, kind) in enumerate(found_cells) if kind == sort} for sort in KINDS}
    wanted = needed(sources, places["answer"], places["demonstration"])
    run: list[str] = []
    checked: dict[str, int] = {}
    for n, (source, kind) in enumerate(found_cells):
        if kind != "check" and (kind != "demonstration" or n in wanted):
            run.append(source)
        checked |= {part: len(run) for part in _CHECK.findall(source) if part in PART_OF}
    return Submission(path, tuple(run), definitions, checked)


def _with_deleted(cells: list[tuple[str, str]], notebooks: Collection[str]) -> list[tuple[str, str]]:
    """The cells, and each of the notebooks' demonstrations that is not among them, where the course has it.

    Only demonstrations whose names no cell of the learner's defines come back: what they defined has the last word.
    """
    places = {statement_forms(source): n for n, (source, _) in enumerate(cells)}
    parts = {part: n for n, (source, _) in enumerate(cells) for part in _definitions(source)}
    taken = {name for source, kind in cells if kind != "demonstration" for name in defines(source)}
    before: dict[int, list[tuple[str, str]]] = {}
    at = 0
    for source, metadata, notebook in _released():
        if notebook in notebooks and not metadata.get("nbgrader", {}).get("grade"):
            form, mine = (
                statement_forms(source),
                [parts[part] for part in _definitions(source) if part in parts],
            )
            if form in places or mine:
                at = 1 + max([places.get(form, -1), *mine])
            elif form in _demonstrations() and (names := defines(source)) and not names & taken:
                before.setdefault(at, []).append((source, "demonstration"))
    return [new for n in range(len(cells) + 1) for new in (*before.get(n, ()), *cells[n : n + 1])]


def _tags(marks: Mapping[str, Any]) -> Sequence[Any]:
    tags = marks.get("tags")
    return tags if isinstance(tags, list) else ()


def cell_source(cell: dict[str, Any]) -> str:
    """The text of a notebook cell, which the format stores as a string or as a list of lines."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def _definition_by_id(grade_id: Any, source: str) -> dict[str, str]:
    """A solution cell whose text does not parse still is an attempt at its exercise."""
    return {grade_id: source} if isinstance(grade_id, str) and grade_id in PART_OF else {}


def _definitions(source: str) -> dict[str, str]:
    """The exercise parts that a piece of code defines at its top level, each with its source."""
    return {name: text for name, text in definitions_in(source).items() if name in PART_OF}


def _variables(sources: Iterable[str]) -> set[str]:
    """Names of exercises that are mere variables here: assigned only, in a file that answers other notebooks.

    `gate` is an exercise of notebook 11, and a good name for a variable in every other one.
    """
    texts = [item for source in sources for item in _definitions(source).items()]
    written = {name for name, text in texts if not _is_assigned(name, text)}
    notebooks = {PART_OF[name].notebook for name in written}
    return {name for name, _ in texts if notebooks and PART_OF[name].notebook not in notebooks}


def _is_assigned(name: str, text: str) -> bool:
    tree = parsed(text)
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return tree is not None and not any(isinstance(n, kinds) and n.name == name for n in ast.walk(tree))


def normalised(source: str, name: str) -> str | None:
    """The definition of `name` without comments, layout and docstrings; None where there is none."""
    node = _definition(source, name)
    try:
        return None if node is None else ast.dump(node)
    except RecursionError:
        return None


def _definition(source: str, name: str) -> ast.AST | None:
    """The definition of `name` without docstrings."""
    tree = parsed(source)
    for node in ast.walk(tree) if tree else ():  # those at the top level come first
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return without_docstrings(node)
    return None


def _added(name: str, source: str) -> list[str]:
    """The statements in the definition of `name` that its stub has not."""
    definition, stub = _definition(source, name), _stubs().get(name) or ""
    inside = list(ast.walk(definition))[1:] if definition else []
    dumps = [ast.dump(node) for node in inside if isinstance(node, ast.stmt)]
    return [dump for dump in dumps if dump not in stub]


def is_stub(name: str, source: str) -> bool:
    """Whether `source` defines `name` just as the released notebook does."""
    mine = normalised(source, name)
    return mine is not None and mine == _stubs().get(name)


@functools.cache
def _released() -> list[tuple[str, dict[str, Any], str]]:
    """The source, metadata and notebook of every code cell that was handed out, all notebooks in a row."""
    cells: list[tuple[str, dict[str, Any], str]] = []
    for notebook in NOTEBOOKS:
        path = locate.released(notebook)
        if path.is_file():
            code = _with_setup(json.loads(path.read_text(encoding="utf-8"))["cells"])
            cells += [(cell_source(cell), cell["metadata"], notebook) for cell in code]
    return cells


def _with_setup(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The code cells of a notebook. In one without a cell tagged "setup" the first code cell gets this tag."""
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    if code and not any("setup" in _tags(cell["metadata"]) for cell in code):
        code[0]["metadata"]["tags"] = ["setup"]
    return code


@functools.cache
def _stubs() -> dict[str, str | None]:
    stubs: dict[str, str | None] = {}
    for source, _, _ in _released():
        for name, text in _definitions(source).items():
            stubs[name] = normalised(text, name)
    return stubs


@functools.cache
def _demonstrations() -> frozenset[tuple[str, ...]]:
    """The released cells that are neither set-up nor exercise, each by the form of its statements."""
    return frozenset(
        statement_forms(source)
        for source, metadata, _ in _released()
        if "setup" not in _tags(metadata) and not metadata.get("nbgrader", {}).get("solution")
    )
