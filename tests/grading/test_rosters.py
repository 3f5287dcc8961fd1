"""A roster, a deadline and feedback: who a learner is, what lateness costs, and what goes back."""

import json
import re
import zipfile
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cohorts import ASSIGNMENT, record, verdict

from moe_course.command.cli import main
from moe_course.grading.cohort import grade_cohort
from moe_course.grading.cohort.exports import grades, write_results
from moe_course.grading.cohort.feedback import write_feedback
from moe_course.grading.cohort.gradebook import opened, write_gradebook
from moe_course.grading.cohort.late import Late, deadline, instant
from moe_course.grading.cohort.ledger import Ledger
from moe_course.grading.cohort.roster import Learner, enrolled, read_roster
from moe_course.grading.judge.verdict import without_running
from moe_course.grading.submission.collection import Handed

RIGHT = "def ffn_params(d_model, d_ff):\n    return 3 * d_model * d_ff\n"
ROSTER = """\
student;name;id;login;email;team;grace
jdoe;Jane Doe;1001;jane.d;jane@example.org;Team Blue;
-rlee;Lee, Roe;1002;;;Team Blue;2
zoe;Zoë Müller;;;;;
"""


@pytest.fixture
def roster(tmp_path):
    path = tmp_path / "roster.csv"
    path.write_text("\ufeff" + ROSTER, encoding="utf-8")
    return path


def fake(submission, names, seed, limits):
    return [replace(without_running(name, "passed"), score=1.0) for name in names]


# ----------------------------------------------------------------------------------------------------------- roster


@pytest.mark.parametrize(
    ("handed", "students"),
    [
        (Handed("jdoe", "", ""), ["jdoe"]),
        (Handed("doejane_1001", "", "", "1001"), ["jdoe"]),  # Canvas's number
        (Handed("leeroe_77", "", "", "77"), ["-rlee"]),  # Canvas's spelling of the name
        (Handed("Zoe\u0308 Müller_5", "", "", "5"), ["zoe"]),
        (Handed("Doe_Jane_jane.d_4711", "", ""), ["jdoe"]),  # ILIAS
        (Handed("Jane@Example.org", "", ""), ["jdoe"]),  # Gradescope
        (Handed("Team Blue_57", "", ""), ["jdoe", "-rlee"]),
        (Handed("stranger", "", ""), ["stranger"]),
    ],
)
def test_a_roster_knows_a_learner_by_what_platforms_call_them(roster, handed, students):
    found = enrolled([handed], read_roster(roster))
    assert [one.student for one in found] == students
    assert all(one.handed_as == handed.student for one in found if one.student != handed.student)


def test_of_two_who_could_be_meant_nobody_is(tmp_path):
    same = {name: Learner(name, "Kim Lee") for name in ("kim1", "kim2")}
    (kept,) = enrolled([Handed("leekim_9", "", "", "9")], same)
    assert kept.student == "leekim_9"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name\nJane", "no column “student”"),
        ("student\njdoe\njdoe", "line 3: 'jdoe' is in the roster twice"),
        ("student,name\n,Jane", "line 2: the cell “student” is empty"),
        ("student,grace\njdoe,soon", "line 2: grace is 'soon'"),
        ("student,penalty\njdoe,-1", "line 2: penalty is '-1'"),
        ("student,penalty\njdoe,nan", "penalty is 'nan'"),
        ("", "no column"),
    ],
)
def test_what_is_no_roster_says_why(tmp_path, text, reason):
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(ValueError, match=re.escape(reason)):
        read_roster(tmp_path / "r.csv")


def hand_in(root, **texts):
    for name, text in texts.items():
        (root / name / ASSIGNMENT).mkdir(parents=True)
        (root / name / ASSIGNMENT / "hw.py").write_text(text)
    return root


def test_who_is_missing_and_who_is_a_stranger_is_told(tmp_path, roster):
    submitted = hand_in(tmp_path / "in", jdoe=RIGHT, mallory=RIGHT)
    out = tmp_path / "out"
    grade_cohort.grade(submitted, out, unsafe=True, roster=roster, grader=fake)
    table = (out / "grades.csv").read_text(encoding="utf-8-sig")
    assert re.search(r"'-rlee.*handed in nothing", table)
    assert re.search(r"zoe.*handed in nothing", table)
    text = (out / f"report-{ASSIGNMENT}.html").read_text()
    assert re.search(r"2 people</b> of the roster handed in nothing", text)
    assert re.search(r"1 person</b> are not in the roster", text)


def test_a_learner_who_gets_another_name_is_not_there_twice(tmp_path, roster):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"doejane_1001_5_{ASSIGNMENT}.py").write_text(RIGHT)
    for given in (None, roster):
        grade_cohort.grade(
            tmp_path / "in", tmp_path / "out", resume=True, unsafe=True, roster=given, grader=fake
        )
    assert [r["student"] for r in Ledger(tmp_path / "out").records()] == ["jdoe"]
    assert len(list(tmp_path.glob("out/records/*/*.superseded"))) == 1


# -------------------------------------------------------------------------------------------------------- gradebook


def test_the_gradebook_gets_the_rosters_learners_and_no_invented_ones(tmp_path, roster):
    known = [record("jdoe", verdict(), lms_id="1001", handed_as="doejane_1001")]
    stranger = record("roelee_1002", verdict(), lms_id="1002")
    with pytest.raises(ValueError, match=r"1 not written.*roelee_1002.*--roster FILE"):
        write_gradebook(tmp_path / "g.db", [stranger, *known])
    with pytest.raises(ValueError, match="roelee_1002: add them to the roster"):
        write_gradebook(tmp_path / "g.db", [stranger, *known], read_roster(roster))
    late = {("jdoe", ASSIGNMENT): Late(90_000, 0.5)}
    write_gradebook(tmp_path / "g.db", known, read_roster(roster), late)
    with opened(tmp_path / "g.db") as gradebook:
        assert [student.id for student in gradebook.students] == ["jdoe"]
        found = gradebook.find_submission_notebook(ASSIGNMENT, ASSIGNMENT, "jdoe")
        assert (found.score, found.late_submission_penalty) == (3, 0.5)


# ------------------------------------------------------------------------------------------------------------- late

DUE = "2027-03-01 23:59:00 UTC"


@pytest.mark.parametrize(
    ("submitted", "rule", "learner", "days", "penalty"),
    [
        ("2027-03-01 23:59:00 UTC", "zero", None, 0, 0),
        ("2027-03-02 23:59:00 UTC", "zero", None, 0, 0),  # one day of grace
        ("2027-03-02 23:59:01 UTC", "zero", None, 1, 3),
        ("2027-03-02 23:59:01 UTC", "none", None, 1, 0),
        ("2027-03-04 12:00:00 UTC", "10%", None, 2, 0.6),
        ("2027-03-04 12:00:00 +0100", "10 %", None, 2, 0.6),
        ("2027-04-30 12:00:00 UTC", "10%", None, 59, 3),  # never more than there is
        ("2027-03-04 12:00:00 UTC", "10%", Learner("ada", grace=4), 0, 0),
        ("2027-03-04 12:00:00 UTC", "10%", Learner("ada", late_days=4), 3, 0.9),
        ("", "10%", Learner("ada", late_days=4), 3, 0.9),
        ("2027-03-01 12:00:00 UTC", "none", Learner("ada", penalty=1), 0, 1),
        ("2027-03-04 12:00:00 UTC", "plugin_of_mine.HalfAPoint", None, 2, 0.5),
    ],
)
def test_days_that_have_begun_cost_what_the_rule_says(
    tmp_path, monkeypatch, submitted, rule, learner, days, penalty
):
    (tmp_path / "plugin_of_mine.py").write_text(
        "from nbgrader.plugins import BasePlugin\nclass HalfAPoint(BasePlugin):\n"
        "    def late_submission_penalty(self, student_id, score, total_seconds_late):\n"
        "        return 0.5 if student_id == 'ada' and total_seconds_late == 129_660 else None\n"
    )
    monkeypatch.chdir(tmp_path)
    found = deadline(DUE, 1, rule).late(record("ada", verdict(), submitted=submitted), learner)
    assert (found.days, found.penalty, found.known) == (days, pytest.approx(penalty), True)


def test_of_an_unknown_time_nothing_is_taken_off_and_the_page_says_so(tmp_path):
    ledger = Ledger(tmp_path / "out")
    with ledger.opened(False, 7):
        ledger.keep(record("ada", verdict()))
        ledger.keep(record("bob", verdict(), submitted="2027-03-05 00:00:00 UTC"))
    late = deadline(DUE, 0, "10%").of(ledger.records(), {})
    assert (late["ada", ASSIGNMENT].penalty, late["ada", ASSIGNMENT].known) == (0, False)
    write_results(ledger, late=late)
    head, ada, bob = grades(ledger.records(), late)
    assert head[-6:] == ["points", "days late", "penalty", "total", "maximum", "status"]
    assert ada[-6:-2] == [3, 0, 0, 3]
    assert bob[-6:-2] == [3, 4, pytest.approx(1.2), pytest.approx(1.8)]
    assert "handed in at a time that is not known" in (ledger.out / f"report-{ASSIGNMENT}.html").read_text()
    assert '"bob","",1.8\n' in (ledger.out / "canvas.csv").read_text()


@pytest.mark.parametrize(
    ("due", "grace", "rule", "reason"),
    [
        ("tomorrow-ish", 0, "none", "--due 'tomorrow-ish'"),
        (DUE, -1, "none", "--grace -1"),
        (DUE, 0, "half", "--penalty half"),
        (DUE, 0, "no_such.Plugin", "--penalty no_such.Plugin"),
        (DUE, 0, "json.JSONDecoder", "--penalty json.JSONDecoder"),
    ],
)
def test_what_is_no_deadline_says_why(due, grace, rule, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        deadline(due, grace, rule)


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2027-03-01T23:59", (1, 23, 59)),
        ("2027-03-01 11:59 PM", (1, 23, 59)),
        ("2027-03-01 23:59:00.000000 UTC", (1, 23, 59)),
        ("2027-03-01 23:59:00 +0100", (1, 22, 59)),
        ("2027-03-01 23:59:00+01:00", (1, 22, 59)),
        ("2027-03-01 23:59:00 +01:00", (1, 22, 59)),
        ("2027-03-01 23:59:00 -0030", (2, 0, 29)),
        ("2027-03-01 23:59:00 EST", (2, 4, 59)),
        ("2027-03-01 23:59:00 Europe/Berlin", (1, 22, 59)),
    ],
)
def test_times_and_their_zones(text, utc):
    assert instant(text) == datetime(2027, 3, *utc, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", " ", "soon", "2027-02-30", "2027-03-01 23:59:00 NOWHERE"])
def test_what_is_no_time(text):
    assert instant(text) is None


def test_the_time_of_nbgraders_exchange_is_read(tmp_path):
    submitted = hand_in(tmp_path / "in", ada=RIGHT)
    (submitted / "ada" / ASSIGNMENT / "timestamp.txt").write_text("2027-03-03 00:00:00.000000 UTC")
    rule = deadline(DUE, 0, "zero")
    (found,) = grade_cohort.grade(submitted, tmp_path / "out", unsafe=True, deadline=rule, grader=fake)
    assert found["submitted"] == "2027-03-03 00:00:00.000000 UTC"
    assert found["score"] > 0  # the record keeps what the answers are worth
    assert re.search(r'"ada".*,2,', (tmp_path / "out" / "grades.csv").read_text(encoding="utf-8-sig"))


# --------------------------------------------------------------------------------------------------------- feedback


def told(**changes):
    """A verdict whose hidden check says more to the instructor than to the learner."""
    found = verdict(status="failed", failed=["easy"])
    found["checks"][0]["message"] = "with 4711 it gave <script>alert(1)</script>"
    public = [{**check, "message": "<b>bold</b> \x1b[2J"} for check in found["checks"]]
    return {
        **found,
        "feedback": {"status": "failed", "reason": "", "checks": public, "diagnosis": None},
        **changes,
    }


def test_each_learner_gets_a_page_that_tells_what_they_may_know(tmp_path):
    records = [record("Zoë/../x", told()), record("eve", reason="the file is cut off"), record("Eve", told())]
    paths = write_feedback(tmp_path / "back", records, {("Eve", ASSIGNMENT): Late(90_000, 0.5)})
    assert len({str(path).casefold() for path in paths}) == 3
    assert all(path.parent == tmp_path / "back" / ASSIGNMENT for path in paths)
    zoe, eve, other = (path.read_text() for path in paths)
    for text in (zoe, eve, other):
        assert "4711" not in text
        assert not re.search(r"<(script|b>bold|img)|https?:|\x1b", text)
        assert "default-src 'none'" in text
    assert "&lt;b&gt;bold" in zoe
    assert "Not graded yet:</b> the file is cut off" in eve
    assert "1.5 of 3 points" in other
    assert "2 less 0.5 for a submission 2 days late" in other


@pytest.mark.parametrize(
    ("fit", "said"),
    [
        ("whole", "This behaves like the mistake <b>counts lost</b>. Where?"),
        ("part", "One mistake here is <b>counts lost</b>; there is another one besides. Where?"),
        (
            "near",
            "On most inputs this behaves like the mistake <b>counts lost</b>, though not on all. Where?",
        ),
    ],
)
def test_a_page_names_a_mistake_in_the_words_of_the_check(tmp_path, fit, said):
    verdict = told()
    verdict["feedback"]["diagnosis"] = {"name": "CountsLost", "question": "Where?", "fit": fit, "fails": []}
    (path,) = write_feedback(tmp_path / "back", [record("eve", verdict)], {})
    assert said in path.read_text()


def test_moodle_gets_its_own_folder_names_back(tmp_path):
    folder = "Jane Doe_123_assignsubmission_file_"
    (tmp_path / "in" / folder).mkdir(parents=True)
    (tmp_path / "in" / folder / f"{ASSIGNMENT}.py").write_text(RIGHT)
    grade_cohort.grade(
        tmp_path / "in", tmp_path / "out", unsafe=True, feedback=tmp_path / "back", grader=fake
    )
    with zipfile.ZipFile(tmp_path / "back" / f"moodle-feedback-{ASSIGNMENT}.zip") as archive:
        assert archive.namelist() == [f"{folder}/feedback.html"]
        assert b"Jane Doe_123" in archive.read(archive.namelist()[0])


# -------------------------------------------------------------------------------------------------------- anonymous


def test_anonymous_holds_on_the_terminal_too(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("lovelaceada_417_9_hw.ipynb", "hopper.ipynb"):
        (tmp_path / "in" / name).write_text('{"cells": [')
    (tmp_path / "roster.csv").write_text("student,id\nal1,417\n")
    argv = ["grade", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--unsafe", "--anonymise"]
    assert main([*argv, "--roster", str(tmp_path / "roster.csv")]) == 1
    said = capsys.readouterr()
    assert "0 graded, 2 ungradable" in said.out
    shown = said.out + said.err + (tmp_path / "out" / "results.json").read_text()
    assert not any(name in shown for name in ("lovelace", "al1", "hopper"))
    assert (
        len({r["student"] for r in json.loads((tmp_path / "out" / "results.json").read_text())["records"]})
        == 2
    )
