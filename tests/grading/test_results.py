"""Results on the way out: tables that spreadsheets and learning platforms read, and nbgrader's gradebook."""

import csv
import json
import re
import shutil
import stat
import subprocess
import sys
import unicodedata
from dataclasses import replace

import pytest

from moe_course.grading.cohort.exports import canvas, grades, moodle, write_results
from moe_course.grading.cohort.grade_cohort import grade
from moe_course.grading.cohort.gradebook import opened, write_gradebook
from moe_course.grading.cohort.ledger import Ledger, now
from moe_course.grading.exercises.registry import exercises_of
from moe_course.grading.judge.rendering import as_dict
from moe_course.grading.judge.verdict import without_running

ASSIGNMENT = "01_dense_ffn"
NAMES = [exercise.name for exercise in exercises_of(ASSIGNMENT)]
POINTS = dict(
    zip(NAMES, (5.0, 3.0, 3.0, 7.0, 9.0, 4.0), strict=True)
)  # some points, whatever the rubrics say


def record(student, passed=("ffn_params",), status="graded", assignment=ASSIGNMENT, **more):
    verdicts = []
    for exercise in exercises_of(ASSIGNMENT) if status == "graded" else ():
        verdict = replace(without_running(exercise.name, "failed"), max_score=POINTS[exercise.name])
        if exercise.name in passed:
            verdict = replace(verdict, status="passed", score=verdict.max_score)
        verdicts.append(as_dict(verdict))
    return {
        "student": student,
        "lms_id": "",
        "assignment": assignment,
        "notebook": ASSIGNMENT,
        "file": f"{student}.ipynb",
        "status": status,
        "reason": "" if status == "graded" else f"{student}.ipynb is no notebook",
        "score": sum(v["score"] for v in verdicts) if verdicts else None,
        "max_score": sum(v["max_score"] for v in verdicts) if verdicts else None,
        "verdicts": verdicts,
        "seed": 1,
        "key": "k",
        "version": "0",
        "graded": now(),
        **more,
    }


@pytest.fixture
def ledger(tmp_path):
    found = Ledger(tmp_path / "out")
    with found.opened(False, 1):
        pass
    return found


def rows(path):
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


def test_grades_have_one_row_a_student_and_one_column_an_exercise():
    header, ada, eve = grades(
        [record("ada", ("ffn_params", "ffn_flops")), record("eve", status="ungradable")]
    )
    assert header == ["student", *(e.name for e in exercises_of(ASSIGNMENT)), "total", "maximum", "status"]
    assert ada == ["ada", 0, 3, 3, 0, 0, 0, 6, 31, "graded"]
    assert eve[1:8] == [None] * 7
    assert eve[-1] == f"ungradable: {ASSIGNMENT}: eve.ipynb is no notebook"


def test_a_zero_that_is_no_wrong_answer_is_told_apart():
    crashed, empty, unjudged = (record(name, ()) for name in ("ada", "bob", "eve"))
    crashed["verdicts"][0]["status"] = "crashed"
    unjudged["verdicts"][1]["reason"] = "the grader could not judge this reply"
    for verdict in empty["verdicts"]:
        verdict["status"] = "not attempted"
    assert [row[-1] for row in grades([crashed, empty, unjudged])[1:]] == [
        "graded (swiglu_ffn crashed)",
        "graded: nothing attempted",
        "graded (ffn_params: the grader could not judge this reply)",
    ]


def test_a_total_stays_open_while_an_assignment_is_ungradable():
    both = [record("ada"), record("ada", status="ungradable", assignment="02_topk_routing")]
    (row,) = grades(both)[1:]
    assert (row[2], row[-3]) == (3, None)


@pytest.mark.parametrize(
    "name",
    [
        '=HYPERLINK("x")',
        "+1",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        " =1",
        'a "b", c',
        "Zoë\n=1",
        "＝1",
        "＋1",
        "－1",
        "＠SUM(A1)",
        "−1",
        "\u200b=1",
        "\r=1",
        "﹢1",
    ],
)
def test_cells_are_quoted_and_never_formulas(ledger, name):
    ledger.keep(record(name))
    write_results(ledger)
    for file in ("grades.csv", "canvas.csv", "moodle.csv"):
        for row in rows(ledger.out / file):
            for cell in row:
                assert unicodedata.normalize("NFKC", cell.lstrip(" \t\u200b")[:1]) not in set("=+-@−")
                assert not set(cell) & set("\r\n")
    text = (ledger.out / "grades.csv").read_text(encoding="utf-8-sig")
    shown = rows(ledger.out / "grades.csv")[1][0]
    assert re.sub(r"[\r\n]", " ", name) == shown.removeprefix("'")
    assert text.splitlines()[0].startswith('"student","swiglu_ffn"')


@pytest.mark.parametrize("login", ["-ada", "@ada", "+ada.l", "ada@example.org", "007", "z1234567"])
def test_a_login_stays_what_the_platform_knows_and_for_people_it_is_no_formula(ledger, login):
    ledger.keep(record(login))
    write_results(ledger)
    assert rows(ledger.out / "canvas.csv")[2][3] == login
    assert rows(ledger.out / "moodle.csv")[1][2] == login
    assert rows(ledger.out / "grades.csv")[1][0] in (login, "'" + login)
    assert rows(ledger.out / "grades.csv")[1][0][0] not in "-@+"


def test_spreadsheets_learn_that_a_table_is_utf_8(ledger):
    ledger.keep(record("Zoë"))
    write_results(ledger)
    assert all(path.read_bytes().startswith(b"\xef\xbb\xbf") for path in ledger.out.glob("*.csv"))


def test_canvas_has_its_columns_and_no_cell_that_would_erase_a_grade():
    known = record("lovelaceada_417", lms_id="417")
    table = canvas([known, record("bob"), record("eve", status="ungradable")], ASSIGNMENT)
    assert table == [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", ASSIGNMENT],
        ["    Points Possible", "", "", "", "", 31],
        ["lovelaceada", "417", "", "", "", 3],
        ["bob", "", "", "bob", "", 3],
    ]


def test_moodle_has_the_columns_of_its_worksheet():
    known = record("Ada Lovelace_88", lms_id="88")
    assert moodle([known, record("eve", status="ungradable")]) == [
        ["Identifier", "Full name", "Username", "Grade", "Maximum grade", "Last modified (grade)"],
        ["Participant 88", "Ada Lovelace", "", 3, 31, ""],
    ]


def test_two_assignments_have_an_import_file_each(ledger):
    ledger.keep(record("ada"))
    ledger.keep(record("ada", assignment="02_topk_routing"))
    write_results(ledger)
    assert rows(ledger.out / f"canvas-{ASSIGNMENT}.csv")[0][-1] == ASSIGNMENT
    assert rows(ledger.out / "canvas-02_topk_routing.csv")[0][-1] == "02_topk_routing"


def test_anonymous_reports_name_nobody_and_the_pseudonyms_stay(ledger):
    ledger.keep(record("lovelace"))
    ledger.keep(record("mallory", status="ungradable"))
    write_results(ledger, anonymise=True)
    first = (ledger.out / "results.json").read_text(), (ledger.out / "grades.csv").read_text()
    assert not any(name in text for text in first for name in ("lovelace", "mallory"))
    write_results(ledger, anonymise=True)
    assert first == ((ledger.out / "results.json").read_text(), (ledger.out / "grades.csv").read_text())
    assert len({r["student"] for r in json.loads(first[0])["records"]}) == 2
    assert stat.S_IMODE((ledger.out / "pseudonyms.key").stat().st_mode) == 0o600
    assert rows(ledger.out / "canvas.csv")[2][0] == "lovelace"  # an import file has to


def test_names_that_a_file_system_would_confuse_have_records_of_their_own(ledger):
    names = ["ada", "Ada", "../ada", "a/da", "a" * 300, "a" * 301, "..", "Zoë"]
    for name in names:
        ledger.keep(record(name))
    assert sorted(r["student"] for r in ledger.records()) == sorted(names)
    paths = [ledger.path(name, ASSIGNMENT) for name in names]
    assert len({str(path).lower() for path in paths}) == len(names)
    assert {path.resolve().parent for path in paths} == {(ledger.out / "records" / ASSIGNMENT).resolve()}


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """An empty gradebook, made where nbgrader's `alembic` is not on the PATH: it takes a process and seconds."""
    path = tmp_path_factory.mktemp("gradebook") / "gradebook.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/usr/bin:/bin")
        with opened(path):
            return path


@pytest.fixture
def database(empty, tmp_path):
    return shutil.copy(empty, tmp_path / "gradebook.db")


def scores(database, student):
    with opened(database) as gradebook:
        cells = gradebook.find_notebook(ASSIGNMENT, ASSIGNMENT).grade_cells
        found = {c.name: gradebook.find_grade(c.name, ASSIGNMENT, ASSIGNMENT, student) for c in cells}
        return {
            n.removeprefix("check_"): (g.auto_score, g.score, g.needs_manual_grade) for n, g in found.items()
        }


def test_the_gradebook_holds_the_automatic_scores(database):
    write_gradebook(database, [record("ada"), record("eve", status="ungradable")])
    ada, eve = scores(database, "ada"), scores(database, "eve")
    assert len(ada) == 6
    assert ada["ffn_params"] == (3, 3, False)
    assert ada["ffn_flops"] == (0, 0, False)
    assert set(eve.values()) == {(None, 0, True)}  # nbgrader shows it as open, not as a zero
    with opened(database) as gradebook:
        comment = gradebook.find_comment("ffn_params", ASSIGNMENT, ASSIGNMENT, "eve")
        assert comment.auto_comment == "Not graded: eve.ipynb is no notebook"


def test_what_a_person_wrote_stays(database):
    write_gradebook(database, [record("ada")])
    with opened(database) as gradebook:
        mine = gradebook.find_grade("check_ffn_params", ASSIGNMENT, ASSIGNMENT, "ada")
        mine.manual_score, mine.extra_credit = 2, 0.5
        gradebook.find_comment("ffn_params", ASSIGNMENT, ASSIGNMENT, "ada").manual_comment = "see me"
        gradebook.db.commit()
    write_gradebook(database, [record("ada", ("ffn_flops",))])
    after = scores(database, "ada")
    assert after["ffn_params"] == (0, 2.5, True)  # a person looks again, since the automatic score moved
    assert after["ffn_flops"] == (3, 3, False)
    with opened(database) as gradebook:
        comment = gradebook.find_comment("ffn_params", ASSIGNMENT, ASSIGNMENT, "ada")
        assert (comment.manual_comment, comment.auto_comment) == ("see me", None)


def test_the_instructors_own_points_and_choice_of_exercises_stay(database):
    with opened(database) as gradebook:
        gradebook.add_assignment(ASSIGNMENT)
        gradebook.add_notebook(ASSIGNMENT, ASSIGNMENT)
        gradebook.add_grade_cell("check_ffn_params", ASSIGNMENT, ASSIGNMENT, max_score=10, cell_type="code")
        gradebook.add_grade_cell("essay", ASSIGNMENT, ASSIGNMENT, max_score=5, cell_type="markdown")
    write_gradebook(database, [record("ada")])
    assert scores(database, "ada") == {"ffn_params": (10, 10, False), "essay": (None, 0, True)}


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -1, 99, None, "3", True])
def test_an_impossible_score_never_reaches_the_gradebook(database, score):
    write_gradebook(database, [record("ada")])
    forged = record("ada")
    next(v for v in forged["verdicts"] if v["exercise"] == "ffn_params")["score"] = score
    with pytest.raises(ValueError, match="ffn_params"):
        write_gradebook(database, [forged])
    assert scores(database, "ada")["ffn_params"] == (3, 3, False)


def test_two_graders_at_once_on_one_gradebook(database, tmp_path):
    program = (
        "import json, sys; from pathlib import Path; from moe_course.grading.cohort.gradebook import write_gradebook;"
        "write_gradebook(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))"
    )
    graders = []
    for who in ("ada", "bob"):
        group = tmp_path / f"{who}.json"
        group.write_text(json.dumps([record(f"{who}{n}") for n in range(8)]))
        graders.append(subprocess.Popen([sys.executable, "-c", program, database, group]))
    assert [grader.wait(400) for grader in graders] == [0, 0]
    for who in ("ada", "bob"):
        for n in range(8):
            assert scores(database, f"{who}{n}")["ffn_params"] == (3, 3, False)


def test_grading_ends_with_reports_and_gradebook_for_the_owners_eyes(database, tmp_path):
    def grader(submission, names, seed, limits):
        return [replace(without_running(name, "passed"), score=3.0) for name in names]

    (tmp_path / "in").mkdir()
    (tmp_path / "in/lovelace.py").write_text(
        "def ffn_params(d_model, d_ff):\n    return 3 * d_model * d_ff\n"
    )
    out = tmp_path / "cohort"
    grade(tmp_path / "in", out, unsafe=True, gradebook=database, anonymise=True, grader=grader)
    assert scores(database, "lovelace")["ffn_params"] == (3, 3, False)
    assert "lovelace" not in (out / "results.json").read_text()
    assert "lovelace" in (out / "canvas.csv").read_text()
    readable = [path.name for path in out.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
    assert readable in ([], [".lock"])  # the seed is for no one else
