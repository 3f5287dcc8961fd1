"""Certificates: what they say, that a name cannot write HTML, and that no letter can be changed unnoticed."""

import json

import pytest
from cohorts import FIRST, SECOND, record, verdict

from moe_course.command.cli import main
from moe_course.grading.cohort import certificate
from moe_course.grading.cohort.certificate import (
    Certificate,
    Part,
    as_page,
    as_text,
    graded,
    key_in,
    verified,
)
from moe_course.grading.cohort.ledger import Ledger

KEY = b"k" * 32
NASTY = 'Ada <script>"x"</script> & <code id="mark">' + "0" * 64 + "</code>"


@pytest.fixture
def results(tmp_path):
    """A results folder with three learners: one has passed something, one nothing, one could not be graded."""
    out = tmp_path / "results"
    out.mkdir()
    (out / "cohort.json").write_text(json.dumps({"seed": 7}))
    ledger = Ledger(out)
    ledger.keep(record("ada", verdict(FIRST), verdict(SECOND, "failed", ("easy", "hard"))))
    ledger.keep(record("bob", verdict(FIRST, "not attempted")))
    ledger.keep(record("eve", reason="the file is cut off"))
    return out


def issued(name="Ada"):
    return as_page(Certificate(name, (Part("01_dense_ffn", (FIRST,), 6, "3 of 6"),), student="ada"), KEY)


def test_what_the_records_say_is_on_the_page(results):
    found = graded(results, "ada", "Ada Lovelace")
    assert found.parts == (Part("01_dense_ffn", (FIRST,), 2, "3 of 6"),)
    page = as_page(found, KEY)
    for said in (
        "Ada Lovelace",
        "1 of the course",
        "01_dense_ffn",
        "3 of 6 points",
        "1.2 ffn_params",
        "call ada",
    ):
        assert said in page
    assert SECOND not in page
    assert "Self-checked" not in page
    assert "Ada Lovelace has passed 1 of" in as_text(found)


@pytest.mark.parametrize(
    ("student", "why"),
    [
        ("mallory", "no graded record of 'mallory' in .*; it has ada, bob, eve"),
        ("eve", "no graded record of 'eve'"),
        ("bob", "bob has passed no exercise yet"),
    ],
)
def test_nothing_is_issued_without_a_passed_exercise(results, student, why):
    with pytest.raises(ValueError, match=why):
        graded(results, student)


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds no results .*cohort\.json"):
        graded(tmp_path, "ada")


def test_an_unchanged_page_is_verified():
    assert verified(issued(), KEY).startswith("Certificate of Ada: ")
    assert verified(issued().replace("\n", "\r\n").replace("\r\n", "\n"), KEY)


def test_every_change_of_a_page_is_found():
    page = issued()
    for place in range(0, len(page), 7):
        other = "x" if page[place] != "x" else "y"
        with pytest.raises(ValueError, match=r"changed|no certificate"):
            verified(page[:place] + other + page[place + 1 :], KEY)


def test_a_page_with_something_added_removed_or_signed_anew_is_found():
    page = issued()
    self_made = as_page(Certificate("Ada", (Part("01_dense_ffn", (FIRST,), 6),)))
    wrong = as_page(
        Certificate("Ada", (Part("01_dense_ffn", (FIRST,), 6),), student="ada"), b"another key, long enough"
    )
    for text in (page + " ", page.replace("Ada", "Eve"), page.replace("1 of 6", "6 of 6"), wrong):
        with pytest.raises(ValueError, match="changed after it was issued"):
            verified(text, KEY)
    with pytest.raises(ValueError, match="nobody has issued it"):
        verified(self_made, KEY)
    for text in ("", "<html>", page + page):
        with pytest.raises(ValueError, match="no certificate"):
            verified(text, KEY)


def test_a_name_is_text_and_nothing_else():
    page = issued(NASTY)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert NASTY in verified(page, KEY)


def test_a_self_made_page_says_so_and_takes_no_key():
    mine = Certificate("Ada", (Part("01_dense_ffn", (FIRST,), 6),))
    assert "Self-checked, not issued" in as_page(mine)
    assert "Self-checked, not issued" in as_text(mine)
    assert "Issued" not in as_page(mine)
    with pytest.raises(ValueError, match="must not have one"):
        as_page(mine, KEY)


def test_keys(tmp_path):
    path = tmp_path / "key"
    with pytest.raises(ValueError, match="key: there is no key"):
        key_in(path)
    made = key_in(path, make=True)
    assert len(made) == 64
    assert path.stat().st_mode & 0o77 == 0
    assert key_in(path) == key_in(path, make=True) == made
    path.write_text("short\n")
    with pytest.raises(ValueError, match="has 5 bytes; a key has at least 16"):
        key_in(path)


def test_the_command_issues_and_verifies(results, tmp_path, capsys):
    page, key = tmp_path / "ada.html", tmp_path / "key"
    issue = [
        "certificate",
        "--from",
        str(results),
        "--student",
        "ada",
        "--key",
        str(key),
        "--html",
        str(page),
    ]
    verify = ["certificate", "--verify", str(page), "--key", str(key)]
    assert main(issue) == 0
    assert "is a new key" in capsys.readouterr().out
    assert main(issue) == 0
    assert "is a new key" not in capsys.readouterr().out
    assert main(verify) == 0
    assert "is as it was issued: Certificate of ada" in capsys.readouterr().out
    page.write_text(page.read_text(encoding="utf-8").replace("3 of 6", "6 of 6"), encoding="utf-8")
    assert main(verify) == 2
    assert f"{page}: this page was changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--verify", "a.html"], "--verify a.html needs the issuer's key"),
        (["--from", "out", "--student", "ada"], "--from out needs --student ID, --key FILE and --html FILE"),
        ([], "needs --name NAME"),
        (["--name", "Ada", "--student", "ada"], "--student and --key go with --from DIR"),
    ],
)
def test_the_command_says_what_is_missing(options, why, capsys):
    assert main(["certificate", *options]) == 2
    assert why in capsys.readouterr().err


def test_the_day_is_on_the_page():
    assert certificate.datetime.now(certificate.UTC).strftime("%Y-%m-%d") in issued()
