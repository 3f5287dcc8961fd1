"""The two forms of a learner's file: a notebook, or a script with cells (`# %%`) for people who work in an IDE.

A work folder has one form, which `moe-course start` writes down. A script holds the same cells as the notebook in
jupytext's percent format; ids and metadata of cells stay out of it, and come back by the text of the cells.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from moe_course import files
from moe_course.lesson.home import STATE, read_json

if TYPE_CHECKING:
    from nbformat import NotebookNode

MADE = (
    "made.json"  # in .moe-course: the version of the course that last wrote the folder, and the folder's form
)
RELOAD = (
    "If the file is open, reload it before you go on (in Jupyter: File → Reload Notebook from Disk): "
    "saving the open tab would write the old text over the new."
)
_PERCENT = "py:percent"
_BARE = {"notebook_metadata_filter": "-all", "cell_metadata_filter": "-all"}


def uses_scripts(work: Path) -> bool:
    """Whether this work folder holds scripts in place of notebooks."""
    return bool(read_json(work / STATE / MADE).get("scripts"))


def file_of(notebook: str, work: Path, scripts: bool | None = None) -> Path:
    """The learner's file of a notebook, in the form of the work folder unless `scripts` says which."""
    scripts = uses_scripts(work) if scripts is None else scripts
    return work / notebook / f"{notebook}{'.py' if scripts else '.ipynb'}"


def read_notebook(path: Path) -> NotebookNode:
    """The notebook in a script, or in a notebook file of any 4.x format. Raises ValueError, naming the file."""
    import nbformat

    try:
        text = path.read_text(encoding="utf-8-sig")
        notebook = _from_script(text) if path.suffix == ".py" else nbformat.reads(text, as_version=4)
        _ = [(cell.cell_type, cell.source, cell.metadata) for cell in notebook.cells]
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; `moe-course start` makes it") from None
    except Exception as error:  # nbformat has no common type for all that can be wrong with a file
        what = "script with cells" if path.suffix == ".py" else "notebook"
        raise ValueError(f"{path}: not a readable {what} ({str(error)[:100]})") from None
    return notebook


def write_notebook(path: Path, notebook: NotebookNode) -> None:
    """Write a notebook in the form that the file's name says, in one step."""
    import nbformat

    text = _as_script(notebook) if path.suffix == ".py" else nbformat.writes(notebook)
    write(path, (text.rstrip("\n") + "\n").encode())


def write(path: Path, data: bytes) -> None:
    """Write in one step: a reader, or a crash, meets the old file or the new one, never half of either."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, data)


def copy(source: Path, target: Path) -> None:
    """Copy a file in one step."""
    write(target, source.read_bytes())


def unused(path: Path) -> Path:
    """`path`, or the first of path-2, path-3 … that does not exist."""
    names = (path.with_name(f"{path.stem}-{n}{path.suffix}") for n in range(2, 1000))
    return next(candidate for candidate in (path, *names) if not candidate.exists())


def _from_script(text: str) -> NotebookNode:
    import jupytext

    if not any(line.startswith("# %%") for line in text.splitlines()):
        raise ValueError("no line starts with # %%, which marks a cell")
    return jupytext.reads(text, fmt=_PERCENT)


def _as_script(notebook: NotebookNode) -> str:
    import jupytext
    from nbformat import NotebookNode

    bare = NotebookNode({**notebook, "metadata": NotebookNode(notebook.metadata, jupytext=_BARE)})
    return str(jupytext.writes(bare, fmt=_PERCENT))
