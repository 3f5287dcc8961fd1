"""Which cell of a learner's notebook is which cell of the release, whatever happened to names, ids and metadata.

Two things rest on it: the repair of a submission before it is graded, and the update of a learner's own copy
(`moe_course.lesson.merge`).
"""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from nbformat import NotebookNode

from moe_course.grading.submission.syntax import bound, parsed, without_docstrings

SIMILAR = 0.6  # the share of a released cell's lines that a cell must hold to be taken for it
MAX_LINES = 200  # of a cell that are compared

Claims = dict[str, int]  # the key of a released cell → the place of the learner's cell that is it


class Release:
    """A released notebook: its cells by grade_id, else by id, and what marks an exercise.

    later: a newer release of the same notebook. A learner may have its cells already, if an update was interrupted.
    """

    def __init__(self, notebook: NotebookNode, later: NotebookNode | None = None) -> None:
        self.notebook = notebook
        self.cells = by_key(notebook)
        self.graded = [key for key, cell in self.cells.items() if grade_id(cell)]
        self.solutions = [key for key in self.graded if marks(self.cells[key]).get("solution")]
        self.checks = [key for key in self.graded if key not in self.solutions]
        self.setups = [key for key, cell in self.cells.items() if "setup" in tags(cell)] or self._first_code()
        self.needed = {*self.graded, *self.setups}
        newer = by_key(later) if later is not None else {}
        self.newcomers = {key: cell for key, cell in newer.items() if key not in self.cells}
        known = [*newer.items(), *self.cells.items()]
        self.texts = {cell.source.strip(): key for key, cell in known if cell.source.strip()}
        self.stubs = {key: definitions(self.cells[key].source) for key in self.solutions}
        self.home = {name: key for key, stub in self.stubs.items() for name in stub}

    def _first_code(self) -> list[str]:
        """Stands for a set-up cell where none is tagged, unless it belongs to an exercise."""
        first = next((key for key, cell in self.cells.items() if cell.cell_type == "code"), None)
        return [first] if first is not None and first not in self.graded else []

    def is_stub(self, name: str, form: str) -> bool:
        """Whether `form` (see `definitions`) is how the release leaves the part `name` of an exercise."""
        return name in self.home and self.stubs[self.home[name]][name] == form


def by_key(notebook: NotebookNode) -> dict[str, NotebookNode]:
    """The cells of a released notebook in order, by grade_id where there is one, else by the cell's id."""
    return {grade_id(cell) or cell["id"]: cell for cell in notebook.cells}


def recognise(cells: list[NotebookNode], release: Release) -> Claims:
    """The cells of the release that are in `cells`, each once, and no cell for two of them."""
    claims = _claim_solutions(cells, release)
    _claim_checks(cells, release, claims)
    _claim_by_id_and_text(cells, release, claims)
    _claim_newcomers(cells, release, claims)
    _claim_similar(cells, release, claims)
    return claims


def likeness(cells: list[NotebookNode], release: Release) -> int:
    """3 for each exercise or check that is there, 1 for each other cell with the same text."""
    claims = recognise(cells, release)
    exercises = sum(key in claims for key in (*release.solutions, *release.checks))
    texts = sum(
        cells[place].source.strip() == release.cells[key].source.strip() for key, place in claims.items()
    )
    return 3 * exercises + texts


def _claim_solutions(cells: list[NotebookNode], release: Release) -> Claims:
    """The best cell for each exercise: an attempt before a stub, a marked cell before another, the last one."""
    ranked = []
    for place, cell in enumerate(cells):
        is_code = cell.cell_type == "code"
        if not is_code and cell.source.strip() in release.texts:
            continue
        source = code_of(cell)
        named = [grade_id(cell), cell.get("id")]
        is_fenced = source != cell.source
        search = is_code or is_fenced or not release.stubs.keys().isdisjoint(named)
        defined = definitions(source, search=search)
        answers = {release.home[name] for name in defined if name in release.home}
        for key in answers or {key for key in named if key in release.stubs}:
            attempt = attempt_at(key, source, defined, release)
            if not is_code and key not in named:
                attempt = -1 if attempt == 2 else -2  # prose rather than an answer, if there is any other
            if attempt > -2:
                rank = (attempt, is_code, key == named[0], key == named[1], place)
                ranked.append((rank, -release.solutions.index(key), key))
    claims: Claims = {}
    for (*_, place), _, key in sorted(ranked, reverse=True):
        if key not in claims and place not in claims.values():
            claims[key] = place
    return claims


def attempt_at(key: str, source: str, defined: Mapping[str, str], release: Release) -> int:
    """2: defines the exercise in its own way. 1: is some other text. 0: the stub, or blank."""
    mine = {name: form for name, form in defined.items() if name in release.stubs[key]}
    if mine:
        return 2 if any(form != release.stubs[key][name] for name, form in mine.items()) else 0
    return int(bool(source.strip()))


def _claim_checks(cells: list[NotebookNode], release: Release, claims: Claims) -> None:
    forms = {key: _code_form(release.cells[key].source) for key in release.checks}
    ranked = []
    for place, cell in enumerate(cells):
        form, named = _code_form(cell.source), (grade_id(cell), cell.get("id"))
        for key in release.checks:
            same = form == forms[key]
            if (same and cell.cell_type == "code") or (key in named and not _keeps_something(cell.source)):
                ranked.append(((key == named[0], key == named[1], same, place), key))
    for (*_, place), key in sorted(ranked, reverse=True):
        if key not in claims and place not in claims.values():
            claims[key] = place


def _claim_by_id_and_text(cells: list[NotebookNode], release: Release, claims: Claims) -> None:
    """The lessons between the exercises: by id, of several the one with the same text; then by text."""
    others = {key: cell for key, cell in release.cells.items() if not grade_id(cell)}
    for name in (lambda cell: cell.get("id"), lambda cell: release.texts.get(cell.source.strip())):
        taken = set(claims.values())
        places: dict[str, list[int]] = {}
        for place, cell in enumerate(cells):
            prose = cell.cell_type != "code" and _names(cell, release)  # about an exercise, not the set-up
            key = None if place in taken else name(cell)
            if key in others and key not in claims and not (prose and key in release.setups):
                places.setdefault(key, []).append(place)
        for key, found in places.items():
            claims[key] = min(found, key=lambda at: (cells[at].source != others[key].source, at))


def _claim_newcomers(cells: list[NotebookNode], release: Release, claims: Claims) -> None:
    """Cells that only the later release has, by grade_id, id or text. What a cell defines does not count here.

    A learner's own function may have the name of an exercise that did not exist when they wrote it.
    """
    names = (grade_id, lambda cell: cell.get("id"), lambda cell: release.texts.get(cell.source.strip()))
    for name in names:
        for place, cell in reversed(list(enumerate(cells))):
            key = name(cell)
            if key in release.newcomers and key not in claims and place not in claims.values():
                claims[key] = place


def _claim_similar(cells: list[NotebookNode], release: Release, claims: Claims) -> None:
    """Answers and set-up cells that lost every mark and their name, by the lines they still share."""
    taken = set(claims.values())
    free = {
        place: _lines(cell.source)
        for place, cell in enumerate(cells)
        if place not in taken and cell.cell_type == "code" and not _names(cell, release)
    }
    for key in (*release.solutions, *release.setups):
        if key not in claims:
            shares = {place: _share(lines, release.cells[key].source) for place, lines in free.items()}
            best = max(shares, key=lambda place: (shares[place], place), default=None)
            if best is not None and shares[best] >= SIMILAR:
                claims[key] = best
                del free[best]


def _names(cell: NotebookNode, release: Release) -> bool:
    return any(name in release.home for name in definitions(cell.source))


def _share(lines: list[str], released: str) -> float:
    """The share of the released lines that are in `lines`, in order."""
    wanted = _lines(released)
    matcher = difflib.SequenceMatcher(None, lines, wanted, autojunk=False)
    return sum(block.size for block in matcher.get_matching_blocks()) / max(len(wanted), 1)


def _lines(source: str) -> list[str]:
    """The lines that hold something, without indentation and comment signs: code commented out counts."""
    lines = (line.strip().lstrip("# ") for line in source.splitlines()[:MAX_LINES])
    return [line for line in lines if line]


def marks(cell: NotebookNode) -> Mapping[str, Any]:
    """A cell's nbgrader metadata, empty where there is none that can be read."""
    found = cell.metadata.get("nbgrader")
    return found if isinstance(found, dict) else {}


def grade_id(cell: NotebookNode) -> str | None:
    found = marks(cell).get("grade_id")
    return found if isinstance(found, str) else None


def tags(cell: NotebookNode) -> list[str]:
    """A cell's tags, those that the format allows, each once."""
    found = cell.metadata.get("tags")
    allowed = (tag for tag in found if isinstance(tag, str)) if isinstance(found, list) else ()
    return list(dict.fromkeys(tag for tag in allowed if re.fullmatch("[^,\n]+", tag)))


def code_of(cell: NotebookNode) -> str:
    """The code in a cell; prose that is one fenced block is the code between the fences."""
    fenced = re.fullmatch(r"\s*```\w*\n(.*?)\n?```\s*", cell.source, re.DOTALL)
    return fenced[1] if fenced and cell.cell_type != "code" else cell.source


@functools.lru_cache(1024)  # most cells are alike in all submissions
def definitions(source: str, search: bool = True) -> Mapping[str, str]:
    """The names that code defines at its top level, each with a form of the definition without its layout.

    In code that does not parse, `search` looks for `def` and `class` at the start of a line.
    """
    tree = parsed(source)
    if tree is None:
        found = re.findall(r"^(?:async\s+)?(?:def|class)\s+(\w+)", source, re.MULTILINE) if search else ()
        return dict.fromkeys(found, source)
    return {name: _dump(without_docstrings(node)) for node in tree.body for name in bound(node)}


def _dump(node: ast.AST) -> str:
    try:
        return hashlib.sha256(ast.dump(node).encode("utf-8", "replace")).hexdigest()
    except RecursionError:
        return "nested too deeply to tell"


@functools.lru_cache(1024)
def _code_form(source: str) -> str:
    tree = parsed(source)
    return source.strip() if tree is None else _dump(tree)


def _keeps_something(source: str) -> bool:
    """Whether code leaves anything behind, as a lone `check(...)` does not."""
    tree = parsed(source)
    return tree is not None and any(not isinstance(node, ast.Expr) for node in tree.body)
