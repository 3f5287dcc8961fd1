"""The whole way of an assignment with stock nbgrader commands: release, fetch, submit, collect, grade, feedback."""

import csv
import html
import json
import re
import stat
import sys

import nbformat
import pytest
from browsing import barriers, new_page, photograph, running
from nbgrader.api import Gradebook
from stock_nbgrader import ASSIGNMENT, NAMES, cell_of, notebook_file

from moe_course.grading.cohort.ledger import stored_seed
from moe_course.grading.exercises.rubric import criteria, grader_of, points
from moe_course.grading.judge.files import grade_submission
from moe_course.grading.submission.attempts import read

pytestmark = pytest.mark.slow
LEARNERS = ("partly", "everything", "nothing")


@pytest.fixture(scope="module")
def gradebook(graded):
    """Points by learner and exercise, as nbgrader keeps them."""
    with Gradebook(f"sqlite:///{graded.root / 'gradebook.db'}") as book:
        return {
            learner: {grade.name.removeprefix("check_"): grade.score for grade in notebook.grades}
            for learner in LEARNERS
            for notebook in book.find_submission(ASSIGNMENT, learner).notebooks
        }


def test_the_answers_of_the_course_earn_full_marks(gradebook):
    assert gradebook["everything"] == {name: points(name) for name in NAMES}


def test_the_untouched_release_earns_nothing_and_raises_nothing(graded, gradebook):
    assert gradebook["nothing"] == dict.fromkeys(NAMES, 0)
    notebook = graded.autograded("nothing")
    outputs = [(cell.id, out) for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    assert [out for out in outputs if out[1].output_type == "error" or out[1].get("name") == "stderr"] == []
    for name in NAMES:
        assert "not attempted" in str(cell_of(notebook, f"check_{name}").outputs), name


def test_a_partly_right_notebook_gets_exactly_its_points(graded, gradebook):
    mine = gradebook["partly"]
    assert mine["swiglu_ffn"] == points("swiglu_ffn")
    assert 0 < mine["moe_ffn_params"] < points("moe_ffn_params")
    assert sum(mine.values()) == mine["swiglu_ffn"] + mine["moe_ffn_params"]
    submission = read(notebook_file(graded.root / "submitted" / "partly"))
    assert mine == {verdict.exercise: verdict.score for verdict in grade_submission(submission, NAMES, 1)}


def test_the_feedback_shows_the_rubric(graded):
    folder = graded.root / "feedback" / "partly" / ASSIGNMENT
    page = (folder / f"{ASSIGNMENT}.html").read_text(encoding="utf-8")
    for criterion in criteria(grader_of("moe_ffn_params")):
        assert html.escape(criterion.title) in page


def test_the_seed_stays_with_the_gradebook(graded):
    """All learners were graded with it, and nothing that they get shows it."""
    kept = graded.root / "gradebook.db.seed"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    seed = str(stored_seed(kept))
    pages = [*(graded.root / "feedback").rglob("*.html"), *(graded.root / "autograded").rglob("*.ipynb")]
    assert len(pages) == 2 * len(LEARNERS)
    assert not [path for path in pages if seed in path.read_text(encoding="utf-8")]


def test_feedback_comes_back_through_the_exchange(graded):
    student = ("--student", "partly")  # release_feedback stops at what did not come through the exchange
    graded.nbgrader("release_feedback", ASSIGNMENT, *student)
    graded.nbgrader("fetch_feedback", ASSIGNMENT, "--course", "moe", *student, cwd=graded.learner)
    (page,) = (graded.learner / ASSIGNMENT / "feedback").glob(f"*/{ASSIGNMENT}.html")
    assert "moe_ffn_params" in page.read_text(encoding="utf-8")


def test_the_export_has_every_learner_with_their_sum(graded, gradebook):
    with open(graded.root / "grades.csv", encoding="utf-8") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    sums = {learner: sum(scores.values()) for learner, scores in gradebook.items()}
    assert {learner: float(row["score"]) for learner, row in rows.items()} == sums
    assert {float(row["max_score"]) for row in rows.values()} == {sum(map(points, NAMES))}


@pytest.mark.parametrize(("learner", "failing"), [("everything", 0), ("partly", len(NAMES) - 1)])
def test_validate_agrees_with_check(graded, learner, failing):
    said = graded.nbgrader("validate", notebook_file(graded.root / "submitted" / learner))
    if failing:
        assert re.search(rf"VALIDATION\s+FAILED ON {failing} CELL", said), said
        assert said.count("The following cell failed") == failing
    else:
        assert "Success! Your notebook passes all the tests." in said


# ------------------------------------------------------------------------- the same by clicks, in a browser


@pytest.fixture(scope="module")
def formgrader(graded):
    """From a page of formgrader to its address, as `jupyter lab` serves it."""
    runtime = graded.root.parent / "runtime"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.port=0", "--allow-root"]
    env = graded.env | {"JUPYTER_RUNTIME_DIR": str(runtime)}
    with running(command, graded.root, env, lambda log: next(runtime.glob("jpserver-*.json"), None)) as found:
        server = json.loads(found.read_text())
        yield lambda page: f"{server['url']}formgrader/{page}?token={server['token']}"


def clicked(page, row, sign, says):
    """Click on a sign of formgrader's in the row with this text, and read that it was done."""
    page.get_by_role("row").filter(has_text=row).locator(f".glyphicon-{sign}").click()
    done = page.locator(".modal").filter(has_text=says)
    done.get_by_role("button", name="OK").click()
    done.wait_for(state="detached")


@pytest.mark.browser
def test_an_instructor_releases_grades_comments_and_gives_feedback_in_formgrader(browser, graded, formgrader):
    full = sum(map(points, NAMES))
    graded.hand_in("late", nbformat.read(notebook_file(graded.root / "submitted" / "nothing"), as_version=4))
    page = new_page(browser, viewport={"width": 1280, "height": 900})
    page.goto(formgrader("manage_assignments"))
    clicked(page, ASSIGNMENT, "remove", "Successfully unreleased")
    clicked(page, ASSIGNMENT, "cloud-upload", "Successfully released")
    assert (graded.root.parent / "exchange" / "moe" / "outbound" / ASSIGNMENT).is_dir()

    page.goto(formgrader(f"manage_submissions/{ASSIGNMENT}"))
    clicked(page, "late", "flash", "Successfully autograded")
    page.get_by_role("row").filter(has_text="late").get_by_text(f"0 / {full}").wait_for()
    photograph(page, "formgrader")

    page.goto(formgrader(f"gradebook/{ASSIGNMENT}/{ASSIGNMENT}"))
    page.get_by_text(f"{full} / {full}").first.wait_for()
    assert page.get_by_role("link", name="Submission #").count() == len(LEARNERS) + 1
    with Gradebook(f"sqlite:///{graded.root / 'gradebook.db'}") as book:
        submission = book.find_submission_notebook(ASSIGNMENT, ASSIGNMENT, "partly").id
    with page.expect_response("**/formgrader/api/comments?*"):
        page.goto(formgrader(f"submissions/{submission}"))
    page.get_by_text("swiglu_ffn: passed").first.wait_for()
    comment = page.locator("#swiglu_ffn-comment")
    comment.fill("Well done: no loop!")
    with page.expect_response(lambda reply: reply.request.method == "PUT" and "/api/comment/" in reply.url):
        comment.blur()

    page.goto(formgrader(f"manage_submissions/{ASSIGNMENT}"))
    clicked(page, "partly", "comment", "Successfully generated feedback")
    page.goto((graded.root / "feedback" / "partly" / ASSIGNMENT / f"{ASSIGNMENT}.html").as_uri())
    page.get_by_text("Well done: no loop!").wait_for()
    photograph(page, "feedback")
    assert barriers(page, context="table") == []  # the rubrics: the rest of the page is nbgrader's
    page.close()
