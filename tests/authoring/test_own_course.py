"""A course of one's own, made of the very lines that docs/instructors.md shows."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from stock_nbgrader import Course, cell_of, jupyter_env, notebook_file
from synthetic import ROOT, answer, check, code, text, write

from moe_course.authoring import course as own_course
from moe_course.grading.exercises import custom_course
from moe_course.grading.exercises.rubric import points

MINE = "12_temperature"
TAKEN = "01_dense_ffn"
RIGHT = "return torch.softmax(logits_TE / temperature, dim=-1)"
WRONG = "return torch.softmax(logits_TE, dim=-1) / temperature"
SCRIPT = "<script>fetch('/formgrader/api/grade/1')</script>"
FROM_EXCHANGE = ("early", "late")
OTHERS = [f"learner-{n:02}" for n in range(28)]  # every fourth answers wrongly, every fourth not at all


def shown_in_the_guide():
    """{file: text} of the code blocks whose first line is the name of a file."""
    guide = (ROOT / "docs" / "instructors.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:python|toml)\n# (\S+\w)\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    return dict(blocks)


def cells_in_the_guide():
    """{id: text} of the cells of the own notebook."""
    guide = (ROOT / "docs" / "instructors.md").read_text(encoding="utf-8")
    return dict(
        re.findall(rf"^```python\n# {MINE}.ipynb: (\S+)\n(.*?)\n^```$", guide, re.MULTILINE | re.DOTALL)
    )


def commands_in_the_guide():
    """The nbgrader commands for the own notebook, in their order."""
    guide = (ROOT / "docs" / "instructors.md").read_text(encoding="utf-8")
    block = re.search(
        rf"^```\n(nbgrader generate_assignment {MINE} .*?)^```$", guide, re.MULTILINE | re.DOTALL
    )
    return [line.split()[1:] for line in block[1].splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The course folder as the guide has it."""
    target = tmp_path_factory.mktemp("own") / "moe-2027"
    own_course.update(ROOT, target)
    shown = shown_in_the_guide()
    assert shown.keys() == {"nbgrader_config.py", "course.toml", *(f for f in shown if f.endswith("py"))}
    config = target / "nbgrader_config.py"
    config.write_text(config.read_text(encoding="utf-8") + shown.pop("nbgrader_config.py"), encoding="utf-8")
    for name, words in shown.items():
        (target / name).write_text(words, encoding="utf-8")
    shutil.rmtree(target / "solutions")
    own_course.update(ROOT, target)
    cells = cells_in_the_guide()
    assert list(cells) == ["set-up", "temperature_probs", "check_temperature_probs"]
    stub = answer("temperature_probs")
    stub.source = cells["temperature_probs"]
    assert RIGHT in stub.source
    tests = check("temperature_probs", 4, cells["check_temperature_probs"])
    write(notebook_file(target / "solutions", MINE), code("set-up", cells["set-up"]), stub, tests)
    return target


def handed_in(folder, student, name, notebook, day=None):
    """Lay a submission where nbgrader looks for it; with `day`, as the exchange does."""
    path = notebook_file(folder / "submitted" / student, name)
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)
    if day is not None:
        (path.parent / "timestamp.txt").write_text(f"{day} 12:00:00 UTC")
        (path.parent / "submission_secret.txt").write_text(f"secret of {student}")


def answered(folder, n):
    """The own notebook as learner n hands it in: right, without metadata, wrong or untouched."""
    notebook = nbformat.read(notebook_file(folder / "notebooks", MINE), as_version=4)
    cell = cell_of(notebook, "temperature_probs")
    cell.source = cell.source.replace(
        "raise NotImplementedError  # your code here",
        [RIGHT, RIGHT, WRONG, "raise NotImplementedError"][n % 4],
    )
    for cell in notebook.cells if n % 4 == 1 else ():
        cell.metadata = {}
    if n == 0:
        notebook.cells.append(text("note", SCRIPT))
    return notebook


def command(folder, *words):
    """moe-course with this course folder; a process of its own, since the exercises are read at import."""
    return subprocess.run(
        [sys.executable, "-m", "moe_course.command.cli", *map(str, words)],
        env={**os.environ, custom_course.VARIABLE: str(folder)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_points_and_practice_are_in_the_notebook(folder):
    notebook = nbformat.read(notebook_file(folder / "solutions", TAKEN), as_version=4)
    assert cell_of(notebook, "check_swiglu_ffn").metadata.nbgrader.points == 20
    assert cell_of(notebook, "check_ffn_params").metadata.nbgrader.points == points("ffn_params")
    practice = next(cell for cell in notebook.cells if cell.source == "check(ffn_flops)")
    assert "nbgrader" not in practice.metadata
    assert {path.name for path in (folder / "solutions").iterdir()} == {TAKEN, MINE}


def test_an_edited_notebook_is_kept(folder, tmp_path):
    copied = tmp_path / "course"
    shutil.copytree(folder, copied)
    path = notebook_file(copied / "solutions", TAKEN)
    edited = path.read_text(encoding="utf-8").replace("dense FFN", "dense layer")
    path.write_text(edited, encoding="utf-8")
    said = own_course.update(ROOT, copied)
    assert any("as it was" in line for line in said)
    assert (copied / "backups" / f"{TAKEN}-1.ipynb").read_text(encoding="utf-8") == edited
    assert own_course.update(ROOT, copied) == []


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "nbgrader_config.py").write_text("c = get_config()  # mine")
    with pytest.raises(ValueError, match="is not empty"):
        own_course.update(ROOT, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["nbgrader_config.py"]
    assert "mine" in (tmp_path / "nbgrader_config.py").read_text()


def test_a_bundle_needs_released_notebooks(folder, tmp_path):
    bare = tmp_path / "course"
    shutil.copytree(folder, bare, ignore=shutil.ignore_patterns("notebooks"))
    said = command(bare, "bundle", tmp_path / "handout")
    assert said.returncode == 2
    assert "generate_assignment" in said.stderr
    assert not (tmp_path / "handout").exists()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("notebooks = [", "course.toml"),
        ("note = 3", "note = 3"),
        ("[points]\nffn_params = -1", "ffn_params = -1"),
        ("[points]\nffn_parms = 1", "ffn_parms"),
        ('[[exercise]]\nnumber = "12.1"', "an exercise needs number, notebook, parts"),
        ('[[exercise]]\nnumber = "1"\nnotebook = "12_x"\nparts = ["ffn_params"]', "the name of another"),
    ],
)
def test_a_mistake_in_course_toml_is_named(tmp_path, text, complaint):
    (tmp_path / custom_course.FILE).write_text(text, encoding="utf-8")
    said = command(tmp_path, "check", "--help" if "help" in text else ROOT / "README.md")
    assert said.returncode != 0
    assert complaint in said.stderr


def test_own_exercise_and_own_hidden_test_are_graded(folder, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def temperature_probs(logits_TE, temperature):\n    return logits_TE.softmax(-1) / temperature\n"
        "def ffn_params(d_model, d_ff):\n    return 3 * d_model * d_ff if d_ff != 131 else 0\n"
    )
    said = command(folder, "check", file, "--json")
    verdicts = {found["exercise"]: found for found in map(json.loads, said.stdout.splitlines())}
    assert verdicts["temperature_probs"]["status"] == "failed"
    assert verdicts["temperature_probs"]["max_score"] == 4
    (hidden,) = [line for line in verdicts["ffn_params"]["checks"] if line["hidden"]]
    assert (hidden["name"], hidden["status"]) == ("exam", "failed")
    assert all(line["status"] == "passed" for line in verdicts["ffn_params"]["checks"] if line != hidden)


@pytest.fixture(scope="module")
def graded(needs_sandbox, folder, tmp_path_factory):
    """The course folder after nbgrader and moe-course grade have graded two learners, one of them late."""
    base = tmp_path_factory.mktemp("own-graded")
    course = Course(folder, base / "learner", jupyter_env(base / "home", base / "exchange"))
    release, *rest = commands_in_the_guide()
    course.nbgrader("generate_assignment", TAKEN, "--force")
    course.nbgrader(*release)
    for name in (TAKEN, MINE):
        solved = nbformat.read(notebook_file(folder / "solutions", name), as_version=4)
        for student, day in zip(FROM_EXCHANGE, ("2027-03-01", "2027-03-03"), strict=True):
            handed_in(folder, student, name, solved, day)
    for n, student in enumerate(OTHERS):
        handed_in(folder, student, MINE, answered(folder, n))
    course.nbgrader("db", "assignment", "add", MINE, "--duedate=2027-03-01 23:59:00 UTC")
    course.nbgrader("autograde", TAKEN)
    course.said = {command[0]: course.nbgrader(*command) for command in rest}
    return course


@pytest.mark.slow
def test_nbgrader_grades_the_course(graded):
    with open(graded.root / "grades.csv", encoding="utf-8") as file:
        rows = {(row["student_id"], row["assignment"]): row for row in csv.DictReader(file)}
    full = sum(map(points, ("ffn_params", "moe_ffn_params", "model_params", "active_matched_d_ff"))) + 20
    early, late = rows["early", TAKEN], rows["late", MINE]
    assert (float(early["score"]), float(early["max_score"])) == (full, full)
    assert float(rows["early", MINE]["score"]) == 4
    assert (float(late["raw_score"]), float(late["late_submission_penalty"])) == (4, pytest.approx(0.8))


@pytest.mark.slow
def test_thirty_learners_get_what_their_answers_are_worth(graded):
    with open(graded.root / "grades.csv", encoding="utf-8") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file) if row["assignment"] == MINE}
    assert len(rows) == 30
    assert {student: float(rows[student]["raw_score"]) for student in OTHERS} == {
        student: [4, 4, 0, 0][n % 4] for n, student in enumerate(OTHERS)
    }


@pytest.mark.slow
def test_feedback_reaches_the_exchange_and_the_others_are_named(graded):
    released = list((graded.learner.parent / "exchange").rglob("feedback/*.html"))
    assert len(released) == len(FROM_EXCHANGE)
    assert all(
        str(graded.root / "feedback" / student) in graded.said["release_feedback"] for student in OTHERS
    )
    assert not any(
        str(graded.root / "feedback" / student) in graded.said["release_feedback"]
        for student in FROM_EXCHANGE
    )
    page = (graded.root / "feedback" / OTHERS[0] / MINE / f"{MINE}.html").read_text(encoding="utf-8")
    assert SCRIPT not in page
    assert "/formgrader/api/grade/1" in page
    assert SCRIPT in notebook_file(graded.root / "submitted" / OTHERS[0], MINE).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_command_gives_the_same_points(graded, tmp_path):
    said = command(graded.root, "grade", graded.root / "submitted", "--out", tmp_path / "out")
    assert said.returncode == 0, said.stdout + said.stderr
    with open(tmp_path / "out" / "grades.csv", encoding="utf-8-sig") as file:
        early = next(row for row in csv.DictReader(file) if row["student"] == "early")
    assert float(early["swiglu_ffn"]) == 20
    assert float(early["ffn_flops"]) == 0
    assert float(early["temperature_probs"]) == 4
    assert early["total"] == early["maximum"]


@pytest.mark.slow
def test_learners_check_an_own_exercise_in_the_bundle(graded, tmp_path):
    """The bundle has the own notebook and grader, not the answer, and not the own hidden tests."""
    handout = tmp_path / "handout"
    said = command(graded.root, "bundle", handout)
    assert said.returncode == 0, said.stdout + said.stderr
    assert notebook_file(handout / "notebooks", MINE).is_file()
    texts = [path.read_bytes() for path in handout.rglob("*") if path.is_file()]
    assert not any(RIGHT.encode() in text or b"the sizes of our exam" in text for text in texts)

    mine = tmp_path / "mine.py"
    mine.write_text("def temperature_probs(logits_TE, temperature):\n    return logits_TE.softmax(-1)\n")
    env = {name: value for name, value in os.environ.items() if name != custom_course.VARIABLE}
    check = [sys.executable, "-m", "moe_course.command.cli", "check", mine, "--json"]
    said = subprocess.run(
        check, env={**env, "PYTHONPATH": str(handout)}, cwd=handout, capture_output=True, text=True
    )
    (verdict,) = map(json.loads, said.stdout.splitlines())
    assert (verdict["exercise"], verdict["status"]) == ("temperature_probs", "failed")
