"""A learner's damaged notebook, back in the shape of the released one, so that it can be graded.

The learner's text and order stay. What grading needs is put back: which cell answers which exercise, the checks,
their points and places, the set-up, the kernel. What could act on the person who opens the notebook becomes plain
text (`sanitising`). Every repair is told in a sentence. Repairing twice changes nothing more.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from nbformat import NotebookNode, ValidationError, validate

from moe_course.grading.submission.matching import (
    Release,
    attempt_at,
    code_of,
    definitions,
    grade_id,
    likeness,
    recognise,
    tags,
)
from moe_course.grading.submission.parsing import Notes, Ungradable, read_notebook
from moe_course.grading.submission.sanitising import make_inert

__all__ = ["Repaired", "Ungradable", "repair", "repair_script", "which_notebook"]

MARKS = ("nbgrader", "deletable", "editable")
LOST_IN_SCRIPTS = (  # what no script can hold, so that its loss is not worth a word
    "nbgrader metadata lost: reattached",
    "lost its tag: put back",
    "the cells had no ids: added",
    "the notebook's kernel was another one or missing: put right",
)


@dataclass(frozen=True)
class Repaired:
    """A notebook fit for grading, and what had to be done for it."""

    notebook: NotebookNode
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Placed:
    """A cell of the submission, the key of the released cell that it is, and its place for people."""

    key: str | None
    place: str
    cell: NotebookNode

    @property
    def who(self) -> str:
        return self.key or self.place


def repair(submitted: bytes | str | NotebookNode, released: NotebookNode) -> Repaired:
    """The submission with the cells that nbgrader needs, each marked as in `released`. Raises Ungradable."""
    release, notes = Release(released), Notes()
    mine = read_notebook(submitted, notes)
    claims = recognise(mine.cells, release)
    if release.solutions and not any(key in claims for key in (*release.solutions, *release.checks)):
        raise Ungradable(
            "no cell resembles an exercise of this notebook; ask whether the right file was handed in"
        )
    keyed = {place: key for key, place in claims.items()}
    placed = [_Placed(keyed.get(n), f"cell {n + 1}", cell) for n, cell in enumerate(mine.cells)]
    for item in placed:
        _mend(item, release, notes)
    placed = _checks_after_answers(_with_missing(placed, release, notes), release, notes)
    _demote_stale_stubs(placed, release, notes)
    _point_elsewhere(placed, release, notes)
    _mend_ids(placed, release, notes)
    mine.cells = [item.cell for item in placed]
    _mend_metadata(mine, released, notes)
    _drop_invalid_metadata(placed, mine, notes)
    for n in make_inert([(item.cell, release.cells.get(item.key or "")) for item in placed]):
        notes.add(
            "could have acted on who opens it (HTML, link or image): shown as plain text", placed[n].who
        )
    return Repaired(mine, notes.sentences())


def repair_script(submitted: bytes, released: NotebookNode) -> Repaired:
    """The repair of a notebook that was saved as a script, see `scripts.as_notebook`. Raises Ungradable."""
    repaired = repair(submitted, released)
    worth_a_word = (note for note in repaired.notes if not note.endswith(LOST_IN_SCRIPTS))
    return Repaired(
        repaired.notebook,
        ("a notebook saved as a script: its cells were found at the markers", *worth_a_word),
    )


def which_notebook(submitted: bytes | str | NotebookNode, releases: Mapping[str, NotebookNode]) -> str | None:
    """The release that a file of whatever name came from, or None. Raises Ungradable if it is no notebook."""
    cells = read_notebook(submitted, Notes()).cells
    scores = {name: likeness(cells, Release(released)) for name, released in releases.items()}
    best = max(scores.values(), default=0)
    named = [name for name, score in scores.items() if score == best]
    return named[0] if best >= 3 and len(named) == 1 else None


def _mend(item: _Placed, release: Release, notes: Notes) -> None:
    """Type, text and metadata that the release demands of this cell."""
    key, cell = item.key, item.cell
    if key not in release.graded and "nbgrader" in cell.metadata:
        _demote(item, release, notes)
    if key is None or key not in release.needed:
        return
    released = release.cells[key]
    if cell.cell_type != released.cell_type:
        notes.add(f"was a {cell.cell_type} cell: {released.cell_type} again", key)
        cell.source = code_of(cell)
        _set_type(cell, released.cell_type)
    if key in release.checks and cell.source != released.source:
        notes.add("edited: the released text is back", key)
        cell.source = released.source
    if not cell.source.strip():
        notes.add("emptied: the released text is back", key)
        cell.source = released.source
    if key in release.graded:
        _mend_marks(cell, released, key, notes)
    if missing := [tag for tag in tags(released) if tag not in tags(cell)]:
        notes.add("lost its tag: put back", key)
        cell.metadata["tags"] = tags(cell) + missing


def _set_type(cell: NotebookNode, kind: str) -> None:
    cell.cell_type = kind
    for field in ("outputs", "execution_count", "attachments"):
        cell.pop(field, None)
    if kind == "code":
        cell.update(outputs=[], execution_count=None)


def _mend_marks(cell: NotebookNode, released: NotebookNode, key: str, notes: Notes) -> None:
    wanted = {mark: released.metadata[mark] for mark in MARKS if mark in released.metadata}
    had = {mark: cell.metadata.pop(mark) for mark in MARKS if mark in cell.metadata}
    if had != wanted:
        lost = "nbgrader" not in had
        notes.add(
            "nbgrader metadata lost: reattached" if lost else "nbgrader metadata changed: put back", key
        )
    cell.metadata.update(copy.deepcopy(wanted))


def _demote(item: _Placed, release: Release, notes: Notes) -> None:
    """Take the marks off a cell that nbgrader must not take for one of the course's."""
    named = grade_id(item.cell)
    for mark in MARKS:
        item.cell.metadata.pop(mark, None)
    if named in release.graded:
        notes.add("not the cell that counts: now an ordinary cell", f"{item.place} (marked {named})")
    else:
        notes.add("marked for nbgrader, but not by the course: now an ordinary cell", item.place)


def _demote_stale_stubs(placed: list[_Placed], release: Release, notes: Notes) -> None:
    """Make text of stubs that stand below the answer: run, they would undo it."""
    answered: set[str] = set()
    for item in placed:
        defined = definitions(item.cell.source) if item.cell.cell_type == "code" else {}
        edited = {name for name, form in defined.items() if not release.is_stub(name, form)}
        if defined and not edited and answered.issuperset(defined) and item.key not in release.needed:
            notes.add("an untouched stub below the answer: kept as text, not run", item.place)
            _set_type(item.cell, "raw")
        answered |= edited & release.home.keys()


def _with_missing(placed: list[_Placed], release: Release, notes: Notes) -> list[_Placed]:
    """With the deleted solution, check and set-up cells, each after the last cell that it followed."""
    placed = list(placed)
    before: list[str] = []
    for key, cell in release.cells.items():
        keys = [item.key for item in placed]
        if key in release.needed and key not in keys:
            stub = key in release.solutions
            notes.add("deleted: restored, as the untouched stub" if stub else "deleted: restored", key)
            anchor = next((earlier for earlier in reversed(before) if earlier in keys), None)
            at = keys.index(anchor) + 1 if anchor is not None else 0
            placed.insert(at, _Placed(key, key, copy.deepcopy(cell)))
        before.append(key)
    return placed


def _checks_after_answers(placed: list[_Placed], release: Release, notes: Notes) -> list[_Placed]:
    """With each check below its answer and above any other exercise; the learner's own cells may lie between."""
    placed = list(placed)
    for before, check in zip(release.graded, release.graded[1:], strict=False):
        if check in release.checks:
            keys = [item.key for item in placed]
            answer, at = keys.index(before), keys.index(check)
            if at < answer or any(key in release.graded for key in keys[answer + 1 : at]):
                notes.add("not below its exercise: moved there", check)
                moved = placed.pop(at)
                placed.insert(answer + (at > answer), moved)
    return placed


def _point_elsewhere(placed: list[_Placed], release: Release, notes: Notes) -> None:
    """Empty the stub of an exercise that the learner answered in the cell of another one: run, it would undo it."""
    answered: set[str] = set()
    for item in placed:
        if item.cell.cell_type == "code":
            found = definitions(item.cell.source).items()
            answered |= {
                release.home[n] for n, form in found if n in release.home and not release.is_stub(n, form)
            }
    for item in placed:
        if item.key in release.solutions and item.key in answered:
            source = item.cell.source
            if attempt_at(item.key, source, definitions(source), release) == 0:
                notes.add("answered in another cell: its own, untouched, is emptied", item.key)
                item.cell.source = f"# {item.key} is answered in another cell."


def _mend_ids(placed: list[_Placed], release: Release, notes: Notes) -> None:
    """The release's ids for the cells that need them, valid and unique ones for all."""
    lost_all = not any("id" in item.cell for item in placed if item.place != item.key)
    released = {item.place: release.cells[item.key]["id"] for item in placed if item.key is not None}
    in_use = {item.cell.get("id") for item in placed} | set(released.values())
    fresh = (name for n in itertools.count(1) if (name := f"own-{n}") not in in_use)
    taken: set[str] = set()
    # Those with a right to their id choose first.
    for item in sorted(placed, key=lambda at: (at.key not in release.needed, not _has_id(at, released))):
        had, right = item.cell.get("id"), released.get(item.place)
        wanted = right if item.key in release.needed or not _valid_id(had) or had in taken else had
        item.cell["id"] = next(fresh) if wanted is None or wanted in taken else wanted
        taken.add(item.cell["id"])
        if had is not None and had != item.cell["id"]:
            notes.add("cell id changed or not unique: put right", item.who)
        elif had is None:
            notes.add(*(["the cells had no ids: added"] if lost_all else ["no cell id: added", item.who]))


def _has_id(item: _Placed, released: dict[str, str]) -> bool:
    return item.key is not None and item.cell.get("id") == released[item.place]


def _valid_id(name: str | None) -> bool:
    return name is not None and re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) is not None


def _mend_metadata(mine: NotebookNode, released: NotebookNode, notes: Notes) -> None:
    """The release's kernel: another one, or none, cannot be started where the grading runs."""
    had, wanted = (nb.metadata.get("kernelspec") for nb in (mine, released))
    name = had.get("name") if isinstance(had, Mapping) else None
    if wanted and name != wanted["name"]:
        notes.add("the notebook's kernel was another one or missing: put right")
    mine.metadata = copy.deepcopy(released.metadata)


def _drop_invalid_metadata(placed: list[_Placed], mine: NotebookNode, notes: Notes) -> None:
    try:
        validate(mine)
    except ValidationError:
        for item in placed:
            _drop_invalid(item, notes)


def _drop_invalid(item: _Placed, notes: Notes) -> None:
    """Keep only the marks and tags of a cell whose metadata the notebook format forbids."""
    cell = item.cell
    try:
        validate(cell, ref=f"{cell.cell_type}_cell", version=4, version_minor=5)
    except ValidationError:
        notes.add("metadata that the format forbids: dropped", item.who)
        kept = {mark: cell.metadata[mark] for mark in MARKS if mark in cell.metadata}
        cell.metadata = NotebookNode(kept, **({"tags": tags(cell)} if tags(cell) else {}))
        cell.pop("attachments", None)
