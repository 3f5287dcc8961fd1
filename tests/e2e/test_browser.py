"""What a person sees in a real browser: a learner's JupyterLab, and the pages that the course writes."""

import json
import re
import shutil
import sys
from types import SimpleNamespace

import matplotlib
import nbformat
import pytest
from browsing import PATIENCE, barriers, new_page, photograph, running
from cohorts import crowd, record, verdict
from contrast import CONTRASTS
from stock_nbgrader import ASSIGNMENT, NAMES, cell_of, jupyter_env, notebook_file
from synthetic import ROOT

from moe_course.command.cli import main
from moe_course.grading.cohort.feedback import page as feedback_page
from moe_course.grading.cohort.page import page as instructors_page
from moe_course.grading.exercises.rubric import hidden_points, points
from moe_course.lesson import card

pytestmark = pytest.mark.browser
NOTEBOOK, EXERCISE = "02_topk_routing", "top_k_gate"
ERRORS = ", ".join(f"[data-mime-type='application/vnd.jupyter.{kind}']" for kind in ("stderr", "error"))
MAKE_LAB = """
import sys; from pathlib import Path; from moe_course.command import launch
sys.exit(launch.lab(Path(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab as `make lab` starts it, for somebody who has never used Jupyter: `root`, `env`, `address`."""
    base = tmp_path_factory.mktemp("lab")
    root, env = base / "course", jupyter_env(base / "home", base / "exchange")
    env |= {"CI": "true", "MPLCONFIGDIR": matplotlib.get_cachedir()}  # fonts are searched for once, not here
    root.mkdir()
    shutil.copy(ROOT / "nbgrader_config.py", root)
    tracker = (
        base / "home/config/lab/user-settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings"
    )
    tracker.parent.mkdir(parents=True)
    tracker.write_text(json.dumps({"windowingMode": "none"}))  # cells out of sight are in the page as well
    command = [sys.executable, "-c", MAKE_LAB, str(root)]
    with running(command, root, env, ready=lambda log: re.search(r"http://\S+token=\w+", log)) as found:
        yield SimpleNamespace(root=root, env=env, address=found[0])


class Notebook:
    """A notebook of the learner's in JupyterLab, whose cells go by their ids."""

    def __init__(self, browser, lab, name):
        from playwright.sync_api import expect

        self.expect, self.runs = expect, 0
        file = notebook_file(lab.root / "work", name)
        self.order = [cell.id for cell in nbformat.read(file, as_version=4).cells]
        self.page = new_page(browser, viewport={"width": 1280, "height": 860})
        self.page.goto(re.sub(r"work/.*ipynb", file.relative_to(lab.root).as_posix(), lab.address))
        self.panel = self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
        self.expect(self.panel.locator(".jp-Cell")).to_have_count(len(self.order), timeout=PATIENCE)
        self.page.get_by_text("| Idle").wait_for()

    def cell(self, name):
        return self.panel.locator(".jp-Cell").nth(self.order.index(name))

    def write(self, name, code):
        """Put code into a cell in place of what is there, and run it."""
        self.cell(name).locator(".cm-content").click()
        self.page.keyboard.press("ControlOrMeta+A")
        self.page.keyboard.insert_text(code)
        return self.run(name)

    def run(self, name):
        """Run a cell and wait for its end; returns what it shows."""
        cell = self.cell(name)
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")
        self.runs += 1
        prompt = cell.locator(".jp-InputPrompt").first
        self.expect(prompt).to_have_text(f"[{self.runs}]:", timeout=PATIENCE)
        self.page.get_by_text("| Idle").wait_for()
        assert cell.locator(ERRORS).all_inner_texts() == []
        return cell.locator(".jp-Cell-outputArea")


def test_make_lab_opens_the_next_notebook_on_a_clean_desk(browser, lab):
    first = "00_start_here"
    notebook = Notebook(browser, lab, first)
    page = notebook.page
    assert page.locator(".jp-MainAreaWidget:not(.lm-mod-hidden) .jp-Notebook").count() == 1
    assert first in lab.address
    contents = page.locator("#table-of-contents")
    contents.get_by_text("You are the router").wait_for()
    panels = page.locator(".jp-SideBar .lm-TabBar-tab")
    assert "table-of-contents" in (names := panels.evaluate_all("tabs => tabs.map(tab => tab.dataset.id)"))
    assert not [name for name in names if "nbgrader" in name]
    page.get_by_role("menuitem", name="Nbgrader", exact=True).click()
    page.get_by_role("menuitem", name="Assignment List").wait_for()
    assert page.locator(".lm-Menu-itemLabel:visible").all_inner_texts() == ["Assignment List"]
    page.keyboard.press("Escape")
    photograph(page, "desk")
    assert page.get_by_text("Jupyter news").count() == 0
    page.close()


def test_a_learner_goes_from_a_wrong_answer_to_a_right_one_a_slider_and_the_card(browser, lab, capsys):
    solved = cell_of(nbformat.read(notebook_file(ROOT / "solutions", NOTEBOOK), as_version=4), EXERCISE)
    right = "\n".join(line for line in solved.source.splitlines() if "### " not in line)
    wrong = re.sub(r"    if renormalize:\n.*\n", "", right)
    assert wrong != right
    notebook = Notebook(browser, lab, NOTEBOOK)
    notebook.run("setup")

    notebook.write(EXERCISE, wrong)
    said = notebook.run(f"check_{EXERCISE}")
    for words in (f"{EXERCISE}: failed", "probs_TE", "expected", "got", "never renormalised. To what"):
        assert words in said.inner_text(), words
    notebook.cell(EXERCISE).evaluate("cell => cell.scrollIntoView({block: 'start'})")
    photograph(notebook.page, "check")

    notebook.write(EXERCISE, right)
    seen = points(EXERCISE) - hidden_points(EXERCISE)
    assert f"{EXERCISE}: passed, all {seen} visible points" in notebook.run(f"check_{EXERCISE}").inner_text()

    explorer = notebook.run("s2-interactive")
    explorer.get_by_alt_text("for k = 2 at temperature 1,").wait_for()
    explorer.get_by_role("slider").first.press("ArrowRight")
    explorer.get_by_alt_text("for k = 3 at temperature 1,").wait_for()
    photograph(explorer, "slider")

    for name in ("hero-lines", "symptom-train", "fix-train"):
        notebook.run(name)
    shown = notebook.run("card").inner_text()
    assert card.SECTIONS["active"][0] in shown
    assert "busiest expert" in shown
    with notebook.page.expect_response(lambda reply: reply.request.method == "PUT" and NOTEBOOK in reply.url):
        notebook.page.keyboard.press("ControlOrMeta+s")
    assert main(["status", str(lab.root / "work")]) == 0
    said = capsys.readouterr().out
    assert re.search(rf"✓ 2\.2 +{EXERCISE} +passed", said), said
    assert "Next: 0.1" in said
    assert barriers(notebook.page, context=".jp-NotebookPanel:not(.lm-mod-hidden) table") == []
    notebook.page.close()


def test_validate_names_the_exercises_that_are_open(browser, lab):
    page = Notebook(browser, lab, ASSIGNMENT).page
    page.get_by_role("button", name="Validate").click()
    said = page.locator(".jp-Dialog", has_text="Validation Results")
    said.wait_for()
    assert re.findall(r"check\((\w+)\)", said.inner_text()) == NAMES
    page.close()


# How high the content of each folded part is: 0 where it is hidden.
FOLDED = """() => [...document.querySelectorAll("details:not(.twin, [open])")]
  .map(part => part.offsetHeight - part.querySelector("summary").offsetHeight)"""


@pytest.mark.parametrize(
    ("scheme", "medium", "width"),
    [("light", "screen", 360), ("dark", "screen", 1000), ("dark", "print", 700)],
)
def test_the_instructors_page_is_legible(browser, tmp_path, scheme, medium, width):
    file = tmp_path / "report.html"
    file.write_text(instructors_page(ASSIGNMENT, crowd(40)), encoding="utf-8")
    page = new_page(browser, viewport={"width": width, "height": 800})
    page.emulate_media(media=medium, color_scheme=scheme)
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(file.as_uri())
    assert complaints == []
    assert page.get_by_text("the file is cut off").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    contrast, text = min(page.evaluate(CONTRASTS))
    assert contrast >= 4.5, text
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light" or medium == "print")
    folded = page.evaluate(FOLDED)
    assert folded
    assert all(height > 0 if medium == "print" else height == 0 for height in folded)
    assert barriers(page) == []
    photograph(page, f"report-{scheme}-{medium}")
    if medium == "print":
        assert page.pdf(format="A4").startswith(b"%PDF")
    page.close()


def a_card(folder):
    (folder / card.FILE).write_text(json.dumps({"active": {"MoE layer, total": 18432, "even": True}}))
    return card.as_page(folder)


def a_feedback_page(folder):
    wrong = verdict(status="failed", failed=["hard"], mistake="a_mistake")
    wrong["checks"][1] |= {"message": "expected 2\ngot      1", "hint": "Is that all?"}
    told = {**wrong, "feedback": {"checks": wrong["checks"], "diagnosis": wrong["diagnosis"]}}
    return feedback_page(record("Ada", verdict(), told, repairs=["setup: lost its tag: put back"]), None)


@pytest.mark.parametrize("written", [a_card, a_feedback_page])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier_on_a_learners_page(browser, tmp_path, written, scheme):
    file = tmp_path / "page.html"
    file.write_text(written(tmp_path), encoding="utf-8")
    page = new_page(browser, viewport={"width": 1000, "height": 600}, color_scheme=scheme)
    page.goto(file.as_uri())
    assert barriers(page) == []
    photograph(page, f"{written.__name__}-{scheme}")
    page.close()


def test_axe_finds_a_barrier(browser):
    page = new_page(browser)
    page.set_content('<html lang="en"><title>A page</title><p style="color: #bbb">Grey on white</p>')
    assert len(barriers(page)) == 1
    page.close()
