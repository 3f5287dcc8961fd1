"""Slides from notebooks: what goes on them, that nothing is lost or spoiled, and that the page stands alone."""

import re

import nbformat
import pytest
from decks import drawn, small
from synthetic import ROOT, code, notebook, text

from moe_course.authoring.slides import CLOSING, MOST, page, slides, write
from moe_course.command.cli import main
from moe_course.grading.exercises.registry import exercises_of

SOLUTIONS = sorted((ROOT / "solutions").glob("*/*.ipynb"))


def test_the_slides_of_a_small_notebook():
    title, first, words, recap, conclude = slides(small())
    assert (title.heading, first.heading, words.heading) == ("01 · Small", "1 · First", "2 · Words only")
    assert "**Why?**" in title.text
    assert (recap.text, conclude.text) == ("- that", "- this")
    assert first.text == "One sentence. Another one."
    assert first.formula == "$$ C = \\frac{T K}{E} $$"
    assert (first.question, first.options) == ("Does <it> grow?", ["no", "yes & no"])
    assert (first.answer, first.reading, first.reading_later) == (
        "yes & no — so it is.",
        "The curve grows.",
        True,
    )
    assert (first.before.id, first.after.id) == ("s1-before", "s1-after")
    assert first.exercises == ["1.1 `ffn_params`"]
    assert len(words.text.split()) == 90
    assert "Words Words" in first.notes
    assert len(words.notes.split()) == 200


def test_the_page_stands_alone_and_escapes_what_code_says():
    deck = page(small())
    assert not re.findall(r"""(?:src|href)=["']?(?!data:)[^"'\s>]""", deck)
    assert "default-src 'none'" in deck
    assert "@import" not in deck
    assert "Does &lt;it&gt; grow?" in deck
    assert "yes &amp; no — so it is." in deck
    assert re.findall(r'alt="(\w+)"', deck) == ["before", "after"]
    assert "<mfrac>" in deck
    assert "Secret" not in deck
    assert "Not for slides" not in deck
    assert deck.count("<section ") == 5


def test_an_answer_given_in_a_later_section_stays_in_the_notes():
    book = small()
    book.cells.append(book.cells.pop(next(n for n, cell in enumerate(book.cells) if cell.id == "reveal-x")))
    first = slides(book)[1]
    assert first.answer == ""
    assert "yes & no — so it is." in first.notes


def test_what_is_left_out_when_a_notebook_has_too_many_sections():
    book = small()
    recap = next(n for n, cell in enumerate(book.cells) if cell.id == "recap")
    for n in range(12):
        extra = [text(f"more-{n}", f"### Sub {n}\n\nWords."), drawn(f"figure-{n}", "extra")]
        book.cells[recap:recap] = (
            extra if n % 2 else [text(f"more-{n}", f"## {n + 3} · More\n\nWords."), extra[1]]
        )
    found = [slide.heading for slide in slides(book)]
    assert len(found) == MOST
    assert "2 · Words only" not in found
    assert sum(heading.endswith("More") for heading in found) == 6
    assert sum(heading.startswith("Sub") for heading in found) == 4


def test_a_notebook_without_its_figures_is_refused():
    book = small()
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    with pytest.raises(ValueError, match="cell s1-before shows no figure"):
        page(book)


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_the_deck_of_each_notebook(path):
    book = nbformat.read(path, as_version=4)
    deck = slides(book)
    assert 8 <= len(deck) <= MOST
    assert deck[0].heading.startswith(path.stem[:2])
    assert all(slide.heading and (slide.text or slide.before) for slide in deck)
    if any(exercise.graded for exercise in exercises_of(path.stem)):
        assert tuple(slide.heading for slide in deck[-2:]) == CLOSING
        assert sum(bool(slide.before or slide.after) for slide in deck) >= 3
    assert any(slide.question for slide in deck)
    assert all(len(slide.text.split()) <= 90 for slide in deck if slide.before or slide.after)


def test_no_slide_tells_the_answer_before_its_question():
    """What is shown with a question stands before it in the notebook."""
    for path in SOLUTIONS:
        book = nbformat.read(path, as_version=4)
        place = {cell.id: n for n, cell in enumerate(book.cells)}
        asks = {
            call: cell.id
            for cell in book.cells
            for call in re.findall(r'predict\(\s*"([\w-]+)"', cell.source)
        }
        questions = {
            re.search(r'",\s*"(.+?)"', book.cells[place[cell]].source)[1]: cell for cell in asks.values()
        }
        for slide in slides(book):
            if slide.question:
                asked = place[questions[slide.question]]
                assert slide.before is None or place[slide.before.id] < asked
                assert slide.after is None or place[slide.after.id] >= asked


def test_the_command_names_a_notebook_that_is_not_there(tmp_path, capsys):
    assert main(["slides", "99", "--out", str(tmp_path)]) == 2
    assert (
        "there is no notebook '99'; the notebooks are 00_start_here, 01_dense_ffn" in capsys.readouterr().err
    )


def test_the_command_executes_and_writes(tmp_path):
    folder = tmp_path / "solutions" / "01_small"
    folder.mkdir(parents=True)
    cells = small().cells
    figure = """from IPython.display import HTML, display
def show(alt):
    return display(HTML(f'<img alt="{alt}" src="data:image/png;base64,AAAA">'))
show(alt="drawn")"""
    book = notebook(
        cells[0], text("s1-why", "## 1 · First\n\nWords."), code("s1-figure", figure), *cells[-3:]
    )
    nbformat.write(book, folder / "01_small.ipynb")
    (written,) = write(tmp_path, "01", tmp_path / "decks", small=True)
    assert written == tmp_path / "decks" / "01_small.html"
    assert 'alt="drawn"' in written.read_text(encoding="utf-8")
