"""The instructor's page: its numbers are exact, it runs nothing that a submission wrote, and it is always there."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from cohorts import ASSIGNMENT, FIRST, SECOND, crowd, record, verdict

from moe_course.command.cli import main
from moe_course.grading.cohort.exports import write_results
from moe_course.grading.cohort.grade_cohort import grade
from moe_course.grading.cohort.ledger import Ledger
from moe_course.grading.cohort.overview import Check, Slow, Trouble, overview
from moe_course.grading.cohort.page import page
from moe_course.grading.cohort.similarity import FEW, LONG, SameCode
from moe_course.grading.exercises.expect import CheckFailed
from moe_course.grading.judge.rendering import as_html, as_text
from moe_course.grading.judge.verdict import CheckResult, without_running
from moe_course.grading.submission.attempts import Submission

ESC = "\x1b[2J"
HOSTILE = "<script>alert(1)</script>\" onload='x' {{ 7*7 }}" + ESC


class Reader(HTMLParser):
    """The text of a page without its style, its tags, and the targets of its links."""

    def __init__(self, text):
        super().__init__()
        self.said, self.tags, self.links, self.ids = "", [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.said += " " if tag in ("td", "th", "dt", "dd") else ""
        self.links += [value for name, value in attrs if name in ("href", "src")]
        self.ids |= {value for name, value in attrs if name == "id"}

    def handle_data(self, data):
        self.said += data if self.tags[-1:] != ["style"] else ""


def words(text):
    return " ".join(Reader(text).said.split())


def attempts(**statuses):
    """A cohort with one exercise: {student: arguments of its verdict}."""
    return [record(student, verdict(**options)) for student, options in statuses.items()]


def test_scores_are_counted_in_tenths_and_full_marks_belong_to_the_last():
    cohort = attempts(a={}, b={}, c={"status": "failed", "failed": ["hard"]}, d={"status": "crashed"})
    found = overview(ASSIGNMENT, [*cohort, record("eve", reason="unreadable")])
    assert (found.submissions, found.graded, found.maximum) == (5, 4, 3)
    assert found.bins == (1, 0, 0, 1, 0, 0, 0, 0, 0, 2)
    assert found.shares == (0, 1 / 3, 1, 1)
    assert found.quartiles == pytest.approx((0.75, 2, 3))


@pytest.mark.parametrize("points", [29, 30, 58])
def test_a_score_on_the_edge_belongs_to_the_tenth_above(points):
    cohort = [record("a", score=points * n / 10, max_score=points) for n in range(10)]
    assert overview(ASSIGNMENT, cohort).bins == (1,) * 10


def test_an_exercise_in_numbers():
    cohort = attempts(
        a={},
        b={"status": "failed", "failed": ["hard"]},
        c={"status": "failed", "failed": ["easy", "hard"]},
        d={"status": "timed out", "reason": "no answer within 30 seconds"},
        e={"status": "not attempted"},
    )
    (exercise,) = overview(ASSIGNMENT, cohort).exercises
    assert (exercise.label, exercise.attempted, exercise.passed, exercise.mean) == ("1.2 ffn_params", 4, 1, 1)
    assert exercise.checks == (Check("easy of ffn_params", 1, 3), Check("hard of ffn_params", 2, 3))


def test_exercises_come_in_the_order_of_the_course_and_unknown_ones_last():
    cohort = [record("a", verdict("from_the_future"), verdict(SECOND), verdict(FIRST))]
    assert [e.label for e in overview(ASSIGNMENT, cohort).exercises] == [
        "1.2 ffn_params",
        "1.3 ffn_flops",
        "from_the_future",
    ]


def test_mistakes_are_counted_in_words_of_those_who_attempted():
    question = "In which order come softmax and top-k?"
    wrong = {"status": "failed", "failed": ["easy"], "mistake": "softmax_after_top_k", "question": question}
    cohort = attempts(a=wrong, b=wrong, c={}, d={"status": "not attempted"}, e={**wrong, "mistake": "other"})
    text = words(page(ASSIGNMENT, cohort))
    sentence = "2 of 4 behave like “softmax after top k”{}. " + question + " a, b"
    assert text.count(sentence.format("")) == 1
    assert text.count(sentence.format(" in 1.2 ffn_params")) == 1
    assert text.count("1 of 4 behaves like “other”. ") == 1  # not among the commonest


def test_what_the_sandbox_may_have_caused_needs_a_person():
    doubt = "its cell stopped after 20 seconds: does it in a notebook?"
    cohort = [
        record("ada", verdict(status="failed") | {"needs": doubt}, verdict(SECOND)),
        record("bob", verdict(status="passed") | {"needs": doubt}),
        record("cy", verdict(status="failed") | {"needs": ""}, verdict(SECOND)),
    ]
    found = overview(ASSIGNMENT, cohort)
    assert [(trouble.student, trouble.reason) for trouble in found.stopped] == [("ada", doubt)]
    assert doubt in words(page(ASSIGNMENT, cohort))


def test_what_needs_a_person_comes_first():
    cohort = [
        record("ada", verdict(status="crashed", reason="exit code 1"), verdict(SECOND)),
        record("bob", verdict(status="not attempted", reason="renamed?"), verdict(SECOND, "failed")),
        record("cy", verdict(status="failed", reason="could not judge this reply")),
        record("eve", reason="the grader failed", again=True),
        record("idle", verdict(status="not attempted"), verdict(SECOND, "not attempted")),
    ]
    found = overview(ASSIGNMENT, cohort)
    assert found.ungradable == (Trouble("eve", "the grader failed", again=True),)
    assert found.stopped == (
        Trouble("ada", "exit code 1", "1.2 ffn_params", "crashed"),
        Trouble("bob", "renamed?", "1.2 ffn_params", "missing"),
        Trouble("cy", "could not judge this reply", "1.2 ffn_params", "not judged"),
    )
    assert found.idle == ("idle",)
    text = words(page(ASSIGNMENT, cohort))
    assert "the grader failed The next run with --resume tries it again." in text
    assert text.index("1.2 ffn_params crashed: exit code 1") < text.index("Graded submissions by their share")


def test_the_slowest_submissions_and_what_took_them_so_long():
    cohort = [record(f"s{n}", verdict(seconds=n), verdict(SECOND, seconds=1.5)) for n in range(9)]
    slowest = overview(ASSIGNMENT, cohort).slowest
    assert [slow.student for slow in slowest] == ["s8", "s7", "s6", "s5", "s4"]
    assert slowest[0] == Slow("s8", 9.5, "1.2 ffn_params", 8)


def test_repairs_are_grouped():
    cohort = [record(name, verdict(), repairs=["metadata lost"]) for name in ("a", "b")]
    cohort.append(record("c", verdict(), repairs=["deleted"]))
    assert overview(ASSIGNMENT, cohort).repairs == ((("metadata lost",), ("a", "b")), (("deleted",), ("c",)))


def wrote(student, status="passed", **solutions):
    """A record in which `student` wrote these solutions, each (hash, statements)."""
    marks = {name: {"hash": mark, "statements": length} for name, (mark, length) in solutions.items()}
    return record(student, *(verdict(name, status) for name in marks), solutions=marks)


def test_identical_solutions_are_grouped_over_exercises():
    cohort = [
        wrote("ada", "failed", ffn_params=("x", 4), ffn_flops=("y", 3)),
        wrote("bob", "failed", ffn_params=("x", 4), ffn_flops=("y", 3)),
        wrote("cy", "failed", ffn_params=("x", 4), ffn_flops=("z", 3)),
        wrote("dan", ffn_params=("other", 4), ffn_flops=("z", 3)),
    ]
    both = ("1.2 ffn_params", "1.3 ffn_flops")
    assert overview(ASSIGNMENT, cohort).same_code == (SameCode(("ada", "bob"), both, both, 7),)


def test_short_code_and_what_everybody_wrote_point_at_nobody():
    many = [wrote(f"s{n}", ffn_params=("same", LONG)) for n in range(FEW + 1)]
    short = [wrote(name, ffn_flops=("short", LONG - 1)) for name in ("ada", "bob")]
    found = overview(ASSIGNMENT, many + short)
    assert (found.same_code, found.common) == ((), (("1.2 ffn_params", FEW + 1),))
    (group,) = overview(ASSIGNMENT, many[1:]).same_code
    assert group.students == ("s1", "s2", "s3", "s4", "s5")


def fingerprint(source, path, name="moe_ffn_params"):
    return Submission(path, (source,), {name: source}).fingerprint(name)


def test_a_fingerprint_ignores_what_is_no_code_and_sees_the_rest(tmp_path):
    code = "def moe_ffn_params(a, b, *c):\n    d = a\n    if d:\n        d = b\n    return d\n"
    same = "def moe_ffn_params(a, b, *c):\n    'Mine.'\n    d  =  a  # first\n\n    if d: d = b\n    return d"
    found = fingerprint(code, tmp_path)
    assert found == fingerprint(same, tmp_path)
    assert found["statements"] == 4
    assert found != fingerprint(code.replace("d = b", "d = a"), tmp_path)
    for none in ("def moe_ffn_params(", "x = 1", "moe_ffn_params = max"):
        assert fingerprint(none, tmp_path) is None


def test_grading_leaves_a_page_with_fingerprints_but_none_of_a_stub(tmp_path):
    def grader(submission, names, seed, limits):
        return [replace(without_running(name, "passed"), score=1.0) for name in names]

    stub = "def ffn_flops(d_model, d_ff):\n    raise NotImplementedError\n"
    (tmp_path / "in").mkdir()
    for name in ("ada", "bob"):
        (tmp_path / "in" / f"{name}.py").write_text(f"def {FIRST}(a, b):\n    return 3 * a * b\n\n{stub}")
    records = grade(tmp_path / "in", tmp_path / "out", unsafe=True, grader=grader)
    assert [record["solutions"][FIRST]["statements"] for record in records] == [1, 1]
    assert records[0]["solutions"] == records[1]["solutions"]
    text = words((tmp_path / "out" / f"report-{ASSIGNMENT}.html").read_text())
    assert "2 submissions" in text
    assert str(Ledger(tmp_path / "out").seed()) in text
    assert "without a sandbox" in text


def test_nothing_that_a_submission_wrote_is_markup():
    wrong = verdict(status="failed", failed=["easy"], reason=HOSTILE, mistake="m", question=HOSTILE)
    wrong["checks"][0]["title"] = HOSTILE
    cohort = [
        record(HOSTILE, wrong, repairs=[HOSTILE], solutions={FIRST: {"hash": HOSTILE, "statements": 9}}),
        record("ada", wrong, repairs=[HOSTILE], solutions={FIRST: {"hash": HOSTILE, "statements": 9}}),
        record("eve", reason=HOSTILE),
    ]
    text = page(HOSTILE, cohort)
    safe = page("x", [record("ada", verdict()), record("eve", reason="y")])
    assert "script" not in Reader(text).tags
    assert "<script" not in text
    assert "\x1b" not in text
    assert words(text).count(HOSTILE.replace(ESC, r"\x1b[2J")) >= 9
    assert "default-src 'none'" in safe
    assert "49" not in words(text).replace("{{ 7*7 }}", "")


@pytest.mark.parametrize("size", [0, 1, 40, 500])
def test_a_page_of_any_size_is_whole_and_loads_nothing(size):
    text = page(ASSIGNMENT, crowd(size))
    read = Reader(text)
    assert read.links  # within the page
    assert {link.removeprefix("#") for link in read.links} <= read.ids
    assert not re.search(r"https?:|//|url\(|@import", text)
    assert not {"script", "link", "img", "iframe", "object"} & set(read.tags)
    assert f"{size + 1} submission" in words(text)
    assert not re.search(r"\b(nan|None|inf)\b", words(text))


def test_a_cohort_in_which_nothing_could_be_graded():
    text = words(page(ASSIGNMENT, [record("eve", reason="cut off"), record("bob", reason="empty")]))
    assert "2 ungradable: no score was given" in text
    assert "Exercises" not in text
    assert "median" not in text


def test_a_cohort_without_trouble_says_so():
    assert "Nothing. Every submission is graded" in words(page(ASSIGNMENT, attempts(a={}, b={})))


def test_records_of_an_older_version_still_make_a_page():
    old = record("ada", verdict())
    for name in ("solutions", "environment", "again", "sandboxed", "seconds", "repairs"):
        del old[name]
    del old["verdicts"][0]["checks"][0]["title"]
    old["verdicts"][0]["checks"][0]["name"] = "bad_axes"
    assert "bad axes 0 of 1" in words(page(ASSIGNMENT, [old]))


@pytest.fixture
def ledger(tmp_path):
    found = Ledger(tmp_path / "out")
    with found.opened(False, 7):
        pass
    return found


def pages(ledger):
    return {path.name: words(path.read_text()) for path in ledger.out.glob("*.html")}


def test_a_page_an_assignment_and_a_stray_file_on_the_only_one(ledger):
    ledger.keep(record("ada", verdict()))
    ledger.keep(record("eve", reason="no notebook", assignment=""))
    write_results(ledger)
    assert list(pages(ledger)) == [f"report-{ASSIGNMENT}.html"]
    assert "2 submissions" in pages(ledger)[f"report-{ASSIGNMENT}.html"]
    ledger.keep(record("ada", verdict("top_k_gate"), assignment="02_topk_routing"))
    write_results(ledger)
    found = pages(ledger)
    assert set(found) == {f"report-{name}.html" for name in (ASSIGNMENT, "02_topk_routing", "unknown")}
    assert "eve no notebook" in found["report-unknown.html"]
    assert "1 submission" in found[f"report-{ASSIGNMENT}.html"]


def test_an_anonymous_page_names_nobody(ledger):
    solutions = {FIRST: {"hash": "h", "statements": LONG}}
    crash = verdict(status="crashed", reason="exit code 1")
    for name in ("lovelace", "hopper"):
        ledger.keep(record(name, crash, repairs=["deleted"], solutions=solutions))
    ledger.keep(record("mallory", reason="mallory.ipynb is no notebook"))
    write_results(ledger, anonymise=True)
    (text,) = pages(ledger).values()
    assert not any(name in text for name in ("lovelace", "hopper", "mallory"))
    assert text.count(ledger.pseudonym("lovelace")) == 4  # crashed, alike, slowest, repaired
    assert "pseudonyms" in text


def test_a_learners_message_cannot_steer_the_terminal(tmp_path, capsys):
    blank = without_running(FIRST, "failed", f"reason {ESC}")
    failure = CheckFailed(f"your code raised ValueError: {ESC}\u202e\nbye\ttab", {"x": "\x07"})
    shown = replace(blank, checks=(CheckResult(blank.checks[0].criterion, "failed", failure),))
    for text in (as_text(shown), as_html(shown)):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
        assert r"ValueError: \x1b[2J\u202e" in text
        assert "\nbye\ttab" in text
    assert "2ⅹ — ×\xa0é" in as_text(replace(blank, reason="2ⅹ — ×\xa0é"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "eve.ipynb").write_text('{"cells": 1, "x": "\x1b[2J"}')
    main(["grade", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--unsafe"])
    assert "\x1b" not in capsys.readouterr().out
