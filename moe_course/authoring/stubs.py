"""What a learner gets in place of an answer: nbgrader's usual line, or code that an exercise brings itself.

### BEGIN SOLUTION
weights_TK = ...            # the answer
### STUB
# weights_TK = ...          # what is released in its place, as comments
### END SOLUTION
"""

from __future__ import annotations

import re
from typing import Any

from nbformat import NotebookNode
from nbgrader.preprocessors import ClearSolutions

STUB = "### STUB"


class Stubs(ClearSolutions):
    """nbgrader's ClearSolutions, for cells that bring stubs of their own as well. nbgrader_config.py names it."""

    def preprocess_cell(
        self, cell: NotebookNode, resources: dict[str, Any], cell_index: int
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """Replace the answer of a cell by the cell's own stub, or else by the course's."""
        usual = self.code_stub  # type: ignore[has-type]  # a trait of nbgrader's, which has no types
        if own := split(cell.source)[1]:
            self.code_stub = {**usual, resources["language"]: "\n".join(own)}
        try:
            return super().preprocess_cell(cell, resources, cell_index)
        finally:
            self.code_stub = usual


def split(source: str) -> tuple[list[str], list[str]]:
    """The lines of the answer in a solution cell, and those of the cell's own stub as they are released.

    Both as far as the cell has them. The stub's lines start where BEGIN SOLUTION does.
    """
    answer: list[str] = []
    stub: list[str] = []
    place, indent = None, ""
    for line in source.splitlines():
        if "BEGIN SOLUTION" in line:
            place, indent = answer, line[: len(line) - len(line.lstrip())]
        elif line.strip() == STUB and place is not None:
            place = stub
        elif "END SOLUTION" in line:
            place = None
        elif place is stub:
            stub.append(re.sub(r"^# ?", "", line.removeprefix(indent)))
        elif place is not None:
            place.append(line)
    return answer, stub
