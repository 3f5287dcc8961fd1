"""The catalogue of plausible wrong answers and of right answers in other styles, one file an exercise.

`misconceptions/NN_topic/<exercise>.py`: each public function or class is one misconception, named after it. Its
docstring is the question that would help, and `@caught_by("criterion")` names the criterion that must reject it.
`@caught_by("criterion", form=True)` says that only the form of the answer is at fault (a dtype, an input edited in
place, a type, an unchecked argument); without it the idea itself is wrong. `<mistake>__<how>` is the same mistake
written so that it gives other numbers; a learner reads the name up to the two underscores.
`alternatives/NN_topic/<exercise>.py`: each public function or class is a correct solution in another style.
For an exercise in several parts each entry is a class with the parts as its static methods.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from moe_course.grading.exercises.registry import EXERCISES, Exercise, exercises_of
from moe_course.grading.exercises.rubric import grader_of, rubric
from moe_course.grading.judge.replies import behaviour, same
from moe_course.grading.judge.subject import LiveSubject, Subject
from moe_course.grading.judge.verdict import judged, seeded

D = TypeVar("D", bound=Callable[..., Any])
SEEDS = (1,)  # with which the criteria that a misconception fails are found out


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
    def namespace(self) -> dict[str, Any]:
        """What a learner's namespace would hold; of an exercise in several parts, a class has them as its methods."""
        parts = EXERCISES[self.exercise].parts
        return (
            {self.exercise: self.written} if len(parts) == 1 else {p: getattr(self.written, p) for p in parts}
        )

    @property
    def cell(self) -> str:
        """Source that defines the exercise the way this entry does."""
        parts = EXERCISES[self.exercise].parts
        names = [self.name] if len(parts) == 1 else [f"{self.name}.{part}" for part in parts]
        defined = "\n".join(f"{part} = {name}" for part, name in zip(parts, names, strict=True))
        return f"{self.file.read_text(encoding='utf-8')}\n\n{defined}\n"


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


def record(folder: Path, notebook: str, known: str = "{}", with_criteria: bool = True) -> str:
    """The recorded behaviour of the library and of every misconception of a notebook, as the text of its JSON file.

    With each misconception stand its question, the criteria that it fails (the public ones) and its replies to the
    probes. One line a misconception, so that a change shows as the lines that changed. `known` is the text of an
    earlier file: exercises of which nothing changed since are taken from it, not run again. Without criteria, which
    take twice as long as the replies, nothing is said of what each misconception fails.
    """
    kept = json.loads(known)
    exercises = []
    for exercise in exercises_of(notebook):
        made_of = _made_of(folder, exercise)
        if kept.get(exercise.name, {}).get("", {}).get("made_of") == made_of:
            found = kept[exercise.name]
        else:
            library = LiveSubject(library_parts(exercise))
            found = {"": {"made_of": made_of, "replies": behaviour(exercise.name, library)}}
            for entry in entries(folder, exercise.name):
                subject = LiveSubject(entry.namespace)
                found[entry.name] = {
                    "question": entry.question,
                    "fails": failing(exercise.name, subject) if with_criteria else [],
                    "replies": behaviour(entry.exercise, subject),
                }
        lines = [f"  {_json(label)}: {_json(content)}" for label, content in found.items()]
        exercises.append(f" {_json(exercise.name)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(exercises) + "\n}\n"


def same_recording(one: str, other: str) -> bool:
    """Whether two texts of `record` hold the same questions and, but for a processor's rounding, the same replies.

    The files and the criteria that they were made with may differ.
    """
    return same(*(_told(json.loads(text)) for text in (one, other)))


def _told(recording: dict[str, dict[str, Any]]) -> list[Any]:
    """What a recording tells a learner, in its order."""
    return [
        [exercise, label, content.get("question"), content["replies"]]
        for exercise, found in recording.items()
        for label, content in found.items()
    ]


def failing(name: str, subject: Subject, seeds: Sequence[int] = SEEDS) -> list[str]:
    """The public criteria of an exercise that reject a subject with any of the seeds, in the rubric's order."""
    return [
        line.name
        for grader, line in rubric(name, hidden=False)
        if any(judged(grader, line, subject, seeded(seed, name, line.name)).failure for seed in seeds)
    ]


def library_parts(exercise: Exercise) -> dict[str, Any]:
    """The library's version of an exercise, by the names that a learner would define."""
    home = importlib.import_module(exercise.library)
    return {part: getattr(home, part) for part in exercise.parts}


def _made_of(folder: Path, exercise: Exercise) -> str:
    """A digest of the files that decide what is recorded: grader, probes, oracles, catalogue and library."""
    grader = sys.modules[grader_of(exercise.name).__module__]
    library = importlib.import_module(exercise.library)
    files = [*sorted(_used(grader)), Path(inspect.getfile(library))]
    files.append(folder / exercise.notebook / f"{exercise.name}.py")
    contents = [f"{SEEDS}".encode(), *(file.read_bytes() for file in files if file.is_file())]
    return hashlib.sha256(b"".join(contents)).hexdigest()[:16]


def _used(module: ModuleType) -> set[Path]:
    """The files of a grader's module and of everything in its package that it uses."""
    package, seen, waiting = module.__name__.partition(".")[0], set(), [module]
    while waiting:
        seen.add(one := waiting.pop())
        for value in vars(one).values():
            name = value.__name__ if inspect.ismodule(value) else str(getattr(value, "__module__", ""))
            if inspect.ismodule(value) and name.startswith(f"{one.__name__}."):
                continue  # a package has each of its modules as an attribute once somebody has imported it
            if name.startswith(f"{package}.") and sys.modules[name] not in seen:
                waiting.append(sys.modules[name])
    return {Path(inspect.getfile(one)) for one in seen}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
