"""What a person sees: a learner's notebook in JupyterLab, and the instructor's formgrader, in a real browser."""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import nbformat
import pytest
from cohorts import crowd
from stock_nbgrader import ASSIGNMENT, NAMES, cell_of, jupyter_env, notebook_file
from synthetic import ROOT

from moe_course.grading.cohort.page import page as instructors_page
from moe_course.grading.exercises.registry import exercises_of
from moe_course.grading.exercises.rubric import hidden_points, points
from moe_course.lesson.handing_out import start

pytestmark = pytest.mark.browser
MINUTE = 60_000  # milliseconds, as playwright counts
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # cells out of sight are in the page as well
    "apputils-extension/notification": {"fetchNews": "false"},  # no question about news over the notebook
}


@contextmanager
def jupyterlab(folder, env):
    """JupyterLab on a folder; yields a function from a path to its address. Its log lies beside the folder."""
    for name, setting in SETTINGS.items():
        path = f"{env['JUPYTER_CONFIG_DIR']}/lab/user-settings/@jupyterlab/{name}.jupyterlab-settings"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            json.dump(setting, file)
    runtime = folder.parent / "runtime"
    token = secrets.token_hex(16)
    with open(folder.parent / "jupyterlab.log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.port=0", "--allow-root"],
            cwd=folder,
            env={**env, "JUPYTER_RUNTIME_DIR": str(runtime), "JUPYTER_TOKEN": token},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            while not (found := list(runtime.glob("jpserver-*.json"))):
                assert server.poll() is None, (folder.parent / "jupyterlab.log").read_text()
                time.sleep(0.2)
            address = json.loads(found[0].read_text())["url"]
            yield lambda path: f"{address}{path}?token={token}"
        finally:
            server.terminate()
            server.wait()


def test_a_learner_runs_the_notebook_reads_rubrics_and_validates(browser, tmp_path):
    notebook = "02_topk_routing"
    first, *others = (exercise.name for exercise in exercises_of(notebook))
    work = tmp_path / "course" / "work"
    start(ROOT / "notebooks", work)
    shutil.copy(ROOT / "nbgrader_config.py", tmp_path / "course")  # as `make lab` starts it
    mine = nbformat.read(notebook_file(work, notebook), as_version=4)
    solved = nbformat.read(notebook_file(ROOT / "solutions", notebook), as_version=4)
    cell_of(mine, first).source = cell_of(solved, first).source
    nbformat.write(mine, notebook_file(work, notebook))

    with jupyterlab(tmp_path / "course", jupyter_env(tmp_path / "home", tmp_path / "exchange")) as url:
        page = browser.new_page()
        page.goto(url(f"lab/tree/work/{notebook}/{notebook}.ipynb"))
        page.get_by_text("| Idle").wait_for(timeout=MINUTE)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        rubrics = page.locator(".jp-RenderedHTML:has(table)")
        errors = page.locator("[data-mime-type='application/vnd.jupyter.stderr']")
        rubrics.filter(has_text=f" {others[-1]}:").or_(errors).first.wait_for(timeout=5 * MINUTE)
        assert errors.all_inner_texts() == []
        seen = points(first) - hidden_points(first)
        rubric = rubrics.filter(has_text=f" {first}:").inner_text()
        assert f"{first}: passed, all {seen} visible points" in rubric
        for name in others:
            assert f"{name}: not attempted" in rubrics.filter(has_text=f" {name}:").inner_text()

        page.get_by_text("| Idle").wait_for(timeout=5 * MINUTE)
        page.get_by_role("button", name="Validate").click()
        said = page.locator(".jp-Dialog", has_text="Validation Results")
        said.wait_for(timeout=5 * MINUTE)
        text = said.inner_text()
        assert re.findall(r"check\((\w+)\)", text) == others, text
        page.close()


def test_an_instructor_sees_the_scores_in_formgrader(browser, graded):
    with jupyterlab(graded.root, graded.env) as url:
        page = browser.new_page()
        page.goto(url("formgrader"))
        page.get_by_role("link", name=ASSIGNMENT).wait_for(timeout=MINUTE)
        page.goto(url(f"formgrader/gradebook/{ASSIGNMENT}/{ASSIGNMENT}"))
        full = sum(map(points, NAMES))
        page.get_by_text(f"{full} / {full}").first.wait_for(timeout=MINUTE)
        assert page.get_by_role("link", name="Submission #").count() == 3
        untouched = page.get_by_role("row").filter(has_text=re.compile(rf"(?<!\d)0 / {full}"))
        untouched.get_by_role("link", name="Submission #").click()
        page.get_by_text(f"{NAMES[0]}: not attempted").first.wait_for(timeout=MINUTE)
        page.close()


# For every piece of text that is shown: its contrast with the background behind it, as WCAG 2.2 defines it.
CONTRASTS = """() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = node => {
    const colour = channels(getComputedStyle(node).backgroundColor);
    return colour[3] !== 0 ? colour : node.parentElement ? behind(node.parentElement) : [255, 255, 255];
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !node.checkVisibility()) continue;
    const style = getComputedStyle(node);
    const ink = channels(node.closest("svg") ? style.fill : style.color);
    const [low, high] = [luminance(ink), luminance(behind(node))].sort((a, b) => a - b);
    found.push([(high + 0.05) / (low + 0.05), node.textContent]);
  }
  return found;
}"""


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
    page = browser.new_page(viewport={"width": width, "height": 800})
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
    if medium == "print":
        assert page.pdf(format="A4").startswith(b"%PDF")
    page.close()
