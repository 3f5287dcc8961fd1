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
import re
import unicodedata
from collections.abc import Iterable, Sequence

from moe_course.grading.cohort.late import Late
from moe_course.grading.cohort.ledger import Ledger, Record, write
from moe_course.grading.cohort.page import by_assignment, page
from moe_course.grading.cohort.roster import Learner
from moe_course.grading.exercises.registry import EXERCISES

Row = list[str | float | None]
Whose = tuple[str, str]  # student and assignment
_FORMULA = ("=", "+", "-", "@", "−")
_LOGIN = re.compile(r"[-+@]?[A-Za-z]\w*([.-]\w+)*(@[\w.-]+)?", re.ASCII)


def write_results(
    ledger: Ledger,
    anonymise: bool = False,
    roster: dict[str, Learner] | None = None,
    late: dict[Whose, Late] | None = None,
) -> None:
    """Write all files anew from the records. roster: the learners, where a list is known; late: what it costs."""
    records, late = ledger.records(), late or {}
    seen = anonymous(ledger) if anonymise else Names()
    shown = sorted(map(seen.record, records), key=_whose)
    shown_late = {(seen.student(student), assignment): found for (student, assignment), found in late.items()}
    write(ledger.out / "results.json", json.dumps({"seed": ledger.seed(), "records": shown}, indent=1))
    table = grades(shown, shown_late) if late else grades(shown)
    absent = sorted(set(roster or ()) - {record["student"] for record in records})
    table += [[seen.student(name), *[None] * (len(table[0]) - 2), "handed in nothing"] for name in absent]
    write(ledger.out / "grades.csv", _csv(table))
    assignments = sorted({record["assignment"] for record in records if record["assignment"]})
    for assignment in assignments:
        mine = [after(record, late) for record in records if record["assignment"] == assignment]
        ending = f"-{ledger.path('', assignment).parent.name}.csv" if len(assignments) > 1 else ".csv"
        write(ledger.out / f"canvas{ending}", _csv(canvas(mine, assignment, roster), logins=(3,)))
        write(ledger.out / f"moodle{ending}", _csv(moodle(mine, roster), logins=(2,)))
    for assignment, mine in by_assignment(shown).items():
        name = f"report-{ledger.path('', assignment).parent.name}.html"
        there = {record["student"] for record in mine}
        everybody = {seen.student(student) for student in roster or ()}
        remarks = [
            ("of the roster handed in nothing.", sorted(everybody - there)),
            (
                "are not in the roster: no gradebook got their points.",
                sorted(there - everybody) if roster else [],
            ),
            ("handed in at a time that is not known: nothing was taken off.", _untimed(mine, shown_late)),
        ]
        write(
            ledger.out / name, page(assignment, mine, anonymise, [remark for remark in remarks if remark[1]])
        )


def after(record: Record, late: dict[Whose, Late]) -> Record:
    """The record with the points that count: those for the answers less the penalty."""
    found = late.get(_whose(record))
    return (
        {**record, "score": round(record["score"] - found.penalty, 6)} if found and found.penalty else record
    )


def _untimed(records: Sequence[Record], late: dict[Whose, Late]) -> list[str]:
    return [
        record["student"] for record in records if (found := late.get(_whose(record))) and not found.known
    ]


def grades(records: Sequence[Record], late: dict[Whose, Late] | None = None) -> list[Row]:
    """A table for people: exercises in the order of the course, then total, maximum and status.

    The total stays empty while something of the student's is ungradable. With `late`, points, days late and penalty
    stand before it, and the total is points less penalty.
    """
    present = {verdict["exercise"] for record in records for verdict in record["verdicts"]}
    exercises = [name for name in EXERCISES if name in present]
    by_student: dict[str, list[Record]] = {}
    for record in records:
        by_student.setdefault(record["student"], []).append(record)
    lateness = ["points", "days late", "penalty"] if late is not None else []
    table: list[Row] = [["student", *exercises, *lateness, "total", "maximum", "status"]]
    for student, mine in by_student.items():
        scores = {name: score for record in mine for name, score in exercise_scores(record).items()}
        points = sum(r["score"] for r in mine) if all(r["status"] == "graded" for r in mine) else None
        found = [one for record in mine if (one := (late or {}).get(_whose(record)))]
        days, penalty = max((one.days for one in found), default=0), sum(one.penalty for one in found)
        total = None if points is None else round(points - penalty, 6)
        table.append(
            [
                student,
                *(scores.get(name) for name in exercises),
                *([points, days, penalty] if lateness else []),
                total,
                sum(record["max_score"] or 0 for record in mine),
                "; ".join(dict.fromkeys(map(_status, mine))),
            ]
        )
    return table


def canvas(records: Sequence[Record], assignment: str, roster: dict[str, Learner] | None = None) -> list[Row]:
    """What Canvas imports in its gradebook: `Student, ID, SIS User ID, SIS Login ID, Section`, then assignments.

    A second row gives the points possible. Students are found by Canvas's own id, then by the SIS ids, then by
    name (`process_student` and `update_column_count` in canvas-lms/lib/gradebook_importer.rb).
    """
    graded = [record for record in records if record["status"] == "graded"]
    maximum = max((record["max_score"] for record in graded), default=0)
    return [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", assignment],
        ["    Points Possible", "", "", "", "", maximum],
        *([_name(r, roster), _number(r, roster), "", _login(r, roster), "", r["score"]] for r in graded),
    ]


def moodle(records: Sequence[Record], roster: dict[str, Learner] | None = None) -> list[Row]:
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
                f"Participant {_number(r, roster)}" if _number(r, roster) else "",
                _name(r, roster),
                _login(r, roster),
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


def _csv(rows: Iterable[Row], logins: Sequence[int] = ()) -> str:
    """A table for spreadsheets, with the byte order mark by which Excel knows UTF-8. logins: the columns in which a
    platform needs the very login."""
    text = io.StringIO()
    text.write("\ufeff")
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerows([_cell(value, at in logins) for at, value in enumerate(row)] for row in rows)
    return text.getvalue()


def _cell(value: str | float | None, is_login: bool = False) -> str | float:
    """No cell is a formula to a spreadsheet: owasp.org/www-community/attacks/CSV_Injection.

    Some spreadsheets take full-width signs for the usual ones. A login such as -ada stays what it is: as a formula it
    could do no harm.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    steered = value[:1] in ("\t", "\r", "\n")
    value = re.sub(r"[\r\n\v\f\x00\x85\u2028\u2029]", " ", value)
    if is_login and _LOGIN.fullmatch(value):
        return value
    first = next((char for char in value if unicodedata.category(char)[0] not in "ZC"), "")
    return "'" + value if steered or unicodedata.normalize("NFKC", first) in _FORMULA else value


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


def _name(record: Record, roster: dict[str, Learner] | None = None) -> str:
    """The student's name: a learning platform's number is not part of it."""
    row = (roster or {}).get(record["student"])
    return (row.name if row else "") or record["student"].removesuffix(f"_{record['lms_id']}")


def _number(record: Record, roster: dict[str, Learner] | None) -> str:
    """The student's number on the learning platform, "" where it is not known."""
    row = (roster or {}).get(record["student"])
    return record["lms_id"] or (row.lms_id if row else "")


def _login(record: Record, roster: dict[str, Learner] | None) -> str:
    """The name to log in with: of the roster, else the name in nbgrader where no number is known."""
    row = (roster or {}).get(record["student"])
    if row and row.login:
        return row.login
    return "" if _number(record, roster) else record["student"]


def _whose(record: Record) -> Whose:
    return record["student"], record["assignment"]


class Names:
    """Shows students and records as they are."""

    def student(self, name: str) -> str:
        return name

    def record(self, record: Record) -> Record:
        return record


class anonymous(Names):
    """Replaces whatever names a student. Text that the student's own code printed is left alone."""

    def __init__(self, ledger: Ledger):
        self.ledger = ledger

    def student(self, name: str) -> str:
        return self.ledger.pseudonym(name)

    def record(self, record: Record) -> Record:
        shown = {**record, **dict.fromkeys(("lms_id", "file", "folder", "handed_as"), "")}
        shown["student"] = pseudonym = self.student(record["student"])
        shown["reason"] = _unnamed(record["reason"], record, pseudonym)
        shown["repairs"] = [_unnamed(note, record, pseudonym) for note in record.get("repairs", ())]
        return shown


def _unnamed(text: str, record: Record, pseudonym: str) -> str:
    names = [record["file"], record["student"], _name(record), record.get("handed_as", "")]
    names.append(names[-1].removesuffix(f"_{record['lms_id']}"))
    for name in sorted(set(names), key=len, reverse=True):
        text = text.replace(name, pseudonym) if len(name) > 1 else text
    return text
