"""How long a notebook takes: what its title says, what its exercises say, and an estimate of the whole.

The estimate: the minutes of the exercises, 75 words a minute for text with equations, read in a second language by
many, and two minutes for each code cell that is run and looked at.

`sections` shares the time that the title says among the sections, for teachers who plan a lesson.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nbformat import NotebookNode

from moe_course.authoring.exercise_rules import Found, code_cells, markdown_cells
from moe_course.grading.exercises import stated

WORDS_A_MINUTE = 75
MINUTES_A_CELL = 2
FACTOR = 1.5  # how far what is said may be from the estimate

_EXERCISE = re.compile(r"^### Exercise [\d.]+ .*?(\d+) minutes", re.MULTILINE)
_STATED = re.compile(
    r"^\| Time \| about ([\d½]+) hours?[^,|]*, (\d+) minutes of it for the (\d+) exercises \|$", re.MULTILINE
)
_FOLDED = re.compile(r"<details.*?</details>", re.DOTALL)
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_NUMBERED = re.compile(r"(?:Case )?(\d+) · ")
_OPENING, _CLOSING = "Opening", "Closing"
_JOINED = {"The letters": _OPENING} | dict.fromkeys(
    ("The model card", "Recap", "What not to conclude", "Going deeper", "References", "Next"), _CLOSING
)


@dataclass(frozen=True)
class Section:
    """A part of a notebook under one heading, the minutes that it takes, and those of its exercises, by number.

    `number` is that of the heading ("4 · The layer", "Case 4 · …"); a section without one has that of the section
    before it, and what comes before the first has the first one's.
    """

    title: str
    number: int
    minutes: int
    exercises: dict[str, int]


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
    said_hours, likely = stated.hours(said[1]), estimate(notebook) / 60
    if not likely / FACTOR <= said_hours <= likely * FACTOR:
        yield notebook.cells[0].id, f"says {said[1]} hours; by its length it takes {likely:.1f}"


def estimate(notebook: NotebookNode) -> float:
    """The minutes that a notebook takes, from its length."""
    words = sum(len(_FOLDED.sub("", cell.source).split()) for cell in markdown_cells(notebook))
    cells = sum("nbgrader" not in cell.metadata for cell in code_cells(notebook))
    return sum(_of_exercises(notebook)) + words / WORDS_A_MINUTE + MINUTES_A_CELL * cells


def stated_minutes(notebook: NotebookNode) -> int:
    """The minutes that the title of a notebook says. Raises ValueError when it says none."""
    title = notebook.cells[0]
    if not (found := stated.minutes(title.source)):
        raise ValueError(f"the title (cell {title.id}) says no “| Time | about …”")
    return found


def sections(notebook: NotebookNode) -> list[Section]:
    """The sections of a notebook, whose minutes add up to what its title says.

    An exercise has the minutes that its header says. The rest of the time is shared by the estimate.
    """
    grouped = _grouped(notebook)
    exercises = {title: _exercises_in(cells) for title, cells in grouped.items()}
    worked = {title: sum(found.values()) for title, found in exercises.items()}
    rest = {
        title: estimate(NotebookNode(cells=cells)) - sum(_of_exercises(NotebookNode(cells=cells)))
        for title, cells in grouped.items()
    }
    scale = (stated_minutes(notebook) - sum(worked.values())) / sum(rest.values())
    numbers = {title: int(said[1]) for title in grouped if (said := _NUMBERED.match(title))}
    found, passed, last, number = [], 0.0, 0, next(iter(numbers.values()), 0)
    for title in grouped:
        passed += worked[title] + scale * rest[title]
        number = numbers.get(title, number)
        found.append(Section(title, number, round(passed) - last, exercises[title]))
        last = round(passed)
    return found


def _grouped(notebook: NotebookNode) -> dict[str, list[NotebookNode]]:
    """The cells under each heading, in order; what opens and what closes a notebook is one group each."""
    grouped: dict[str, list[NotebookNode]] = {}
    title = _OPENING
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (heading := _HEADING.search(cell.source)):
            title = _JOINED.get(heading[1], heading[1])
        grouped.setdefault(title, []).append(cell)
    return grouped


def _exercises_in(cells: Sequence[NotebookNode]) -> dict[str, int]:
    return stated.exercise_minutes("\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown"))


def _of_exercises(notebook: NotebookNode) -> Iterator[int]:
    for cell in markdown_cells(notebook):
        yield from map(int, _EXERCISE.findall(cell.source))
