"""Honest work gets the same points live, by `moe-course grade` and by `nbgrader autograde`."""

import copy
import os
import shutil

import nbformat
import pytest
from honest_styles import STYLES
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell
from nbgrader.api import Gradebook
from stock_nbgrader import Course, cell_of, jupyter_env, notebook_file
from synthetic import KERNEL, ROOT, notebook

from moe_course.grading.cohort.grade_cohort import grade
from moe_course.grading.exercises.registry import EXERCISES
from moe_course.grading.exercises.rubric import rubric

pytestmark = pytest.mark.slow
PUBLIC = {
    name: float(sum(line.points for _, line in rubric(name, hidden=False)))
    for name in {style.exercise for style in STYLES.values()}
}
FULL = {name: float(sum(line.points for _, line in rubric(name))) for name in PUBLIC}
RELEASED = {
    name: nbformat.read(notebook_file(ROOT / "notebooks", name), as_version=4)
    for name in {EXERCISES[name].notebook for name in PUBLIC}
}


def packed():
    """Few submissions that hold all styles: {student: (notebook, {exercise: name of its style})}."""
    held = {}
    for name, style in STYLES.items():
        kind = (EXERCISES[style.exercise].notebook, style.settings)
        number = 0
        while style.exercise in held.setdefault((*kind, number), {}):
            number += 1
        held[*kind, number][style.exercise] = name
    return {
        f"{'settings' if changes else 'styles'}-{which[:2]}-{number}": (which, styles)
        for (which, changes, number), styles in held.items()
    }


PACKED = packed()


def submission(student):
    """The released notebook with this student's styles in place of the stubs."""
    which, styles = PACKED[student]
    made = copy.deepcopy(RELEASED[which])
    for exercise, name in styles.items():
        place = made.cells.index(cell_of(made, exercise))
        made.cells[place].source = STYLES[name].answer
        made.cells[place:place] = [new_code_cell(text) for text in STYLES[name].above]
    return made


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """Points by style, from one kernel: set-up cell, and for each style its cells and the check."""
    # The first start of the compiler takes half a minute on a busy machine, which is all that a check has.
    cells, checks = (
        [new_code_cell("import torch; torch.compile(torch.nn.functional.silu)(torch.ones(2))")],
        {},
    )
    for which, styles in PACKED.values():
        cells.append(new_code_cell("%reset -f in out\n%reset -f"))
        cells.append(next(cell for cell in RELEASED[which].cells if cell.id == "setup"))
        for exercise, name in styles.items():
            cells += [new_code_cell(text) for text in (*STYLES[name].above, STYLES[name].answer)]
            checks[name] = len(cells)
            cells.append(new_code_cell(f"check({exercise})"))
    made = notebook(*copy.deepcopy(cells))
    for place, cell in enumerate(made.cells):
        cell.id = f"cell-{place}"
    made.metadata.kernelspec = KERNEL
    folder = tmp_path_factory.mktemp("live")
    os.environ.setdefault("MOE_COURSE_SMALL", "1")
    NotebookClient(made, timeout=300, allow_errors=True, resources={"metadata": {"path": folder}}).execute()
    return {
        name: [
            float(out.data["text/plain"])
            for out in made.cells[place].outputs
            if out.output_type == "execute_result"
        ]
        for name, place in checks.items()
    }


@pytest.fixture(scope="module")
def cohort(needs_sandbox, tmp_path_factory):
    """Points by style, from one run of `moe-course grade`, and what the records say needs a person."""
    base = tmp_path_factory.mktemp("cohort")
    for student, (which, _) in PACKED.items():
        path = notebook_file(base / "in" / student, which)
        path.parent.mkdir(parents=True)
        nbformat.write(submission(student), path)
    records = {record["student"]: record for record in grade(base / "in", base / "out", jobs=2)}
    points = {
        PACKED[student][1][verdict["exercise"]]: (verdict["score"], verdict["reason"])
        for student, record in records.items()
        for verdict in record["verdicts"]
        if verdict["exercise"] in PACKED[student][1]
    }
    return points, base / "in"


@pytest.fixture(scope="module")
def gradebook(cohort, tmp_path_factory):
    """Points by style, from one `nbgrader autograde` of each assignment."""
    base = tmp_path_factory.mktemp("nbgrader")
    course = Course(base / "course", base / "learner", jupyter_env(base / "home", base / "exchange"))
    course.root.mkdir()
    shutil.copy(ROOT / "nbgrader_config.py", course.root)
    points = {}
    for which in RELEASED:
        shutil.copytree(ROOT / "solutions" / which, course.root / "solutions" / which)
        course.nbgrader("generate_assignment", which, "--force")
        for student in (student for student in PACKED if PACKED[student][0] == which):
            shutil.copytree(cohort[1] / student, course.root / "submitted" / student)
        course.nbgrader("autograde", which)
    with Gradebook(f"sqlite:///{course.root / 'gradebook.db'}") as book:
        for student, (which, styles) in PACKED.items():
            (graded,) = book.find_submission(which, student).notebooks
            scores = {line.name.removeprefix("check_"): line.score for line in graded.grades}
            points |= {name: scores[exercise] for exercise, name in styles.items()}
    return points


def test_there_are_many_styles_in_few_submissions():
    assert len(STYLES) >= 60
    assert len(PACKED) <= 20
    assert sorted(name for _, styles in PACKED.values() for name in styles.values()) == sorted(STYLES)


@pytest.mark.parametrize("name", STYLES)
def test_live_it_earns_what_the_check_can_give(live, name):
    assert live[name] == [PUBLIC[STYLES[name].exercise]]


@pytest.mark.parametrize("name", STYLES)
def test_a_cohort_gives_full_marks(cohort, name):
    assert cohort[0][name] == (FULL[STYLES[name].exercise], "")


@pytest.mark.parametrize("name", STYLES)
def test_autograde_gives_full_marks(gradebook, name):
    assert gradebook[name] == FULL[STYLES[name].exercise]
