"""Notebooks that have been run, each once: the results are kept until the notebook or what it runs changes.

The tests that run notebooks and the web site take them from here, so that neither waits for what the other has done.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from filelock import FileLock

import moe_course
from moe_course import files
from moe_course.grading.exercises.locate import graders_dir

SECONDS = 300  # for one cell, in full as well as small
NO_SOURCE = {"__pycache__", "_course", "authoring"}  # parts of the package that no notebook runs


def executed(notebook: Path, store: Path, *, full: bool = False) -> nbformat.NotebookNode:
    """The notebook with its outputs, run top to bottom in an empty folder unless `store` holds the result already.

    A second process that asks for the same notebook waits for the first. Trainings are at their small settings unless
    `full`, and a figure that cannot be read is an error. Raises ValueError where a cell fails, and where the notebook
    leaves files behind.
    """
    store.mkdir(parents=True, exist_ok=True)
    place = store / f"{notebook.parent.parent.name}-{notebook.stem}-{'full' if full else 'small'}.ipynb"
    with FileLock(place.with_suffix(".lock")):
        key = _key(notebook)
        if place.is_file():
            kept = nbformat.read(place, as_version=4)
            if kept.metadata.get("executed") == key:
                return kept
        fresh = _run(notebook, full)
        fresh.metadata["executed"] = key
        files.write(place, nbformat.writes(fresh))
        return fresh


def _run(notebook: Path, full: bool) -> nbformat.NotebookNode:
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    env = {**os.environ, "MOE_COURSE_LEGIBLE": "1", **({} if full else {"MOE_COURSE_SMALL": "1"})}
    content = nbformat.read(notebook, as_version=4)
    with tempfile.TemporaryDirectory(prefix=f"{notebook.stem}-") as folder:
        client = NotebookClient(content, timeout=SECONDS, resources={"metadata": {"path": folder}})
        try:
            client.execute(env=env)
        except CellExecutionError as error:
            raise ValueError(f"{notebook} cannot be run: {error}") from error
        if left := sorted(os.listdir(folder)):
            raise ValueError(f"{notebook} leaves files behind: {', '.join(left)}")
    return content


def _key(notebook: Path) -> str:
    """A hash of the notebook and of all that can change what it shows: the package, the graders, the environment."""
    found = hashlib.sha256(f"{sys.version} {sys.prefix}".encode())
    for path in (notebook, *_sources()):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def _sources() -> Iterator[Path]:
    package = Path(moe_course.__file__).parent
    for folder in (package, graders_dir()):
        found = (path for path in folder.rglob("*") if path.is_file())
        yield from sorted(path for path in found if not NO_SOURCE & {*path.relative_to(folder).parts})
    lock = package.parent / "requirements.lock"
    if lock.is_file():
        yield lock
