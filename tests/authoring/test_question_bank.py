"""The clinic's question bank: on three seeds each case shows its symptom, and its repair removes it."""

import re

import pytest
from synthetic import ROOT
from teaching import fences, parts

from moe_course.authoring import bundle

FOLDER = ROOT / "docs" / "teaching"
BANK = (FOLDER / "question_bank.md").read_text(encoding="utf-8")
CASES = parts(BANK, "## Case ")
ANSWERS = parts((FOLDER / "question_bank_answers.md").read_text(encoding="utf-8"), "## Case ")
(COMMON,) = fences(BANK.partition("\n## Case ")[0])


def test_every_case_has_an_answer():
    assert list(CASES) == list(ANSWERS)
    assert 8 <= len(CASES) <= 10


@pytest.mark.parametrize("case", CASES)
def test_the_code_shows_the_symptom_and_the_repair_removes_it(case):
    sick, *repairs, healthy = fences(ANSWERS[case])
    assert repairs
    assert all("SEEDS" in asserts for asserts in (sick, healthy))
    world = {}
    for source in (COMMON, *fences(CASES[case]), sick):
        exec(source, world)
    with pytest.raises(AssertionError):
        exec(healthy, world)
    for source in (*repairs, healthy):
        exec(source, world)
    with pytest.raises(AssertionError):
        exec(sick, world)


@pytest.mark.parametrize("case", CASES)
def test_a_case_says_nothing_of_its_cause(case):
    """It has a symptom, an instrument and a question; no thread is named, and no patient of notebook 11 is meant."""
    assert re.findall(r"^\*\*(\w+)\.\*\*", CASES[case], re.MULTILINE) == ["Symptom", "Instrument", "Question"]
    assert not re.search(r"#\d{2,}|github|repair of|the cause", CASES[case])


def test_the_student_bundle_has_none_of_the_teachers_files():
    assert not any("teaching" in name for name in (*bundle.FILES, *bundle.FOLDERS, *bundle.TESTS))
    assert "docs" not in bundle.FOLDERS
