"""A course of an instructor's own: their exercises, hidden tests and points, without a change to this repository.

A course folder, made and kept up to date by `moe-course course DIR`, looks like the repository:

    course.toml                  which notebooks are taken, what exercises are worth, exercises of one's own
    solutions/, notebooks/       nbgrader's source and release
    graders/test_NN_topic.py     graders of exercises of one's own
    hidden/test_NN_topic.py      hidden criteria, in the place of the course's

It is the folder named in the environment variable MOE_COURSE_OWN, which its nbgrader_config.py sets, or else `own/`
beside the package, where a student bundle has it.
"""

from __future__ import annotations

import functools
import os
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import moe_course

VARIABLE = "MOE_COURSE_OWN"
FILE = "course.toml"
PACKAGES = {"own_graders": "graders", "own_hidden": "hidden"}
_KNOWN = {"notebooks": list, "points": dict, "exercise": list}
_PARTS = {"number": str, "notebook": str, "parts": list}


def folder() -> Path | None:
    """The course folder in use, if there is one. Raises ValueError where the variable names none."""
    if named := os.environ.get(VARIABLE):
        if not (Path(named) / FILE).is_file():
            raise ValueError(f"{VARIABLE}={named}: there is no {FILE} in that folder")
        return Path(named).resolve()
    beside = Path(moe_course.__file__).resolve().parents[1] / "own"
    return beside if (beside / FILE).is_file() else None


@functools.cache
def settings() -> dict[str, Any]:
    """What course.toml says: notebooks, points and exercise. Raises ValueError that names what is wrong in it."""
    place = folder()
    return read(place / FILE) if place else {"notebooks": [], "points": {}, "exercise": []}


def read(path: Path) -> dict[str, Any]:
    """A course.toml. Raises ValueError for what is no TOML, unknown, of the wrong type or negative."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
    for name, value in found.items():
        if not isinstance(value, _KNOWN.get(name, ())):
            raise ValueError(f"{path}: {name} = {value!r}; it may hold {', '.join(_KNOWN)}")
    for name, worth in found.get("points", {}).items():
        if isinstance(worth, bool) or not isinstance(worth, int | float) or not 0 <= worth < 1e6:
            raise ValueError(f"{path}: {name} = {worth!r} are no points")
    for exercise in found.get("exercise", []):
        for name, kind in _PARTS.items():
            if not isinstance(exercise.get(name), kind) or not exercise[name]:
                raise ValueError(f"{path}: an exercise needs {', '.join(_PARTS)}, and this one is {exercise}")
    return {name: found.get(name, kind()) for name, kind in _KNOWN.items()}


def worth(exercise: str, rubric_points: float) -> float:
    """What an exercise counts in the gradebook: the instructor's points, or those of its rubric."""
    return float(settings()["points"].get(exercise, rubric_points))


def make_graders_importable() -> None:
    """Give the course folder's graders and hidden criteria a package each: own_graders, own_hidden."""
    place = folder()
    for name, inside in PACKAGES.items() if place else ():
        if name not in sys.modules:
            package = ModuleType(name)
            package.__path__ = [str(place / inside)]  # type: ignore[operator]
            sys.modules[name] = package
