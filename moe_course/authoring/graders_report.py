"""docs/graders.md: how often each grader errs, on the catalogue and on mutants of the reference solutions.

    python -m moe_course.authoring.graders_report [--seeds N] [--jobs N] [EXERCISE...]     (make graders-report)
    python -m moe_course.authoring.graders_report --prices [--seeds N] [EXERCISE...]       (points each mistake keeps)

A false accept is a catalogued misconception that gets full marks, a false reject a right answer that does not. With
names, the report on these exercises is printed and nothing is written.
"""

from __future__ import annotations

import argparse
import statistics
import tomllib
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]

from moe_course.authoring.mutants import mutants_of, namespace_of, passes, reference
from moe_course.authoring.naming import Named, named
from moe_course.authoring.prices import STUB, lines, prices
from moe_course.grading.exercises.locate import notebooks_dir
from moe_course.grading.exercises.registry import EXERCISES, Exercise, find
from moe_course.grading.exercises.rubric import points
from moe_course.grading.judge.catalogue import entries
from moe_course.tables import markdown_table

SEEDS = 5
REPORT = Path("docs/graders.md")
REASONS = Path("tests/surviving_mutants.toml")
COLUMNS = (
    "Exercise",
    "Points",
    "Wrong answers",
    "False accepts",
    "Right answers",
    "False rejects",
    "Mutants",
    "Equivalent",
    "Killed",
    "Survived",
    "Share killed",
    "Named rightly",
    "Named wrongly",
    "Points kept",
)
UNEXPLAINED = "not reviewed yet"


@dataclass(frozen=True)
class Row:
    """What one exercise's grader does. Wrong and right answers and survivors by name or change."""

    exercise: Exercise
    wrong: int
    false_accepts: tuple[str, ...]
    right: int
    false_rejects: tuple[str, ...]
    mutants: int
    equivalent: dict[str, str]  # change: why no legal input tells it from the reference
    survivors: dict[str, str]  # change: why the grader lets it pass
    named: tuple[Named, ...] = ()  # what second tellings of the misconceptions were called
    kept: tuple[float, ...] = ()  # the share of the points that each misconception keeps

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text, column by column."""
        counts = (self.wrong, len(self.false_accepts), self.right, len(self.false_rejects))
        title = f"{self.exercise.number} `{self.exercise.name}`"
        return (title, f"{points(self.exercise.name)}", *map(str, counts), *_killed([self]), *_told([self]))


def measure(name: str, root: Path, seeds: Sequence[int]) -> Row:
    """Try the catalogue and every mutant of an exercise with every seed."""
    exercise = EXERCISES[name]
    solutions = reference(exercise.notebook)
    namespace = namespace_of(solutions)
    wrong = {entry.name: entry.cell for entry in entries(root / "tests" / "misconceptions", name)}
    right = {entry.name: entry.cell for entry in entries(root / "tests" / "alternatives", name)}
    right["the reference solution"] = ""
    right["the library"] = f"from {exercise.library} import {', '.join(exercise.parts)}"
    mutants = mutants_of(name, solutions)

    def tried(cells: dict[str, str]) -> dict[str, int]:
        return {label: passes(name, cell, namespace, seeds) for label, cell in cells.items()}

    alive = [change for change, accepted in tried(mutants).items() if accepted]
    reasons = tomllib.loads((root / REASONS).read_text(encoding="utf-8"))
    equivalent, known = (reasons.get(kind, {}).get(name, {}) for kind in ("equivalent", "survivor"))
    return Row(
        exercise,
        len(wrong),
        tuple(label for label, accepted in tried(wrong).items() if accepted),
        len(right),
        tuple(label for label, accepted in tried(right).items() if accepted < len(seeds)),
        len(mutants),
        {change: equivalent[change] for change in alive if change in equivalent},
        {change: known.get(change, UNEXPLAINED) for change in alive if change not in equivalent},
        tuple(named(name, root)),
        tuple(one.share for one in prices(name, root) if one.kind != STUB),
    )


def measure_all(names: Sequence[str], root: Path, seeds: Sequence[int], jobs: int = 1) -> list[Row]:
    """The rows of several exercises, `jobs` at a time, in fresh processes: what forks must have no threads."""
    one = partial(measure, root=root, seeds=seeds)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        return list(tqdm(pool.map(one, names), total=len(names), disable=None))


def _killed(rows: Sequence[Row]) -> tuple[str, ...]:
    """Mutants, equivalent ones, killed and surviving ones, and the share killed of those that can be told apart."""
    made = sum(row.mutants for row in rows)
    equivalent = sum(len(row.equivalent) for row in rows)
    survived = sum(len(row.survivors) for row in rows)
    killed = made - equivalent - survived
    share = f"{killed / (killed + survived):.1%}" if killed + survived else "–"
    return (*map(str, (made, equivalent, killed, survived)), share)


def _told(rows: Sequence[Row]) -> tuple[str, str, str]:
    """Second tellings named rightly and wrongly, of those that deserve a name, and the share of points kept."""
    tellings = [one for row in rows for one in row.named if not one.told]
    kept = sorted(share for row in rows for share in row.kept)
    spread = (kept[0], statistics.median(kept), kept[-1]) if kept else ()
    right = sum(one.right for one in tellings)
    return (
        f"{right} of {len(tellings)}" if tellings else "–",
        str(sum(one.wrong for one in tellings)) if tellings else "–",
        " / ".join(f"{share:.0%}" for share in spread) or "–",
    )


def table(rows: Sequence[Row]) -> str:
    """One line an exercise, as Markdown, and the sums."""
    body = [row.cells for row in rows]
    sums = (str(sum(int(cells[i]) for cells in body)) for i in range(1, 6))
    return markdown_table(COLUMNS, [*body, ("**All**", *sums, *_killed(rows), *_told(rows))])


def text(rows: Sequence[Row], seeds: int) -> str:
    """The whole document."""
    accepted = [(row, name) for row in rows for name in row.false_accepts]
    rejected = [(row, name) for row in rows for name in row.false_rejects]
    counted = "1 seed" if seeds == 1 else f"{seeds} seeds"
    return f"""# How good the graders are

<!-- Written by `make graders-report`. Do not edit. -->

Each answer was graded with {counted}. A **false accept** is a catalogued misconception that got full marks with any
of them, a **false reject** a right answer that lost a point with any of them. Right answers are the reference
solution, the library's version and the alternatives.

The **mutants** are small changes to the reference solution, made by mutmut {version("mutmut")}: an argument left
out or None, another number, comparison or arithmetic operator, an assignment emptied. Changes in an error's message
are left out: the contract fixes only its type. A mutant is **killed** when every seed rejects it (a hang or a crash
is a rejection), **equivalent** when no input that the contract allows can tell it from the reference. The share is
of those that are not equivalent. mutmut changes neither matrix products nor the condition `if x:`; such mistakes are
among the misconceptions.

**Named** counts second tellings: misconceptions written again, differently, by whoever had seen only their names and
questions. One that ends in an exception or computes nothing is told so in a sentence, and not counted here. **Points
kept** are the share of all points, hidden ones included, that a catalogued misconception keeps: the least, the median
and the most.

{table(rows)}

## Errors

{_errors("False accepts", accepted)}

{_errors("False rejects", rejected)}

## Mutants that survived

{_mutants((row, change, why) for row in rows for change, why in row.survivors.items())}

## Equivalent mutants

Reviewed by hand, in `{REASONS.as_posix()}`.

{_mutants((row, change, why) for row in rows for change, why in row.equivalent.items())}
"""


def _errors(title: str, found: Sequence[tuple[Row, str]]) -> str:
    names = ", ".join(f"`{row.exercise.name}`: {name}" for row, name in found)
    return f"{title}: {names or 'none'}."


def _mutants(found: Iterable[tuple[Row, str, str]]) -> str:
    lines = [f"- `{row.exercise.name}`: `{change}`  \n  {why}" for row, change, why in found]
    return "\n".join(lines) or "None."


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report, or print that on some exercises."""
    parser = argparse.ArgumentParser(prog="make graders-report", description="how often the graders err")
    parser.add_argument("exercises", nargs="*", metavar="EXERCISE", help="default: all, into the docs")
    parser.add_argument("--prices", action="store_true", help="print the points that each mistake keeps")
    parser.add_argument("--seeds", type=int, metavar="N", help=f"default {SEEDS}, with --prices one seed")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="exercises at a time (default 2)")
    args = parser.parse_args(argv)
    root = notebooks_dir().parent
    names = [find(name).name for name in args.exercises]
    if args.prices:
        found = [
            one for name in names or EXERCISES for one in prices(name, root, range(1, 1 + (args.seeds or 1)))
        ]
        print("\n".join(lines(found)))
        return 0
    seeds = args.seeds or SEEDS
    rows = measure_all(names or tuple(EXERCISES), root, range(seeds), args.jobs)
    if names:
        print(text(rows, seeds))
    else:
        (root / REPORT).write_text(text(rows, seeds), encoding="utf-8")
        print(table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
