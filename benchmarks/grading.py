"""How long grading takes: `moe-course grade` beside stock `nbgrader autograde`, on the same submissions, in one run.

    python benchmarks/grading.py [--students 40] [--jobs 2] [--assignment 01_dense_ffn]

Every student hands in a mixture of right answers, catalogued misconceptions and untouched stubs. Stock nbgrader runs
each submission's notebook from top to bottom in a kernel, without a sandbox, and one at a time: it knows no other
way. The course's command grades the same files twice, before and after nbgrader, so that a machine which was busier
in between shows. Last, nbgrader with the course's plug-ins, and where the time of a submission goes.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from stock_nbgrader import Course, cell_of, jupyter_env, notebook_file  # noqa: E402

from moe_course.grading.cohort import grade_cohort  # noqa: E402
from moe_course.grading.exercises.registry import NOTEBOOKS, exercises_of  # noqa: E402
from moe_course.grading.judge import subject  # noqa: E402
from moe_course.grading.judge.catalogue import entries  # noqa: E402

STOCK = """
c = get_config()
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "notebooks"
c.ClearSolutions.code_stub = {"python": "raise NotImplementedError  # your code here"}
c.ExecutePreprocessor.timeout = 120
"""


# ------------------------------------------------------------------------------------------------- submissions


def submissions(assignment: str, students: int) -> dict[str, Any]:
    """{student: notebook}: of each student's answers about half are right, a third wrong, the others untouched."""
    released = nbformat.read(notebook_file(ROOT / "notebooks", assignment), as_version=4)
    solved = nbformat.read(notebook_file(ROOT / "solutions", assignment), as_version=4)
    rng, handed_in = random.Random(0), {}
    for number in range(students):
        notebook = copy.deepcopy(released)
        for exercise in exercises_of(assignment):
            parts = [part for part in exercise.parts if has_cell(solved, part)]
            right = [cell_of(solved, part).source for part in parts]
            styles = entries(ROOT / "tests" / "alternatives", exercise.name)
            mistakes = entries(ROOT / "tests" / "misconceptions", exercise.name)
            kind = rng.choices(["solution", "alternative", "misconception", "stub"], [3, 2, 3, 2])[0]
            chosen = {"alternative": styles, "misconception": mistakes}.get(kind)
            if chosen:
                right = [rng.choice(chosen).cell, *right[1:]]
            for part, source in zip(parts, right, strict=True):
                if kind != "stub":
                    cell_of(notebook, part).source = source
        handed_in[f"student{number:03}"] = notebook
    return handed_in


def has_cell(notebook: Any, part: str) -> bool:
    """Whether a part of an exercise stands in a cell of its own, and not in that of the part before it."""
    return any(cell.metadata.get("nbgrader", {}).get("grade_id") == part for cell in notebook.cells)


def course(folder: Path, assignment: str, handed_in: dict[str, Any], config: str) -> Course:
    """A course directory of its own with these submissions and this nbgrader_config.py."""
    made = Course(folder / "course", folder / "learner", jupyter_env(folder / "home", folder / "exchange"))
    shutil.copytree(ROOT / "solutions" / assignment, made.root / "solutions" / assignment)
    (made.root / "nbgrader_config.py").write_text(config, encoding="utf-8")
    made.nbgrader("generate_assignment", assignment, "--force")
    for student, notebook in handed_in.items():
        path = notebook_file(made.root / "submitted" / student, assignment)
        path.parent.mkdir(parents=True)
        nbformat.write(notebook, path)
    return made


# ------------------------------------------------------------------------------------------------------ timing


def timed(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes, of the clock on the wall."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def graded_by_us(made: Course, out: Path, jobs: int) -> None:
    """The command as an instructor types it, in a process of its own. It exits with 1 where a file is ungradable."""
    command = ["grade", made.root / "submitted", "--out", out, "--jobs", jobs, "--seed", 0]
    program = [sys.executable, "-m", "moe_course.command.cli", *map(str, command)]
    subprocess.run(program, cwd=ROOT, env=made.env, check=True, stdout=subprocess.DEVNULL)


def where_it_goes(submitted: Path, out: Path) -> tuple[dict[str, float], int]:
    """Seconds by step for a whole cohort, one submission at a time, and the number of probes."""
    spent: Counter[str] = Counter()
    calls: Counter[str] = Counter()

    def watched(home: Any, name: str, step: Callable[..., str]) -> None:
        function = getattr(home, name)

        def watching(*args: Any, **kwargs: Any) -> Any:
            label, started = step(*args), time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent[label] += time.perf_counter() - started
                calls[label] += 1

        setattr(home, name, watching)

    def asked(worker: Any, message: Any, *_: Any) -> str:
        return START if message is None else PROBES if "probe" in message else CELLS

    watched(subject, "sandboxed", lambda *args: SANDBOX if calls[FORK_SERVER] else FORK_SERVER)
    watched(subject, "ask", asked)
    watched(subject.WorkerSubject, "close", lambda *args: END)
    watched(grade_cohort, "tasks", lambda *args: READ)
    watched(grade_cohort.Ledger, "keep", lambda *args: WRITE)
    watched(grade_cohort, "write_results", lambda *args: WRITE)
    whole = timed(lambda: grade_cohort.grade(submitted, out, jobs=1, seed=0))
    spent[JUDGE] = whole - sum(spent.values())
    return {step: spent[step] for step in STEPS}, calls[PROBES]


FORK_SERVER = "the fork server, once: Python and PyTorch imported"
READ, SANDBOX, START = "reading and repair", "the sandbox, built and entered", "the worker, until it is ready"
CELLS, PROBES, JUDGE = "the learner's cells", "probes, waiting for replies", "judging, diagnosing, reports"
END, WRITE = "the sandbox, taken down", "records and results, written"
STEPS = (FORK_SERVER, READ, SANDBOX, START, CELLS, PROBES, JUDGE, END, WRITE)


# -------------------------------------------------------------------------------------------------- the report


def machine() -> str:
    """What the numbers were measured on."""
    import nbgrader
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = (
        f"Python {platform.python_version()}, PyTorch {torch.__version__}, nbgrader {nbgrader.__version__}"
    )
    return f"{platform.system()} {platform.machine()}, {cores} cores, {versions}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--students", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--assignment", choices=NOTEBOOKS, default="01_dense_ffn")
    args = parser.parse_args()
    if min(args.students, args.jobs) < 1:
        parser.error(f"--students {args.students} --jobs {args.jobs}: at least 1 of each")

    with tempfile.TemporaryDirectory(prefix="moe-course-benchmark-") as folder:
        base = Path(folder)
        handed_in = submissions(args.assignment, args.students)
        stock = course(base / "stock", args.assignment, handed_in, STOCK)
        ours = (ROOT / "nbgrader_config.py").read_text(encoding="utf-8")
        plugged = course(base / "plugged", args.assignment, handed_in, ours)
        print(machine())
        print(f"{args.students} submissions of {args.assignment}; seconds per submission:\n", flush=True)

        def row(what: str, work: Callable[[], Any]) -> float:
            seconds = timed(work) / args.students
            print(f"  {what:50} {seconds:8.2f}", flush=True)
            return seconds

        command = f"moe-course grade --jobs {args.jobs}"
        before = row(command, lambda: graded_by_us(stock, base / "before", args.jobs))
        plain = row("nbgrader autograde", lambda: stock.nbgrader("autograde", args.assignment))
        after = row(f"{command}, once more", lambda: graded_by_us(stock, base / "after", args.jobs))
        row(
            "nbgrader autograde, the course's plug-ins",
            lambda: plugged.nbgrader("autograde", args.assignment),
        )
        print(f"\n  {'ratio: nbgrader over moe-course':50} {2 * plain / (before + after):8.1f}\n")

        steps, probes = where_it_goes(stock.root / "submitted", base / "profile")
        print(f"Where the time of moe-course goes, --jobs 1, {probes / args.students:.0f} probes each:\n")
        for step, seconds in steps.items():
            print(f"  {step:50} {seconds / args.students:8.3f}")


if __name__ == "__main__":
    main()
