"""From an executed notebook to a page: before each folded answer stands the gap that a learner sees in its place."""

from __future__ import annotations

import re

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from moe_course.grading.submission.attempts import cell_source

WIDGET = "application/vnd.jupyter.widget-view+json"
STILL = (
    "<p><em>In the notebook this figure has controls. Here it stands still, at their first values.</em></p>"
)
STUB = re.compile(r"^ *### STUB\n.*?(?=^ *### END SOLUTION)", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"^ *### (?:BEGIN|END) SOLUTION *\n?", re.MULTILINE)


def page(executed: NotebookNode, released: NotebookNode, *, full: bool = False) -> NotebookNode:
    """The page of a notebook: `executed` has answers and outputs, `released` what learners get in their place."""
    gaps = {cell.id: cell for cell in released.cells}
    title, *rest = executed.cells
    cells = [title, new_markdown_cell(_about(full), id="about-this-page")]
    for cell in rest:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            cells += [gaps[cell.id], _folded(cell)]
        else:
            cells.append(_still(cell) if cell.cell_type == "code" else _below(cell))
    kept = {
        name: value for name, value in executed.metadata.items() if name != "widgets"
    }  # no kernel, no controls
    return NotebookNode({**executed, "cells": cells, "metadata": NotebookNode(kept)})


def _about(full: bool) -> str:
    """What a reader must know of the page, as a note below the title."""
    sizes = (
        ""
        if full
        else " Trainings are short here, so a number may differ from what a text says of full runs."
    )
    return (
        ":::{note}\nThis is the notebook with the course's answers, run when the site was built."
        f"{sizes} To work on it yourself, type `make lab` in the repository.\n:::"
    )


def _folded(cell: NotebookNode) -> NotebookNode:
    """The answer, shown when a reader asks for it."""
    prompts = {"code_prompt_show": "Show the answer", "code_prompt_hide": "Hide the answer"}
    metadata = NotebookNode({"tags": ["hide-input"], "mystnb": prompts})
    source = MARK.sub("", STUB.sub("", cell_source(cell))).rstrip("\n")
    return NotebookNode({**cell, "source": source, "metadata": metadata, "id": f"{cell.id}-answer"})


def _below(cell: NotebookNode) -> NotebookNode:
    """The text with its heading below the title: a page has one title."""
    return NotebookNode({**cell, "source": re.sub(r"\A# ", "## ", cell_source(cell))})


def _still(cell: NotebookNode) -> NotebookNode:
    """The cell with its figures as they are without a kernel: controls become a sentence that says so."""
    outputs = []
    for output in cell.outputs:
        data = dict(output.get("data", {}))
        if data.pop(WIDGET, None):
            data["text/html"] = data.get("text/html", "") + STILL
            output = NotebookNode({**output, "data": data})
        outputs.append(output)
    return NotebookNode({**cell, "outputs": outputs})
