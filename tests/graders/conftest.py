"""Run graders directly: `pytest tests/graders --submission FILE [--seed N]`.

Without --submission they grade the reference solutions. A student bundle has none: there they are left out.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from moe_course.grading.exercises.locate import notebooks_dir
from moe_course.grading.judge.subject import SubjectLost, WorkerSubject
from moe_course.grading.judge.verdict import draw_seed, seeded
from moe_course.grading.submission.attempts import read

SOLUTIONS = notebooks_dir().parent / "solutions"


def pytest_ignore_collect(collection_path, config):
    """In a student bundle graders have nothing to grade until a file is named."""
    nothing = not SOLUTIONS.is_dir() and not config.getoption("submission", None)
    return True if nothing and collection_path.name.startswith("test_") else None


def pytest_addoption(parser):
    parser.addoption("--submission", type=Path, help="the .py or .ipynb file to grade")
    parser.addoption(
        "--seed", type=int, help="seed of the graders' random numbers (default: drawn, and printed)"
    )


def pytest_configure(config):
    if config.getoption("seed", None) is None:
        config.option.seed = draw_seed()


def pytest_report_header(config):
    return f"seed of the graders' random numbers: --seed {config.option.seed}"


@pytest.fixture(scope="module")
def submission(request):
    chosen = request.config.getoption("submission", None)
    notebook = request.module.__name__.rpartition("test_")[2]
    return read(chosen or SOLUTIONS / notebook / f"{notebook}.ipynb")


@pytest.fixture(scope="module")
def worker(submission):
    with WorkerSubject(submission.cells) as subject:
        yield subject


@pytest.fixture
def subject(request, submission, worker):
    name = request.cls.exercise.name
    if name not in submission.exercises:
        pytest.skip(f"{submission.path.name} does not define {name}")
    points = request.function.criterion.points
    request.node.user_properties.append(("points", (name, points)))
    if submission.untouched(name):
        pytest.fail("not attempted", pytrace=False)
    return worker


@pytest.fixture
def rng(request):
    name = request.function.__name__.removeprefix("test_")
    print(f"--seed {request.config.option.seed} repeats this")  # shown with a failure
    return seeded(request.config.option.seed, request.cls.exercise.name, name)


def pytest_collection_modifyitems(items):
    """A hidden class may borrow its helpers by inheritance: the criteria of its parent are not its own."""
    items[:] = [
        item
        for item in items
        if not hasattr(getattr(item, "cls", None), "exercise") or item.originalname in vars(item.cls)
    ]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A lost worker fails the criterion in one line; a traceback through the grader would help nobody."""
    try:
        return (yield)
    except SubjectLost as lost:
        pytest.fail(f"{lost.status}: {lost.reason}", pytrace=False)


def pytest_terminal_summary(terminalreporter):
    """The score of each exercise, as `moe-course check` gives it."""
    scores: dict[str, list[int]] = {}
    for category in ("passed", "failed", "error"):
        for report in terminalreporter.getreports(category):
            noted = getattr(report, "user_properties", ())  # a file that could not be imported has none
            for exercise, points in [value for key, value in noted if key == "points"]:
                score = scores.setdefault(exercise, [0, 0])
                score[0] += points if report.passed else 0
                score[1] += points
    if scores:
        terminalreporter.section("points")
    for exercise, (score, full) in scores.items():
        terminalreporter.line(f"{exercise}: {score} of {full}")
