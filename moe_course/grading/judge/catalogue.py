"""The catalogue of plausible wrong answers and of right answers in other styles, one file an exercise.

`misconceptions/NN_topic/<exercise>.py`: each public function or class is one misconception, named after it. Its
docstring is the question that would help, and `@caught_by("criterion")` names the criterion that must reject it.
`@caught_by("criterion", form=True)` says that only the form of the answer is at fault (a dtype, an input edited in
place, a type, an unchecked argument); without it the idea itself is wrong.
`alternatives/NN_topic/<exercise>.py`: each public function or class is a correct solution in another style.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from moe_course.grading.exercises.registry import EXERCISES, exercises_of
from moe_course.grading.judge.diagnosis import behaviour
from moe_course.grading.judge.subject import LiveSubject

D = TypeVar("D", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """One definition of the catalogue: `written` stands in for the exercise, `source` is its whole file."""

    exercise: str
    name: str
    written: Any
    question: str
    caught_by: str
    form: bool
    file: Path

    @property
    def cell(self) -> str:
        """Source that defines the exercise the way this entry does."""
        return f"{self.file.read_text(encoding='utf-8')}\n\n{self.exercise} = {self.name}\n"


def caught_by(criterion: str, form: bool = False) -> Callable[[D], D]:
    """Name the criterion that must reject a misconception, and say whether only the answer's form is at fault."""

    def mark(written: D) -> D:
        written.caught_by = criterion  # type: ignore[attr-defined]
        written.form = form  # type: ignore[attr-defined]
        return written

    return mark


def entries(folder: Path, exercise: str) -> list[Entry]:
    """The entries of one exercise in `folder` (tests/misconceptions or tests/alternatives), in file order."""
    file = folder / EXERCISES[exercise].notebook / f"{exercise}.py"
    if not file.is_file():
        return []
    spec = importlib.util.spec_from_file_location(f"catalogue_{folder.name}_{exercise}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = []
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            written = getattr(module, node.name)
            question = " ".join((ast.get_docstring(node) or "").split())
            criterion, form = getattr(written, "caught_by", ""), getattr(written, "form", False)
            found.append(Entry(exercise, node.name, written, question, criterion, form, file))
    return found


def record(folder: Path, notebook: str) -> str:
    """The recorded behaviour of the library and of every misconception of a notebook, as the text of its JSON file.

    One line a misconception, so that a change shows as the lines that changed.
    """
    exercises = []
    for exercise in exercises_of(notebook):
        home = importlib.import_module(exercise.library)
        library = {part: getattr(home, part) for part in exercise.parts}
        lines = [f'  "": {_json({"replies": behaviour(exercise.name, LiveSubject(library))})}']
        for entry in entries(folder, exercise.name):
            replies = behaviour(entry.exercise, LiveSubject({entry.exercise: entry.written}))
            lines.append(f"  {_json(entry.name)}: {_json({'question': entry.question, 'replies': replies})}")
        exercises.append(f" {_json(exercise.name)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(exercises) + "\n}\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
