"""How long a notebook takes: what its title says, what its exercises say, and an estimate of the whole.

The estimate: the minutes of the exercises, 75 words a minute for text with equations, read in a second language by
many, and two minutes for each code cell that is run and looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from nbformat import NotebookNode

from moe_course.authoring.exercise_rules import Found, code_cells, markdown_cells

WORDS_A_MINUTE = 75
MINUTES_A_CELL = 2
FACTOR = 1.5  # how far what is said may be from the estimate

_EXERCISE = re.compile(r"^### Exercise [\d.]+ .*?(\d+) minutes", re.MULTILINE)
_STATED = re.compile(
    r"^\| Time \| about ([\d½]+) hours?[^,|]*, (\d+) minutes of it for the (\d+) exercises \|$", re.MULTILINE
)
_FOLDED = re.compile(r"<details.*?</details>", re.DOTALL)


def problems(notebook: NotebookNode) -> Found:
    """What its title says wrongly about the time that a notebook with exercises takes."""
    minutes = list(_of_exercises(notebook))
    said = _STATED.search(notebook.cells[0].source)
    if said is None:
        yield (
            notebook.cells[0].id,
            f"says no “| Time | about 2½ hours, {sum(minutes)} minutes of it for the {len(minutes)} exercises |”",
        )
        return
    if (int(said[2]), int(said[3])) != (sum(minutes), len(minutes)):
        yield (
            notebook.cells[0].id,
            f"its {len(minutes)} exercises take {sum(minutes)} minutes, not {said[2]} for {said[3]}",
        )
    stated, likely = hours(said[1]), estimate(notebook) / 60
    if not likely / FACTOR <= stated <= likely * FACTOR:
        yield notebook.cells[0].id, f"says {said[1]} hours; by its length it takes {likely:.1f}"


def estimate(notebook: NotebookNode) -> float:
    """The minutes that a notebook takes, from its length."""
    words = sum(len(_FOLDED.sub("", cell.source).split()) for cell in markdown_cells(notebook))
    cells = sum("nbgrader" not in cell.metadata for cell in code_cells(notebook))
    return sum(_of_exercises(notebook)) + words / WORDS_A_MINUTE + MINUTES_A_CELL * cells


def hours(text: str) -> float:
    """The number that “2”, “2½” or “½” stands for."""
    return float(text.replace("½", "") or 0) + 0.5 * text.endswith("½")


def _of_exercises(notebook: NotebookNode) -> Iterator[int]:
    for cell in markdown_cells(notebook):
        yield from map(int, _EXERCISE.findall(cell.source))
