"""`moe-course bundle DIR`: everything a learner needs, and nothing that tells an answer.

Out stay the solutions, the hidden tests, and the catalogue of wrong and right answers; mistakes are still named, from
the recorded behaviour of the catalogue. In stay the library and the public oracles, openly: they answer too, in other
words. What is written is searched for what must not be there before anybody gets it.
"""

from __future__ import annotations

import ast
import gzip
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from moe_course.grading.exercises import custom_course
from moe_course.grading.submission.attempts import cell_source

FILES = ("LICENSE", "Makefile", "environment.yml", "pyproject.toml", "requirements.lock")
FOLDERS = (
    "moe_course",
    "notebooks",
    "tests/graders",
    "tests/lesson",
    "tests/moe",
    "tests/systems",
    "tests/viz",
)
TESTS = (
    "tests/conftest.py",
    "tests/synthetic.py",
    "tests/test_config.py",
    "tests/test_shapes.py",
    "tests/grading/test_library.py",
    "tests/e2e/test_notebooks.py",
)
README = "docs/learners.md"
LEFT_OUT = shutil.ignore_patterns("__pycache__", "_course", "hidden", ".ipynb_checkpoints", "test_mine.py")
SECRET = ("tests/graders/hidden", "tests/alternatives", "tests/misconceptions")
SHORTEST = 25  # characters of a line that could give something away


def write(checkout: Path, target: Path) -> str:
    """Write the bundle into the new folder `target`; returns what to do next.

    Raises ValueError where `target` holds something already or lies in what is copied, where a course of one's own
    has released nothing yet, or where an answer would have been in the bundle: then nothing is left of it.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target} is not empty: a bundle is written into a new folder")
    mine = custom_course.folder()
    copied = [checkout / folder for folder in FOLDERS]
    copied += [mine / folder for folder in ("notebooks", "graders")] if mine else []
    if inside := [str(folder) for folder in copied if target.resolve().is_relative_to(folder.resolve())]:
        raise ValueError(
            f"{target} lies in {inside[0]}, which is copied into the bundle: choose another folder"
        )
    if mine and not (mine / "notebooks").is_dir():
        raise ValueError(f"{mine} has no notebooks/ yet: run `nbgrader generate_assignment` there first")
    try:
        _copy(checkout, mine, target)
        if found := list(leaks(checkout, target)):
            raise ValueError("the bundle would tell answers:\n" + "\n".join(found))
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return f"{target} is ready: hand out the folder, or a zip of it. Learners start with `make lab`."


def _copy(checkout: Path, mine: Path | None, target: Path) -> None:
    for folder in FOLDERS:
        shutil.copytree(checkout / folder, target / folder, ignore=LEFT_OUT)
    for file in (*FILES, *TESTS):
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(checkout / file, target / file)
    shutil.copy(checkout / README, target / "README.md")
    if mine:
        shutil.copytree(mine / "notebooks", target / "notebooks", ignore=LEFT_OUT, dirs_exist_ok=True)
        shutil.copytree(mine / "graders", target / "own" / "graders", ignore=LEFT_OUT)
        shutil.copy(mine / custom_course.FILE, target / "own" / custom_course.FILE)
    for path in (target / "tests" / "graders" / "recorded").glob("*.json"):
        path.with_suffix(".json.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        path.unlink()  # a list of mistakes that nobody reads by chance


def leaks(checkout: Path, bundle: Path) -> Iterator[str]:
    """Every place where the bundle tells an answer: a line of a solution, a definition of what stays out."""
    texts = {path: _lines(path) for path in sorted(bundle.rglob("*")) if path.is_file()}
    mine = custom_course.folder()
    answers = _answers([checkout, *([mine] if mine else [])])
    secrets = list(_secrets(checkout))
    for path, lines in texts.items():
        place = path.relative_to(bundle)
        if place.parts[0] != "moe_course" and "oracles" not in place.name:
            yield from (f"{place}: {line}" for line in sorted(answers & set(lines)))
        whole = "\n".join(lines)
        for name, secret in secrets:
            if secret in whole:
                yield f"{place}: {name}"


def _lines(path: Path) -> list[str]:
    """The lines of a file without indentation; of a notebook, of its cells."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return []
    if path.suffix == ".ipynb":
        text = "\n".join(cell_source(cell) for cell in json.loads(text)["cells"])
    return _stripped(text)


def _stripped(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _answers(courses: Iterable[Path]) -> set[str]:
    """The telling lines of the solutions: between the marks and nowhere else, long enough, and more than names."""
    inside: set[str] = set()
    outside: set[str] = set()
    for path in (path for course in courses for path in (course / "solutions").rglob("*.ipynb")):
        place = outside
        for line in _lines(path):
            if line.startswith("### "):
                place = inside if line == "### BEGIN SOLUTION" else outside
            place.add(line)
    said = ("raise ValueError", 'f"', "import ")
    telling = (line for line in inside - outside if len(line) >= SHORTEST and not line.startswith(said))
    return {line for line in telling if set(line) & set("(*/@+")}


def _secrets(checkout: Path) -> Iterator[tuple[str, str]]:
    """Each definition of the hidden tests and of the catalogue: where it stands, and its body's lines."""
    for folder in SECRET:
        for path in sorted((checkout / folder).rglob("*.py")):
            source = path.read_text(encoding="utf-8")
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.FunctionDef):
                    body = [ast.get_source_segment(source, part) or "" for part in node.body]
                    lines = _stripped("\n".join(body))
                    if sum(map(len, lines)) >= 2 * SHORTEST:
                        yield f"{path.relative_to(checkout)}: {node.name}", "\n".join(lines)
