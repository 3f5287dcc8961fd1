"""`moe-course course DIR`: a course of one's own, which takes notebooks from this one and leaves it untouched."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nbformat

from moe_course import files
from moe_course.grading.exercises import custom_course

CONFIG = "nbgrader_config.py"
TEMPLATE = """\
# Your course. After a change: moe-course course {here}

# Taken from the course, with the points below.
notebooks = [{notebooks}]

# What an exercise counts in your gradebook, if not what its rubric says. With 0 it stays in the notebook as practice.
[points]
# top_k_gate = 20
# noisy_logits = 0

# Exercises of your own; their notebooks are in solutions/, their graders in graders/.
# [[exercise]]
# number = "12.1"
# notebook = "12_my_topic"
# parts = ["my_exercise"]
"""


def update(checkout: Path, target: Path) -> list[str]:
    """Make the course folder `target`, or bring its notebooks up to date; returns what was done.

    Nothing of the instructor's is lost: a notebook they edited is kept in backups/. Raises ValueError where
    course.toml names what does not exist, and where `target` is a folder of something else.
    """
    said = _skeleton(checkout, target)
    settings = custom_course.read(target / custom_course.FILE)
    for notebook in settings["notebooks"]:
        source = checkout / "solutions" / str(notebook) / f"{notebook}.ipynb"
        if not source.is_file():
            raise ValueError(f"{target / custom_course.FILE}: the course has no notebook {notebook!r}")
        text = _with_points(source, settings["points"])
        said += _put(text, target / "solutions" / notebook / source.name, target / "backups")
    return said


def _skeleton(checkout: Path, target: Path) -> list[str]:
    """What a new course folder starts with."""
    if (target / custom_course.FILE).is_file():
        return []
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(
            f"{target} is not empty and has no {custom_course.FILE}: give a new folder, or that of your course"
        )
    for name in ("solutions", *custom_course.PACKAGES.values()):
        (target / name).mkdir(parents=True, exist_ok=True)
    notebooks = sorted(path.parent.name for path in (checkout / "solutions").glob("*/*.ipynb"))
    listed = "".join(f'\n    "{name}",' for name in notebooks) + "\n"
    config = (checkout / CONFIG).read_text(encoding="utf-8")
    use = f'\nimport os\n\nos.environ["{custom_course.VARIABLE}"] = os.path.dirname(os.path.abspath(__file__))\n\n'
    head, separator, rest = config.partition("from pathlib import Path\n")
    files.write(target / CONFIG, head.rstrip() + "\n" + use + separator + rest)
    files.write(
        target / custom_course.FILE, TEMPLATE.format(here=target, notebooks=listed)
    )  # last: now it is a course
    return [f"{target}: a new course; {custom_course.FILE} says what it takes"]


def _with_points(source: Path, points: dict[str, Any]) -> str:
    """A notebook of the course whose grade cells carry the instructor's points; practice has no grade cell."""
    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        marks = cell.metadata.get("nbgrader", {})
        worth = points.get(marks.get("grade_id", "").removeprefix("check_"))
        if marks.get("grade") and worth is not None:
            marks["points"] = worth
            if worth == 0:
                del cell.metadata["nbgrader"]
    return nbformat.writes(notebook) + "\n"


def _put(text: str, path: Path, backups: Path) -> list[str]:
    old = path.read_text(encoding="utf-8") if path.is_file() else None
    if old == text:
        return []
    said = []
    if old is not None:
        backups.mkdir(exist_ok=True)
        kept = backups / f"{path.stem}-{len(list(backups.glob(f'{path.stem}-*'))) + 1}.ipynb"
        shutil.copy(path, kept)
        said = [f"{kept}: {path.name} as it was"]
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, text)
    return [*said, f"{path}: {'added' if old is None else 'updated'}"]
