"""The results of a cohort as files for people and for learning platforms.

    OUT/results.json    every record
    OUT/grades.csv      one row a student, one column an exercise, total, maximum, status
    OUT/report-ASSIGNMENT.html    the instructor's page
    OUT/canvas.csv      to import in Canvas, and
    OUT/moodle.csv      in Moodle: one file an assignment where there are several

What could not be graded has an empty cell and a reason in grades.csv, never a zero. It is left out of the import
files, since Canvas takes an empty cell for the wish to erase a grade. With `anonymise`, the first three show
pseudonyms; the import files, the records and the log keep the names.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from moe_course.grading.cohort.ledger import Ledger, Record, write
from moe_course.grading.cohort.page import by_assignment, page
from moe_course.grading.exercises.registry import EXERCISES

Row = list[str | float | None]


def write_results(ledger: Ledger, anonymise: bool = False) -> None:
    """Write all files anew from the records."""
    records = ledger.records()
    shown = sorted(map(_anonymous(ledger), records), key=_whose) if anonymise else records
    write(ledger.out / "results.json", json.dumps({"seed": ledger.seed(), "records": shown}, indent=1))
    write(ledger.out / "grades.csv", _csv(grades(shown)))
    assignments = sorted({record["assignment"] for record in records if record["assignment"]})
    for assignment in assignments:
        mine = [record for record in records if record["assignment"] == assignment]
        ending = f"-{ledger.path('', assignment).parent.name}.csv" if len(assignments) > 1 else ".csv"
        write(ledger.out / f"canvas{ending}", _csv(canvas(mine, assignment)))
        write(ledger.out / f"moodle{ending}", _csv(moodle(mine)))
    for assignment, mine in by_assignment(shown).items():
        name = f"report-{ledger.path('', assignment).parent.name}.html"
        write(ledger.out / name, page(assignment, mine, anonymise))


def grades(records: Sequence[Record]) -> list[Row]:
    """A table for people: exercises in the order of the course, then total, maximum and status.

    The total stays empty while something of the student's is ungradable.
    """
    present = {verdict["exercise"] for record in records for verdict in record["verdicts"]}
    exercises = [name for name in EXERCISES if name in present]
    by_student: dict[str, list[Record]] = {}
    for record in records:
        by_student.setdefault(record["student"], []).append(record)
    table: list[Row] = [["student", *exercises, "total", "maximum", "status"]]
    for student, mine in by_student.items():
        scores = {name: score for record in mine for name, score in exercise_scores(record).items()}
        total = sum(r["score"] for r in mine) if all(r["status"] == "graded" for r in mine) else None
        table.append(
            [
                student,
                *(scores.get(name) for name in exercises),
                total,
                sum(record["max_score"] or 0 for record in mine),
                "; ".join(dict.fromkeys(map(_status, mine))),
            ]
        )
    return table


def canvas(records: Sequence[Record], assignment: str) -> list[Row]:
    """What Canvas imports in its gradebook: `Student, ID, SIS User ID, SIS Login ID, Section`, then assignments.

    A second row gives the points possible. Students are found by Canvas's own id, then by the SIS ids, then by
    name (`process_student` and `update_column_count` in canvas-lms/lib/gradebook_importer.rb).
    """
    graded = [record for record in records if record["status"] == "graded"]
    maximum = max((record["max_score"] for record in graded), default=0)
    return [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", assignment],
        ["    Points Possible", "", "", "", "", maximum],
        *([_name(r), r["lms_id"], "", "" if r["lms_id"] else r["student"], "", r["score"]] for r in graded),
    ]


def moodle(records: Sequence[Record]) -> list[Row]:
    """What Moodle imports, with the column names of its offline grading worksheet.

    An assignment's "Upload grading worksheet" reads Identifier, Grade and Last modified (grade) by these names
    (moodle/mod/assign/feedback/offline/importgradeslib.php); it needs the participants' numbers that its download
    of submissions gives. Without them, the gradebook's CSV import maps Username to the user by hand
    (docs.moodle.org/en/Grade_import).
    """
    graded = [record for record in records if record["status"] == "graded"]
    return [
        ["Identifier", "Full name", "Username", "Grade", "Maximum grade", "Last modified (grade)"],
        *(
            [
                f"Participant {r['lms_id']}" if r["lms_id"] else "",
                _name(r),
                "" if r["lms_id"] else r["student"],
                r["score"],
                r["max_score"],
                "",
            ]
            for r in graded
        ),
    ]


def exercise_scores(record: Record) -> dict[str, float | None]:
    """The score on each exercise of a record, None where it could not be graded."""
    return {
        verdict["exercise"]: None if verdict["status"] == "ungradable" else verdict["score"]
        for verdict in record["verdicts"]
    }


def _csv(rows: Iterable[Row]) -> str:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_NONNUMERIC).writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: str | float | None) -> str | float:
    """No cell is a formula to a spreadsheet: owasp.org/www-community/attacks/CSV_Injection."""
    if value is None:
        return ""
    if isinstance(value, str) and value.lstrip()[:1] in set("=+-@"):
        return "'" + value
    return " ".join(value.split("\n")).replace("\r", " ") if isinstance(value, str) else value


def _status(record: Record) -> str:
    """What a person should know about a record: a zero that is no plain wrong answer is told apart."""
    if record["status"] == "graded":
        verdicts = record["verdicts"]
        if verdicts and all(verdict["status"] == "not attempted" for verdict in verdicts):
            return "graded: nothing attempted"
        plain = ("passed", "failed", "not attempted")
        odd = [f"{v['exercise']} {v['status']}" for v in verdicts if v["status"] not in plain]
        odd += [
            f"{v['exercise']}: {v['reason']}" for v in verdicts if v["status"] == "failed" and v["reason"]
        ]
        return "graded" + (f" ({', '.join(odd)})" if odd else "")
    return f"{record['status']}: {record['assignment'] or record['file']}: {record['reason']}"


def _name(record: Record) -> str:
    """The student's name: a learning platform's number is not part of it."""
    return record["student"].removesuffix(f"_{record['lms_id']}")


def _whose(record: Record) -> tuple[str, str]:
    return record["student"], record["assignment"]


class _anonymous:
    """Replaces whatever names a student in a record. Text that the student's own code printed is left alone."""

    def __init__(self, ledger: Ledger):
        self.ledger = ledger

    def __call__(self, record: Record) -> dict[str, Any]:
        pseudonym = self.ledger.pseudonym(record["student"])
        return {
            **record,
            "student": pseudonym,
            "lms_id": "",
            "file": "",
            "reason": _unnamed(record, pseudonym),
        }


def _unnamed(record: Record, pseudonym: str) -> str:
    reason = record["reason"]
    for name in (record["file"], record["student"], _name(record)):
        reason = reason.replace(name, pseudonym) if len(name) > 1 else reason
    return reason
