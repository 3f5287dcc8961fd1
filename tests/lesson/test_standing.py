"""Progress: what has passed, and the time that is left by the times that notebooks state."""

import json

import pytest
from synthetic import answer, check, text, write

from moe_course.command.cli import main
from moe_course.grading.exercises import stated
from moe_course.grading.exercises.registry import EXERCISES, NOTEBOOKS, exercises_of
from moe_course.lesson import standing, workspace
from moe_course.lesson.standing import as_html, as_text, standings

NOTEBOOK, FIRST, SECOND = "02_topk_routing", "router_probs", "top_k_gate"
TITLE = "# Routing\n\n| | |\n|---|---|\n| Time | about 2½ hours, 20 minutes of it for the 2 exercises |"


def stub(name):
    cell = answer(name)
    cell.source = f"def {name}(x):\n    raise NotImplementedError"
    return cell


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A work folder of one notebook with two exercises of 15 and 5 minutes, neither of them written."""
    cells = [text("title", TITLE)]
    for name, number, minutes in ((FIRST, "2.1", 15), (SECOND, "2.2", 5)):
        cells += [text(f"ex-{name}", f"### Exercise {number} · `{name}` ★☆☆ · {minutes} minutes"), stub(name)]
        cells += [check(name, 8)]
    for folder in (NOTEBOOK, ".moe-course/base"):
        write(tmp_path / "work" / folder / f"{NOTEBOOK}.ipynb", *cells)
    monkeypatch.chdir(tmp_path / "work" / NOTEBOOK)
    return tmp_path / "work"


def solve(work, name):
    """Write an answer and pass its check."""
    path = work / NOTEBOOK / f"{NOTEBOOK}.ipynb"
    source = f"def {name}(x):\n    return x"
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        if cell["id"] == name:
            cell["source"] = source
    path.write_text(json.dumps(notebook))
    workspace.record(
        {"exercise": name, "status": "passed", "score": 8.0, "max_score": 8.0},
        {name: source},
        work / NOTEBOOK,
    )


def here(work):
    return next(one for one in standings(work) if one.notebook == NOTEBOOK)


def test_the_time_left_is_the_share_of_the_exercises_that_are_open(work):
    assert (here(work).passed, here(work).minutes, here(work).left) == ((), 150, 150)
    solve(work, FIRST)
    assert [exercise.name for exercise in here(work).passed] == [FIRST]
    assert here(work).left == round(150 * 5 / 20)
    solve(work, SECOND)
    assert here(work).left == 0


def test_a_terminal_sees_bars_hours_and_what_comes_next(work, capsys):
    solve(work, FIRST)
    assert main(["progress", str(work)]) == 0
    said = capsys.readouterr().out
    assert said == as_text(work) + "\n"
    line = next(line for line in said.splitlines() if line.startswith(NOTEBOOK))
    assert line.count("█") == standing.BAR // len(exercises_of(NOTEBOOK))
    assert line.endswith("38 min left")
    assert f"1 of {len(EXERCISES)} exercises passed" in said
    assert "Next: 0.1 tokens_per_expert in 00_start_here" in said
    assert len(said.splitlines()) == len(NOTEBOOKS) + 3


def test_a_notebook_sees_the_same_as_a_table(work, monkeypatch):
    solve(work, FIRST)
    markup = as_html(work)
    assert markup.count("<progress ") == len(NOTEBOOKS)
    assert f'aria-label="{NOTEBOOK}" value="1" max="7"' in markup
    shown = []
    monkeypatch.setattr("moe_course.viz.style.publish", lambda *said: shown.append(said))
    standing.show()
    assert shown == [(markup, as_text(work))]
    monkeypatch.chdir(work.parent)
    standing.show()
    assert "is not in a work folder" in shown[1][1]


def test_a_folder_without_notebooks_is_named(tmp_path, capsys):
    assert main(["progress", str(tmp_path)]) == 2
    assert f"there are no notebooks in {tmp_path}" in capsys.readouterr().err


def test_a_certificate_of_what_the_learner_has_passed(work, tmp_path, capsys):
    order = ["certificate", str(work), "--name", "Ada", "--html", str(tmp_path / "a.html")]
    assert main(order) == 2
    assert f"no exercise has passed yet in {work}" in capsys.readouterr().err
    solve(work, SECOND)
    assert main(order) == 0
    assert f"Ada has passed 1 of the course's {len(EXERCISES)} exercises" in capsys.readouterr().out
    assert "2.2 top_k_gate" in (tmp_path / "a.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("line", "minutes"),
    [
        ("| Time | about 2½ hours, 20 minutes of it for the 2 exercises |", 150),
        ("| Time | about 1 hour, 9 minutes of it for the 3 exercises |", 60),
        ("| Time | about 20 minutes; its practice points count for nothing |", 20),
        ("It takes about 2 hours.", 0),
    ],
)
def test_the_reading_of_a_stated_time(line, minutes):
    assert stated.minutes(f"# Title\n\n{line}\n| x | y |") == minutes
