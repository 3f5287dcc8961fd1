"""`moe-course bundle DIR`: everything that a learner needs, without the solutions.

The bundle has no solutions, no hidden tests, and no catalogue of wrong and right answers; mistakes are still named,
from the recorded behaviour of the catalogue. It has the library and the public oracles, which answer exercises as
well, in other words; the README says so. Before anybody gets the bundle it is searched for text that must not be in
it.
"""

from __future__ import annotations

import ast
import gzip
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from moe_course.grading.exercises import custom_course
from moe_course.grading.submission.attempts import cell_source

FILES = (
    ".binder/postBuild",
    ".binder/requirements.txt",
    ".binder/runtime.txt",
    ".devcontainer/devcontainer.json",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "containers/Containerfile",
    "containers/nbgrader_config.py",
    "docs/cheat_sheet.md",
    "docs/conventions.md",
    "docs/first_hour.md",
    "docs/glossary.md",
    "docs/own_model.md",
    "environment.yml",
    "pyproject.toml",
    "requirements.lock",
)
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
CONTRIBUTORS = (
    "test-all",
    "check",
    "format",
    "site",
    "graders-report",
    "results",
    "images",
    "lock",
)  # rules of the Makefile
README = "docs/learners.md"
LEFT_OUT = shutil.ignore_patterns(
    *("__pycache__", "_course", "hidden", ".ipynb_checkpoints"),
    *("test_mine.py", "test_forms.py"),  # they need files that a learner has not
)
SECRET = ("tests/graders/hidden", "tests/alternatives", "tests/misconceptions")
SHORTEST = 25  # characters of a line that could give something away


def write(checkout: Path, target: Path) -> str:
    """Write the bundle into the new folder `target`; returns what to do next.

    Raises ValueError if `target` is not empty or lies inside a folder that is copied, if an instructor's own course
    has released nothing yet, or if an answer would be in the bundle; then the bundle is removed.
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
    makefile = target / "Makefile"
    makefile.write_text(for_learners(makefile.read_text(encoding="utf-8")), encoding="utf-8")
    if mine:
        shutil.copytree(mine / "notebooks", target / "notebooks", ignore=LEFT_OUT, dirs_exist_ok=True)
        shutil.copytree(mine / "graders", target / "own" / "graders", ignore=LEFT_OUT)
        shutil.copy(mine / custom_course.FILE, target / "own" / custom_course.FILE)
    for path in (target / "tests" / "graders" / "recorded").glob("*.json"):
        path.with_suffix(".json.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        path.unlink()  # compressed, so that nobody reads the list of mistakes by chance


def for_learners(makefile: str) -> str:
    """The Makefile without what contributors alone need: the rules and the comments above them.

    The bundle has no tests in a browser, so the help of `make test` must not speak of one.
    """
    rules = re.compile(rf"^(?:{'|'.join(CONTRIBUTORS)}):", re.MULTILINE)
    kept = "\n\n".join(part for part in makefile.split("\n\n") if not rules.search(part))
    kept = re.sub(r"^\.PHONY: help .*$", ".PHONY: help setup lab test", kept, flags=re.MULTILINE)
    kept = kept.replace(", the browser", "")
    return kept.rstrip("\n") + "\n"


def leaks(checkout: Path, bundle: Path) -> Iterator[str]:
    """Every place where the bundle gives an answer away: a line of a solution, or a definition that must stay out."""
    texts = {path: _lines(path) for path in sorted(bundle.rglob("*")) if path.is_file()}
    mine = custom_course.folder()
    answers = _answers([checkout, *([mine] if mine else [])])
    secrets = list(_secrets(checkout))
    for path, lines in texts.items():
        place = path.relative_to(bundle)
        if place.parts[0] != "moe_course" and "oracles" not in place.name:
            yield from (f"{place}: {line}" for line in sorted(answers & set(lines)))
        whole = "\n".join(["", *lines, ""])
        for name, secret in secrets:
            if f"\n{secret}\n" in whole:
                yield f"{place}: {name}"


def _lines(path: Path) -> list[str]:
    """The lines of a file, or of the cells of a notebook, without indentation."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return []
    if path.suffix == ".ipynb":
        text = "\n".join(cell_source(cell) for cell in json.loads(text)["cells"])
    return _stripped(text)


def _stripped(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


EVERYDAY = {"probs_TE = logits_TE.softmax(dim=-1)"}
"""Lines of answers that also stand in tests of the library, and tell nothing."""


def _answers(courses: Iterable[Path]) -> set[str]:
    """The lines that would give a solution away: between its marks and nowhere else, long, and more than names."""
    inside: set[str] = set()
    outside: set[str] = set()
    for path in (path for course in courses for path in (course / "solutions").rglob("*.ipynb")):
        place = outside
        for line in _lines(path):
            if line.startswith("### "):
                place = inside if line == "### BEGIN SOLUTION" else outside
            place.add(line.removeprefix("# ").strip())  # a stub of an exercise's own stands in comments
    said = ("raise ValueError", 'f"', "import ")
    telling = (line for line in inside - outside if len(line) >= SHORTEST and not line.startswith(said))
    return {line for line in telling if set(line) & set("(*/@+")} - EVERYDAY


def _secrets(checkout: Path) -> Iterator[tuple[str, str]]:
    """Each definition of the hidden tests and of the catalogue: where it is, and the lines of its body.

    Helpers of the catalogue are right code, which the library may share, and so may be a method of a wrong class.
    """
    for folder in SECRET:
        for path in sorted((checkout / folder).rglob("*.py")):
            source = path.read_text(encoding="utf-8")
            tree = ast.parse(source)
            hidden = "hidden" in path.parts
            for node in ast.walk(tree) if hidden else tree.body:
                wanted = ast.FunctionDef if hidden else (ast.FunctionDef, ast.ClassDef)
                if isinstance(node, wanted) and not node.name.startswith("_"):
                    body = [ast.get_source_segment(source, part) or "" for part in node.body]
                    lines = _stripped("\n".join(body))
                    if sum(map(len, lines)) >= 2 * SHORTEST:
                        yield f"{path.relative_to(checkout)}: {node.name}", "\n".join(lines)
