"""Where the graders and the released notebooks are: in a checkout, or inside an installed wheel."""

from __future__ import annotations

import sys
from pathlib import Path

from moe_course.grading import own

_PACKAGE = Path(__file__).resolve().parent.parent


def _find(in_wheel: str, in_checkout: str) -> Path:
    shipped = _PACKAGE / "_course" / in_wheel
    path = shipped if shipped.is_dir() else _PACKAGE.parent / in_checkout
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


def make_graders_importable() -> None:
    """Put the folder that holds the package `graders` on the import path, once, and an own course's beside it."""
    folder = str(graders_dir().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    own.make_graders_importable()
