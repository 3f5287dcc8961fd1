"""Where the graders and the released notebooks are: in a checkout, or inside an installed wheel."""

from __future__ import annotations

import sys
from pathlib import Path

import moe_course
from moe_course.grading.exercises import custom_course

PACKAGE = Path(moe_course.__file__).resolve().parent


def _find(in_wheel: str, in_checkout: str) -> Path:
    shipped = PACKAGE / "_course" / in_wheel
    path = shipped if shipped.is_dir() else PACKAGE.parent / in_checkout
    if not path.is_dir():
        raise FileNotFoundError(
            f"this installation of moe_course lacks its {in_wheel}: neither {shipped} nor {path} exists"
        )
    return path


def graders_dir() -> Path:
    """The folder of the package `graders`: graders, their probes and oracles."""
    return _find("graders", "tests/graders")


def notebooks_dir() -> Path:
    """The folder of the released notebooks, one sub-folder each."""
    return _find("notebooks", "notebooks")


def changelog() -> Path:
    """The file that says what each version of the course brought."""
    shipped = PACKAGE / "_course" / "CHANGELOG.md"
    return shipped if shipped.is_file() else PACKAGE.parent / "CHANGELOG.md"


def released(notebook: str) -> Path:
    """The file of the notebook as learners got it: an instructor's own release where there is one."""
    place = custom_course.folder()
    inside = Path(notebook, f"{notebook}.ipynb")
    if place and (place / "notebooks" / inside).is_file():
        return place / "notebooks" / inside
    return notebooks_dir() / inside


def make_graders_importable() -> None:
    """Put the folder that holds the package `graders` on the import path, once, and an own course's beside it."""
    folder = str(graders_dir().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    custom_course.make_graders_importable()
