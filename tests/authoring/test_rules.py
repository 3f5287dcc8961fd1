"""The rules of a notebook: one notebook that keeps them all, and for each rule a change that breaks it."""

import re
from pathlib import Path

import nbformat
import pytest
from synthetic import answer, check, code, text, write

from moe_course import viz
from moe_course.authoring import promises, rules
from moe_course.authoring.rules import figure_functions, release_problems, source_problems
from moe_course.grading.exercises.registry import Exercise

ROOT = Path(__file__).resolve().parents[2]
EXERCISES = (
    Exercise("9.1", "09_topic", "moe_course.moe.router", ("pack",)),
    Exercise("9.2", "09_topic", "moe_course.moe.router", ("fold", "unfold")),
)
POINTS = {"pack": 3.0, "fold": 5.0}
CLOSING = "\n## Recap\n\n## What not to conclude\n\n## Going deeper\n\n## References"
RUNGS = {"A nudge": "Which axis?", "Pseudocode": "count, then sum", "The solution": "`pack`"}
LADDER = "".join(f"<details><summary>{rung}</summary>{help}</details>" for rung, help in RUNGS.items())
FIGURE = 'show(load_bars([1, 2]), alt="Two bars: the second is twice as high.")'


def good_cells():
    return [
        text("title", "# A topic\n\nWhat is it? 20 minutes."),
        code("setup", "from moe_course.viz import load_bars, show, use_style", tags=["setup"]),
        text("header-pack", "### Exercise 9.1 · `pack` ★☆☆ 5 min"),
        answer("pack"),
        check("pack", 3),
        text("help-pack", LADDER.replace("Which axis?", "word " * 300)),
        text("header-fold", "### Exercise 9.2 · `fold` ★★☆ 10 minutes"),
        answer("fold"),
        check("fold", 5, "check(fold, unfold)"),
        text("help-fold", LADDER),
        code("load-figure", FIGURE),
        text("end", CLOSING),
    ]


def problems_of(tmp_path, cells):
    path = write(tmp_path / "solutions/09_topic/09_topic.ipynb", *cells)
    return [(problem.cell, problem.text) for problem in source_problems(path, EXERCISES, POINTS)]


@pytest.fixture(autouse=True)
def drawing(monkeypatch):
    """Which functions draw, as if moe_course.viz had but one."""
    monkeypatch.setattr(rules, "figure_functions", lambda: {"load_bars", "subplots"})


def test_a_good_notebook_has_no_problem(tmp_path):
    assert problems_of(tmp_path, good_cells()) == []


def put(cell_id, source):
    """Replace the text of a cell."""

    def change(cells):
        next(cell for cell in cells if cell.id == cell_id).source = source

    return change


def mark(cell_id, **marks):
    """Change a cell's nbgrader metadata."""

    def change(cells):
        next(cell for cell in cells if cell.id == cell_id).metadata.nbgrader.update(marks)

    return change


def rename(cell_id, to):
    def change(cells):
        next(cell for cell in cells if cell.id == cell_id).id = to

    return change


def insert(place, cell):
    return lambda cells: cells.insert(place, cell)


def more_code(cells):
    cells.extend(code(f"long-{letter}", "x = 1\n" * 9) for letter in "abcdefg")


def more_words(cells):
    for cell in cells:
        cell.source += " word" * 70 if cell.cell_type == "markdown" else ""


def with_output(cells):
    cells[1].execution_count = 1


def untagged(cells):
    cells[1].metadata.tags = []


BREAKS = {
    "random id": (rename("load-figure", "3f2a1b9c"), "3f2a1b9c", "not a readable name"),
    "an id with capitals": (rename("load-figure", "Figure"), "Figure", "not a readable name"),
    "id and grade_id": (rename("pack", "pack-it"), "pack-it", "differs from its grade_id pack"),
    "execution count": (with_output, "setup", "execution count"),
    "long cell": (put("load-figure", f"{FIGURE}\n" + "x = 1\n" * 35), "load-figure", "36 lines of code"),
    "long median": (more_code, "", "median of its code"),
    "wordy": (more_words, "", "median of its text"),
    "pip": (put("load-figure", "!pip install torch"), "load-figure", "a shell command"),
    "cd": (put("load-figure", "%cd work"), "load-figure", "an IPython magic"),
    "download": (put("load-figure", "torch.hub.load('a', 'b')"), "load-figure", "a download"),
    "machine path": (put("load-figure", "open('/home/ada/x')"), "load-figure", "one machine: /home/a"),
    "no alt": (put("load-figure", "show(load_bars([1]))"), "load-figure", "without an alt text"),
    "empty alt": (put("load-figure", 'show(load_bars([1]), alt=" ")'), "load-figure", "without an alt text"),
    "drawn, not shown": (put("load-figure", "load_bars([1])"), "load-figure", "does not show"),
    "drawn by hand": (put("load-figure", "fig, ax = plt.subplots()"), "load-figure", "does not show"),
    "drawn through viz": (put("load-figure", "viz.load_bars([1])"), "load-figure", "does not show"),
    "no Python": (put("load-figure", "x = ("), "load-figure", "is not Python"),
    "no set-up": (untagged, "", "here 0 are"),
    "late set-up": (insert(1, code("early")), "", "first code cell alone is tagged setup"),
    "long set-up": (put("setup", "x = 1\n" * 13), "setup", "more than 12 lines"),
    "no title": (put("title", "A topic? 20 min"), "", "does not open with a title"),
    "no question": (put("title", "# A topic\n\n20 min"), "", "asks no question"),
    "no minutes": (put("title", "# A topic?"), "", "how long it takes"),
    "no section": (put("end", "## Recap\n\n## Going deeper\n\n## References"), "", "“What not to conclude”"),
    "foreign grade cell": (insert(2, check("other", 1)), "check_other", "of no exercise"),
    "not a solution": (mark("pack", solution=False, locked=True), "pack", "not marked as a solution cell"),
    "solution and grade": (mark("pack", grade=True), "pack", "not marked as a solution cell"),
    "unlocked": (mark("check_pack", locked=False), "check_pack", "not marked as a locked grade cell"),
    "far away": (insert(4, text("between")), "pack", "not followed by a cell with check(pack) alone"),
    "points": (mark("check_pack", points=4), "check_pack", "gives 4 points, its grader 3"),
    "half a check": (put("check_fold", "check(fold)"), "fold", "cell with check(fold, unfold) alone"),
    "no end": (put("pack", "def pack(x):\n    ### BEGIN SOLUTION\n    return 1"), "pack", "do not pair up"),
    "no markers": (put("pack", "def pack(x):\n    return 1"), "pack", "marks no answer"),
    "answer elsewhere": (put("end", "BEGIN SOLUTION\nEND SOLUTION" + CLOSING), "end", "outside"),
    "no stars": (put("header-pack", "### 9.1 `pack` 5 min"), "pack", "its header does not say its stars"),
    "no exercise minutes": (put("header-pack", "### 9.1 `pack` ★"), "pack", "its header does not say its minutes"),
    "wrong number": (put("header-fold", "### 9.3 `fold` ★ 5 min"), "fold", "no header with 9.2 and fold"),
    "no help": (put("help-fold", "Think."), "fold", "no ladder of A nudge, Pseudocode, The solution, but none"),
    "a missing rung": (
        put("help-fold", LADDER.replace("<summary>Pseudocode", "<summary>Why?")),
        "fold",
        "but A nudge, Why?, The solution",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_each_rule_is_held(name, tmp_path):
    change, cell, words = BREAKS[name]
    cells = good_cells()
    change(cells)
    found = problems_of(tmp_path, cells)
    assert any(where == cell and words in said for where, said in found), found
    assert {where for where, _ in found} == {cell}, found


def test_the_file_has_its_folders_name_and_nbformats_layout(tmp_path):
    path = write(tmp_path / "solutions/09_topic/other.ipynb", *good_cells())
    path.write_text(path.read_text() + "\n")
    texts = [problem.text for problem in source_problems(path, EXERCISES, POINTS)]
    assert any("09_topic.ipynb" in text for text in texts)
    assert any("layout" in text for text in texts)


def test_missing_cells_are_named(tmp_path):
    cells = [cell for cell in good_cells() if cell.id not in ("fold", "check_pack")]
    found = problems_of(tmp_path, cells)
    assert ("", "has no nbgrader cell fold") in found
    assert ("", "has no nbgrader cell check_pack") in found
    assert ("pack", "is not followed by a cell with check(pack) alone") in found


@pytest.mark.filterwarnings("ignore:Non-unique cell id")
def test_an_id_given_twice_is_found(tmp_path):
    path = write(tmp_path / "solutions/09_topic/09_topic.ipynb", *good_cells())
    path.write_text(path.read_text().replace('"id": "help-fold"', '"id": "help-pack"'))
    texts = [problem.text for problem in source_problems(path, EXERCISES, POINTS)]
    assert any("not a readable name" in text for text in texts), texts


def test_the_figure_functions_are_those_of_viz():
    ours = figure_functions() - {"subplots", "figure", "plot"}
    assert ours
    assert all(callable(getattr(viz, name)) for name in ours if not name.startswith("_"))


def test_an_ungraded_exercise_has_a_plain_check_and_no_closing_sections(tmp_path):
    warm_up = Exercise("0.1", "00_start", "moe_course.moe.router", ("pack",))
    cells = [*good_cells()[:4], code("check-pack", "check(pack)"), good_cells()[5]]
    cells[2].source = cells[2].source.replace("9.1", "0.1")
    path = write(tmp_path / "solutions/00_start/00_start.ipynb", *cells)
    assert source_problems(path, (warm_up,), {}) == []


@pytest.fixture
def pair(tmp_path):
    """A release and its source."""
    stub = answer("pack")
    stub.source = "def pack(x):\n    raise NotImplementedError"
    source = write(tmp_path / "solutions/09_topic/09_topic.ipynb", text("title"), answer("pack"))
    return write(tmp_path / "notebooks/09_topic/09_topic.ipynb", text("title"), stub), source


def test_a_clean_release_has_no_problem(pair):
    assert release_problems(*pair) == []


@pytest.mark.parametrize(
    ("cell", "source", "words"),
    [
        (1, "def pack(x):\n    ### BEGIN SOLUTION", "a marker"),
        (0, "Try `return x + 1  # a long enough line of an answer`.", "a line of an answer"),
    ],
)
def test_a_leak_is_found(pair, cell, source, words):
    released = nbformat.read(pair[0], as_version=4)
    released.cells[cell].source = source
    nbformat.write(released, pair[0])
    assert [words in problem.text for problem in release_problems(*pair)] == [True]


def test_lost_cells_and_outputs_are_found(pair):
    released = nbformat.read(pair[0], as_version=4)
    released.cells[1].execution_count = 4
    del released.cells[0]
    nbformat.write(released, pair[0])
    texts = [str(problem) for problem in release_problems(*pair)]
    assert texts[0] == "notebooks/09_topic/09_topic.ipynb: its cells are not those of its source"
    assert texts[1].startswith("notebooks/09_topic/09_topic.ipynb: cell pack: has outputs")


COMMON = "Here we speak of what returns, the gradient and its subject."
BOOKS = {
    "01_one": "",
    "02_two": f"{COMMON} Phrenology!",
    "03_three": COMMON,
    "04_four": COMMON,
    "05_five": COMMON,
}


@pytest.mark.parametrize(
    ("promise", "wrong"),
    [
        ("In notebook 02 we speak of phrenology.", []),
        ("In notebook 03 we speak of phrenology.", ["notebook 03 never speaks of phreno"]),
        ("In notebooks 02 and 03 we speak of phrenology.", ["notebook 03 never speaks of phreno"]),
        ("Phrenology, in notebook 02, to come.", ["notebook 02 is called “to come”, and is there"]),
        ("Phrenology is the subject of notebook 17.", ["there is no notebook 17"]),
        ("The gradient returns in notebook 03.", []),
    ],
)
def test_promises_are_kept(promise, wrong):
    books = {
        name: nbformat.v4.new_notebook(cells=[text("only", source)])
        for name, source in (BOOKS | {"01_one": promise}).items()
    }
    assert [found for _, _, found in promises.broken(books)] == wrong


def test_the_last_rung_leads_somewhere_without_the_solutions():
    """The student bundle has no solutions/: the library's version is named, and it is where the rung says."""
    for path in sorted((ROOT / "solutions").glob("*/*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for rung in re.findall(
                r"<summary>The solution</summary>\s*(.*?)\s*</details>", cell.source, re.DOTALL
            ):
                named = re.match(r"`(\w+)` in `(moe_course/[\w/]+\.py)`", rung)
                assert named, (path.stem, cell.id, rung)
                name, home = named.groups()
                assert re.search(
                    rf"^(def|class) {name}\b", (ROOT / home).read_text(encoding="utf-8"), re.MULTILINE
                ), rung
