"""The course as it stands: notebooks/ is what solutions/ make it, and every notebook keeps the rules."""

from synthetic import ROOT

from moe_course.authoring.release import release
from moe_course.authoring.rules import course_problems


def test_the_release_is_up_to_date(capsys):
    assert release(ROOT, check=True), capsys.readouterr().out


def test_every_notebook_keeps_the_rules():
    assert [str(problem) for problem in course_problems(ROOT)] == []
