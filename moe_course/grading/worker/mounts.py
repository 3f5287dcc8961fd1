"""What a worker sees of the file system: the Python environment, the course without its answers, and the probes.

All of it is read-only, and of the course every file is named one by one: graders, solutions, the checkout, the
gradebook and other submissions are not hidden, they are not there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from moe_course.grading.exercises.locate import PACKAGE, graders_dir, notebooks_dir

COURSE = "/course"  # where the sandbox has the packages moe_course and graders
SYSTEM = ("/usr/bin", "/usr/lib", "/usr/lib64", "/bin", "/lib", "/lib64", "/nix/store", "/etc/ld.so.cache")
KEPT_OUT = tuple(  # what judges: a worker has no use for it
    map(
        Path,
        (
            "authoring",
            "command",
            "grading/cohort",
            "grading/exercises/expect.py",
            "grading/exercises/rubric.py",
            "grading/judge",
        ),
    )
)
SHOWN = {".py", ".json", ".css", ".svg", ".html"}  # so no bytecode, no editor's backup copy


def visible(masked: Iterable[str]) -> list[str]:
    """The options that show a worker what it needs: system libraries, Python, the course; all read-only."""
    shown = _outermost([*map(Path, SYSTEM), *_python()])
    secret = [
        path
        for path in (*_secrets(), *_packages(masked))
        if any(path.is_relative_to(parent) for parent in shown)
    ]
    steps: list[tuple[Path, list[str]]] = []
    for path in sorted({*shown, *secret}, key=lambda path: len(path.parts)):
        if path in secret:
            steps.append((path, ["--tmpfs", str(path)]))
        elif path.is_symlink():
            steps.append((path, ["--symlink", os.readlink(path), str(path)]))
        else:
            steps.append((path, ["--ro-bind", str(path), str(path)]))
    steps += [(place, ["--ro-bind", str(path), str(place)]) for path, place in course_files(masked)]
    words, made = [], {Path("/"), Path("/tmp")}
    for path, step in steps:
        for folder in reversed(path.parents):  # made for all to enter: bwrap would give them to root alone
            if folder not in made:
                made.add(folder)
                words += ["--perms", "0755", "--dir", str(folder)]
        words += step
    return words + [word for path in secret for word in ("--remount-ro", str(path))]


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """The paths that exist, without those inside another."""
    kept: list[Path] = []
    for path in sorted(set(paths), key=lambda path: len(path.parts)):
        if os.path.lexists(path) and not any(path.is_relative_to(outer) for outer in kept):
            kept.append(path)
    return kept


def _python() -> Iterator[Path]:
    """The interpreter and its packages: the virtual environment's, and the installation's behind it."""
    roots = {Path(root) for root in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)}
    program = Path(sys.executable)
    while program.is_symlink():  # each step may lie in another folder
        roots.add(program.parent.parent)
        program = program.parent / os.readlink(program)
    for root in {*roots, *(root.resolve() for root in roots), Path(os.path.realpath(program)).parent.parent}:
        yield from (root / name for name in ("bin", "lib", "lib64", "pyvenv.cfg"))


def _secrets() -> list[Path]:
    """What must not be seen even where it lies inside a folder that is shown."""
    inside = (PACKAGE / "_course").is_dir()
    return [PACKAGE] if inside else [PACKAGE.parent, graders_dir(), notebooks_dir()]


def _packages(masked: Iterable[str]) -> list[Path]:
    """The folders of masked packages that are not the course's own; there is one where the package is installed."""
    specs = [PathFinder.find_spec(name) for name in masked if "." not in name]
    return [Path(folder) for spec in specs if spec for folder in spec.submodule_search_locations or ()]


def course_files(masked: Iterable[str] = ()) -> list[tuple[Path, Path]]:
    """The course's own files that a worker sees, each with its place in the sandbox."""
    answers = [Path(*module.split(".")) for module in masked]
    answers += [Path(PACKAGE.name, place).with_suffix("") for place in KEPT_OUT]
    graders = graders_dir()
    files = [(path, path.relative_to(PACKAGE.parent)) for path in _sources(PACKAGE)]
    files = [
        (path, place)
        for path, place in files
        if not any(place.with_suffix("") == answer or answer in place.parents for answer in answers)
    ]
    probes = [graders / "__init__.py", *_sources(graders / "probes")]
    files += [(path, Path("graders") / path.relative_to(graders)) for path in probes]
    return [(path, COURSE / place) for path, place in files]


def _sources(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") or part in ("_course", "__pycache__") for part in parts)
        if path.suffix in SHOWN and not hidden and path.is_file() and not path.is_symlink():
            yield path
