"""`moe-course colab DIR`: copies of the notebooks for Google Colab, whose first cell installs the course."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from moe_course import files

INSTALL = """\
# Colab starts without the course. This cell installs it, once a session.
import importlib.util

if importlib.util.find_spec("moe_course") is None:
    %pip install --quiet --no-deps "{package}"
"""
"""Without dependencies: Colab has what a notebook needs, and its own parts break if IPython is another version."""


def write(notebooks: Path, target: Path, repository: str | None) -> str:
    """Write a copy of each released notebook into the new folder `target`; returns what to do next.

    repository: where pip finds the course: the URL of a repository, or a wheel; by default what pyproject.toml calls
    Repository under project.urls. Raises ValueError where there is neither, or if `target` is not empty.
    """
    import nbformat
    from nbformat.v4 import new_code_cell

    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target} is not empty: the copies are written into a new folder")
    source = INSTALL.format(package=package(repository or _published()))
    for released in sorted(notebooks.glob("*/*.ipynb")):
        notebook = nbformat.read(released, as_version=4)
        notebook.cells.insert(0, new_code_cell(source.strip(), id="colab"))
        copy = target / released.parent.name / released.name
        copy.parent.mkdir(parents=True)
        files.write(copy, nbformat.writes(notebook) + "\n")
    return f"{target} is ready: put it into a public repository, and open its notebooks in Colab from there."


def package(repository: str) -> str:
    """What pip is to install. Raises ValueError for text that cannot stand in the cell."""
    if not re.fullmatch(r"[^\s\"'\\{}$]+", repository):
        raise ValueError(f"{repository!r} is neither the URL of a repository nor the path of a wheel")
    is_page = repository.startswith(("http://", "https://")) and not repository.endswith(
        (".whl", ".gz", ".zip")
    )
    return f"git+{repository}" if is_page else repository


def _published() -> str:
    """The URL of the repository that the package names. Raises ValueError where it names none."""
    for entry in metadata.metadata("moe-course").get_all("Project-URL") or ():
        name, _, url = entry.partition(", ")
        if name.lower() == "repository":
            return url
    raise ValueError(
        "pyproject.toml names no Repository under project.urls: say with --repository where pip finds the course"
    )
