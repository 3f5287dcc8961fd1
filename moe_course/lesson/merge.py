"""An update of a course notebook that keeps everything its learner wrote: a three-way merge of cells.

`base` is the release that the learner was handed, `new` the release of today, `mine` the learner's file.
Which cell is which, `moe_course.grading.submission.matching` finds out, as it does for the repair of submissions: a
tool that drops ids or metadata (Colab does) costs nobody their work.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from nbformat import NotebookNode

from moe_course.grading.submission.matching import Release, by_key, grade_id, marks, recognise

Cells = dict[str, NotebookNode]


@dataclass
class Merged:
    """A merged notebook, how much of the learner's is in it, and what the learner should know about it."""

    notebook: NotebookNode
    answers: int = 0  # solution cells that are no longer the stub
    own_cells: int = 0  # cells that the learner added, or edited where the course edited too
    notes: list[str] = field(default_factory=list)


def merge(base: NotebookNode, new: NotebookNode, mine: NotebookNode) -> Merged:
    """The notebook `new` with everything in it that the learner wrote.

    An answer stays in its cell, and so does any other edit where the course did not edit as well. Where both
    did, the course's cell comes first and the learner's follows it. Added cells stay behind the cell they
    followed. Deleted course cells come back. Outputs of untouched cells are dropped.
    """
    old, fresh = by_key(base), by_key(new)
    claims = recognise(mine.cells, Release(base, later=new))
    theirs = {key: mine.cells[place] for key, place in claims.items()}
    merged = Merged(copy.deepcopy(new))
    added = _added({place: key for key, place in claims.items()}, mine.cells, old, fresh, merged.notes)

    cells = [*added.get(None, [])]
    for key, cell in fresh.items():
        kept, beside = _settle(key, cell, old.get(key), theirs.get(key), merged.notes)
        merged.answers += is_solution(cell) and not same(kept, cell)
        cells += [kept, *beside, *added.get(key, [])]
        merged.own_cells += len(beside)
    merged.own_cells += sum(map(len, added.values()))
    merged.notebook.cells = _with_unique_ids(cells)
    return merged


def is_solution(cell: NotebookNode) -> bool:
    """Whether nbgrader's marks say that a cell holds the answer of an exercise."""
    return bool(marks(cell).get("solution"))


def same(one: NotebookNode, other: NotebookNode) -> bool:
    """Whether two cells say the same; blank lines around the text do not count."""
    return one.cell_type == other.cell_type and one.source.strip() == other.source.strip()


def _added(
    keys: dict[int, str], cells: list[NotebookNode], old: Cells, fresh: Cells, notes: list[str]
) -> dict[str | None, list[NotebookNode]]:
    """The learner's own cells, by the course cell they follow (None: at the top)."""
    added: dict[str | None, list[NotebookNode]] = {}
    behind: str | None = None
    for place, cell in enumerate(cells):
        key = keys.get(place)
        if key in fresh:
            behind = key
        elif cell.source.strip() and not any(same(cell, old[k]) for k in (key, grade_id(cell)) if k in old):
            added.setdefault(behind, []).append(_as_own(cell))
            if key is not None:
                notes.append(
                    f"{key} is no longer in the notebook; what you wrote there is kept as your own cell"
                )
    return added


def _settle(
    key: str, new: NotebookNode, base: NotebookNode | None, mine: NotebookNode | None, notes: list[str]
) -> tuple[NotebookNode, list[NotebookNode]]:
    """The cell that goes in the place of `new`, and the learner's version where that must follow it."""
    untouched = mine is None or same(mine, new) or (base is not None and same(mine, base))
    if mine is None or untouched or not mine.source.strip():
        return copy.deepcopy(new), []
    course_changed = base is None or not same(base, new)
    if is_solution(new) or not (course_changed or grade_id(new)):
        if course_changed and base is not None:
            notes.append(
                f"{key}: the exercise changed; your code is kept. `moe-course reset {key}` shows the new"
            )
        kept = copy.deepcopy(mine)
        kept.update(id=new.id, metadata=copy.deepcopy(new.metadata))
        return kept, []
    notes.append(f"{key}: the course's cell is restored, and the one you edited follows it")
    return copy.deepcopy(new), [_as_own(mine)]


def _as_own(cell: NotebookNode) -> NotebookNode:
    """A copy that belongs to the learner: nbgrader must not take it for one of the course's cells."""
    own = copy.deepcopy(cell)
    for mark in ("nbgrader", "deletable", "editable"):
        own.metadata.pop(mark, None)
    return own


def _with_unique_ids(cells: Iterable[NotebookNode]) -> list[NotebookNode]:
    """The cells, the learner's with fresh ids where a course cell has theirs already."""
    cells = list(cells)
    taken: set[str] = set()
    # nbgrader's cells choose first: their id is their grade_id.
    for cell in sorted(cells, key=lambda cell: grade_id(cell) is None):
        if "id" not in cell or cell.id in taken:
            cell["id"] = uuid.uuid4().hex[:8]
        taken.add(cell.id)
    return cells
