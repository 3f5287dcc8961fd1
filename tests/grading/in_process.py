"""The worker's notebook in the process of a test, which gets its own `__main__` back afterwards."""

import builtins
import sys

from moe_course.grading.worker.notebook import Notebook


def run_cells(cells):
    """Run cells as a worker does: the namespace, and for each cell its first error or None."""
    before, ask = sys.modules["__main__"], builtins.input
    try:
        notebook = Notebook()
        errors = [notebook.run(cell) for cell in cells]
    finally:
        sys.modules["__main__"], builtins.input = before, ask
    return notebook.user_ns, errors
