"""Reading what a learner handed in, and telling an untouched stub from an attempt."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_course.grading.exercises import locate
from moe_course.grading.exercises.registry import EXERCISES, NOTEBOOKS, PART_OF

MAX_PARSED = 100_000  # characters; longer code is only searched for `def` and `class`


class Unreadable(ValueError):
    """A file that holds no gradable submission; the message says what a person can do."""


@dataclass(frozen=True)
class Submission:
    """A learner's file: the cells to run, in order, and the source of each exercise part it defines."""

    path: Path
    cells: tuple[str, ...]
    definitions: dict[str, str]

    @property
    def exercises(self) -> tuple[str, ...]:
        """The exercises that the file defines a part of, in the order of the course."""
        present = {PART_OF[part].name for part in self.definitions}
        return tuple(name for name in EXERCISES if name in present)

    def untouched(self, exercise: str) -> bool:
        """Whether every part of the exercise still is the released stub."""
        mine = [part for part in EXERCISES[exercise].parts if part in self.definitions]
        return all(is_stub(part, self.definitions[part]) for part in mine)

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
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise Unreadable(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Unreadable(f"{path}: cannot be read as UTF-8 text ({error})") from None
    if path.suffix == ".py":
        return Submission(path, (text,), _definitions(text))
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
    known = _released_cells()
    definitions: dict[str, str] = {}
    run: list[str] = []
    for cell, source in zip(cells, sources, strict=True):
        marks = cell.get("metadata", {})
        nbgrader = marks.get("nbgrader", {})
        if nbgrader.get("grade"):
            continue  # the check itself: the judge asks the questions in batch grading
        found = _definitions(source) or _definition_by_id(nbgrader.get("grade_id"), source)
        definitions |= found
        if (
            found
            or nbgrader.get("solution")
            or "setup" in marks.get("tags", ())
            or source.strip() not in known
        ):
            run.append(source)
    return Submission(path, tuple(run), definitions)


def cell_source(cell: dict[str, Any]) -> str:
    """The text of a notebook cell, which the format stores as a string or as a list of lines."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def _definition_by_id(grade_id: Any, source: str) -> dict[str, str]:
    """A solution cell whose text does not parse still is an attempt at its exercise."""
    return {grade_id: source} if grade_id in PART_OF else {}


def _definitions(source: str) -> dict[str, str]:
    """The exercise parts that a piece of code defines at its top level, each with its source."""
    tree = parsed(source)
    if tree is None:
        named = re.findall(r"^(?:def|class)\s+(\w+)", source, flags=re.MULTILINE)
        return {name: source for name in named if name in PART_OF}
    return {
        name: ast.get_source_segment(source, node) or ""
        for node in tree.body
        for name in bound(node)
        if name in PART_OF
    }


def parsed(source: str) -> ast.Module | None:
    """The syntax tree of a piece of code, or None where it has none: broken, too long, nested too deeply."""
    if len(source) > MAX_PARSED:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def bound(node: ast.stmt) -> list[str]:
    """The names that a statement defines or assigns. An import binds none: an imported answer is no attempt."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [target.id for target in targets if isinstance(target, ast.Name)]
    return []


def without_docstrings(node: ast.AST) -> ast.AST:
    """The node itself, with every docstring inside taken out."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    for inner in ast.walk(node):
        if isinstance(inner, kinds) and ast.get_docstring(inner, clean=False) is not None:
            inner.body = inner.body[1:] or [ast.Pass()]
    return node


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
    for node in tree.body if tree else ():
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
def _released() -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = []
    for notebook in NOTEBOOKS:
        path = locate.released(notebook)
        if path.is_file():
            cells += json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@functools.cache
def _stubs() -> dict[str, str | None]:
    stubs: dict[str, str | None] = {}
    for cell in _released():
        for name, source in _definitions(cell_source(cell)).items():
            stubs[name] = normalised(source, name)
    return stubs


@functools.cache
def _released_cells() -> frozenset[str]:
    return frozenset(cell_source(cell).strip() for cell in _released())
