"""An update keeps everything that the learner wrote."""

import copy
import random

import pytest
from synthetic import answer, check, code, notebook, text

from moe_course.grading.submission.repair import repair
from moe_course.lesson.merge import merge


def stub(name, signature="x"):
    cell = answer(name)
    cell.source = f"def {name}({signature}):\n    raise NotImplementedError  # your code here"
    return cell


def released(*extra, signature="x", words="Words."):
    return notebook(text("title", "# Title"), text("why", words), stub("f", signature), check("f", 3), *extra)


def edit(book, cell_id, source):
    next(cell for cell in book.cells if cell.get("id") == cell_id).source = source


def shape(book):
    return [(cell.id, cell.source) for cell in book.cells]


BASE = released()
MINE = "def f(x):\n    return x"


@pytest.fixture
def mine():
    return copy.deepcopy(BASE)


def test_an_untouched_notebook_becomes_the_new_release(mine):
    new = released(text("end", "New end."), words="Better words.")
    merged = merge(BASE, new, mine)
    assert merged.notebook == new
    assert (merged.answers, merged.own_cells, merged.notes) == (0, 0, [])


def test_answers_and_own_cells_move_to_the_new_release(mine):
    edit(mine, "f", MINE)
    mine.cells.insert(3, code("try-it", "f(2)"))
    mine.cells.insert(4, text("note", "It works!"))
    mine.cells.insert(0, text("name", "Ada's copy"))
    new = released(text("end", "New end."), words="Better words.")
    new.cells.insert(2, text("before-f", "A new cell."))
    merged = merge(BASE, new, mine)
    assert [cell.id for cell in merged.notebook.cells] == [
        *("name", "title", "why", "before-f", "f", "try-it", "note", "check_f", "end")
    ]
    assert merged.notebook.cells[4].source == MINE
    assert merged.notebook.cells[4].metadata.nbgrader.grade_id == "f"
    assert merged.notebook.cells[2].source == "Better words."
    assert (merged.answers, merged.own_cells) == (1, 3)


def test_a_changed_signature_keeps_the_code_and_says_so(mine):
    edit(mine, "f", MINE)
    merged = merge(BASE, released(signature="x, k"), mine)
    assert merged.notebook.cells[2].source == MINE
    assert merged.notes == ["f: the exercise changed; your code is kept. `moe-course reset f` shows the new"]
    assert merge(BASE, released(signature="x, k"), BASE).notebook == released(signature="x, k")


def test_an_edit_of_course_text_stays_where_the_course_did_not_edit(mine):
    edit(mine, "why", "My words.")
    merged = merge(BASE, released(text("end")), mine)
    assert shape(merged.notebook)[1] == ("why", "My words.")


def test_where_both_edited_the_learners_cell_follows(mine):
    edit(mine, "why", "My words.")
    merged = merge(BASE, released(words="Better words."), mine)
    assert [cell.source for cell in merged.notebook.cells[1:3]] == ["Better words.", "My words."]
    assert len({cell.id for cell in merged.notebook.cells}) == 5
    assert merged.notes == ["why: the course's cell is restored, and the one you edited follows it"]


def test_an_edited_check_is_restored_and_kept_beside(mine):
    edit(mine, "check_f", "check(my_f)")
    merged = merge(BASE, released(), mine)
    assert [cell.source for cell in merged.notebook.cells[3:]] == ["check(f)", "check(my_f)"]
    assert "nbgrader" in merged.notebook.cells[3].metadata
    assert "nbgrader" not in merged.notebook.cells[4].metadata


def test_deleted_cells_come_back_and_own_cells_hold_their_place(mine):
    mine.cells[2:] = [code("own", "mine = 1")]
    merged = merge(BASE, released(), mine)
    assert [cell.id for cell in merged.notebook.cells] == ["title", "why", "own", "f", "check_f"]


def test_a_removed_exercise_leaves_its_answer_behind(mine):
    edit(mine, "f", MINE)
    merged = merge(BASE, notebook(*released().cells[:2]), mine)
    assert [cell.source for cell in merged.notebook.cells] == ["# Title", "Words.", MINE]
    assert "nbgrader" not in merged.notebook.cells[2].metadata
    assert merged.notes == ["f is no longer in the notebook; what you wrote there is kept as your own cell"]
    assert len(merge(BASE, notebook(*released().cells[:2]), BASE).notebook.cells) == 2


@pytest.mark.parametrize("kept", ["ids", "metadata", "nothing"])
def test_cells_are_recognised_without_ids_or_metadata(mine, kept):
    edit(mine, "f", MINE)
    mine.cells.append(code("own", "f(3)"))
    for cell in mine.cells:
        if kept != "metadata":
            cell.metadata = {}
        if kept != "ids":
            del cell["id"]
    new = released(text("end"))
    merged = merge(BASE, new, mine)
    assert [cell.id for cell in merged.notebook.cells[:4]] == ["title", "why", "f", "check_f"]
    assert [cell.source for cell in merged.notebook.cells[2:5]] == [MINE, "check(f)", "f(3)"]
    assert merged.notebook.cells[2].metadata == new.cells[2].metadata
    assert len(merged.notebook.cells) == 6


def test_of_copies_of_an_answer_the_last_edited_one_is_it_and_none_is_lost(mine):
    first, last = copy.deepcopy(mine.cells[2]), copy.deepcopy(mine.cells[2])
    first.source, first["id"] = "def f(x):\n    return 1", "copy-1"
    last.source, last["id"] = MINE, "copy-2"
    mine.cells[2:3] = [first, last, mine.cells[2]]
    merged = merge(BASE, released(), mine)
    assert [cell.source for cell in merged.notebook.cells[2:4]] == [first.source, MINE]
    assert [("nbgrader" in cell.metadata) for cell in merged.notebook.cells] == [
        False,
        False,
        False,
        True,
        True,
    ]
    assert merged.notebook.cells[4].source == "check(f)"  # the unedited copy of the stub is gone


def test_an_own_function_is_not_taken_for_the_answer_of_a_new_exercise(mine):
    mine.cells.insert(1, code("own", "def g(x):\n    return 2"))
    merged = merge(BASE, released(stub("g"), check("g", 2)), mine)
    assert [cell.id for cell in merged.notebook.cells] == [
        "title",
        "own",
        "why",
        "f",
        "check_f",
        "g",
        "check_g",
    ]
    assert "NotImplementedError" in merged.notebook.cells[5].source


def test_a_second_merge_changes_nothing(mine):
    """An update that was cut off before it noted the new base is simply done again."""
    edit(mine, "f", MINE)
    edit(mine, "why", "My words.")
    mine.cells.append(code("own", "f(3)"))
    new = released(text("end"), words="Better words.", signature="x, k")
    once = merge(BASE, new, mine).notebook
    assert merge(BASE, new, once).notebook == once
    assert merge(new, new, once).notebook == once


@pytest.mark.parametrize("seed", range(50))
def test_whatever_a_learner_does_no_line_of_theirs_is_lost(seed):
    """Random edits, copies, moves, deletions and additions, against a random new release."""
    rng = random.Random(seed)
    base = notebook(*(c for n in "abcd" for c in (text(f"why-{n}", f"Why {n}?"), stub(n), check(n, 2))))
    new = copy.deepcopy(base)
    for cell in rng.sample(new.cells, 5):
        rng.choice([lambda c: c.update(source=c.source + " New."), new.cells.remove])(cell)
    new.cells.insert(rng.randrange(len(new.cells)), text("fresh", "A fresh cell."))
    learners = copy.deepcopy(base)
    written = []
    for number in range(12):
        place = rng.randrange(len(learners.cells))
        cell = learners.cells[place]
        act = rng.choice(["edit", "edit", "add", "copy", "move", "delete"])
        if act in ("edit", "add", "copy"):
            line = f"line_{number} = {number}"
            written.append(line)
        if act == "edit":
            cell.source += f"\n{line}"
        elif act == "add":
            learners.cells.insert(place, code(f"own-{number}", line))
        elif act == "copy":
            twin = copy.deepcopy(cell)
            twin.update(id=f"copy-{number}", source=f"{cell.source}\n{line}")
            learners.cells.insert(place, twin)
        elif act == "move":
            learners.cells.insert(rng.randrange(len(learners.cells)), learners.cells.pop(place))
        elif not any(line in cell.source for line in written):
            learners.cells.pop(place)
    merged = merge(base, new, learners).notebook
    everything = "\n".join(cell.source for cell in merged.cells)
    assert [line for line in written if line not in everything] == []
    assert len({cell.id for cell in merged.cells}) == len(merged.cells)
    grade_ids = [cell.metadata.nbgrader.grade_id for cell in merged.cells if "nbgrader" in cell.metadata]
    assert grade_ids == [cell.metadata.nbgrader.grade_id for cell in new.cells if "nbgrader" in cell.metadata]


@pytest.mark.parametrize(
    "source",
    [
        MINE,
        "def f(x:\n    return x",  # does not parse
        "async def f(x):\n    return x",
        "f = lambda x: x",
        "# def f(x):\n#     raise NotImplementedError  # your code here",  # commented out
    ],
)
@pytest.mark.parametrize("kind", ["code", "markdown"])
def test_an_update_finds_an_answer_as_the_repair_does(mine, source, kind):
    """The marks are gone, and the text is hardly what was released."""
    fenced = f"```python\n{source}\n```"
    cell = code("somewhere", source) if kind == "code" else text("somewhere", fenced)
    del cell["id"]
    mine.cells[2] = cell
    new = released(text("end"), signature="x, k")
    merged = merge(BASE, new, mine)
    fixed = repair(copy.deepcopy(mine), BASE).notebook
    assert fixed.cells[2].id == "f"
    kept = next(cell for cell in merged.notebook.cells if source in cell.source)
    assert kept.id == "f" or (kind, source[0]) == ("markdown", "#")


def test_an_interrupted_update_is_recognised_by_its_text_alone(mine):
    """The learner's file is of the new release already, the noted base is not; a tool has dropped all names."""
    new = released(text("end"), words="Better words.", signature="x, k")
    mine = copy.deepcopy(new)
    edit(mine, "f", MINE)
    mine.cells.append(code("own", "f(3)"))
    for cell in mine.cells:
        cell.metadata = {}
        del cell["id"]
    merged = merge(BASE, new, mine).notebook
    assert [cell.source for cell in merged.cells] == [
        *("# Title", "Better words.", MINE, "check(f)", "Some words.", "f(3)")
    ]


@pytest.mark.parametrize("marks", [None, "x", ["f"], {"grade_id": 3}, {"grade_id": ["f"]}])
def test_odd_marks_lose_nothing(mine, marks):
    mine.cells[2].metadata["nbgrader"] = marks
    edit(mine, "f", MINE)
    merged = merge(BASE, released(text("end")), mine).notebook
    assert merged.cells[2].source == MINE
    assert merged.cells[2].metadata == BASE.cells[2].metadata
