"""From the repository to what Sphinx reads: the pages of notebooks, links between documents, the contents."""

from pathlib import Path

import pytest
from nbformat.v4 import new_output
from synthetic import ROOT, answer, code, notebook, text

from moe_course.authoring.site import build
from moe_course.authoring.site.pages import STILL, WIDGET, page


def test_a_page_has_the_gap_before_the_answer_and_tells_that_figures_stand_still():
    both = text("title", "# T"), text("words", "# First sitting")
    solved = answer("double", "return 2 * x\n    ### STUB\n    # return ...")
    figure = code("figure", "explore()")
    figure.outputs = [new_output("display_data", {WIDGET: {"model_id": "1"}, "text/html": "<img>"})]
    gap = code("double", "def double(x):\n    return ...")
    made = page(notebook(*both, solved, figure), notebook(*both, gap, code("figure", "explore()")))

    title, about, sitting, shown_gap, folded, still = made.cells
    assert (title.source, sitting.source) == ("# T", "## First sitting")
    assert "make lab" in about.source
    assert "Trainings are short" in about.source
    assert shown_gap.source == gap.source
    assert folded.source == "def double(x):\n    return 2 * x"
    assert folded.metadata.tags == ["hide-input"]
    assert still.outputs[0].data == {"text/html": f"<img>{STILL}"}
    assert WIDGET in figure.outputs[0].data, "the executed notebook itself is as it was"
    full = page(notebook(*both), notebook(*both), full=True)
    assert "Trainings are short" not in full.cells[1].source


@pytest.mark.parametrize(
    ("link", "becomes"),
    [
        ("[home](../README.md)", "[home](../index.md)"),
        ("[01](../solutions/01_x/01_x.ipynb#a)", "[01](../notebooks/01_x/01_x.ipynb#a)"),
        ("[other](other.md#part)", "[other](other.md#part)"),
        ("[the script](../tool.py)", "the script"),
        ("[nowhere](gone.md)", "[nowhere](gone.md)"),  # for Sphinx to complain of
        ("[web](https://example.org/a.md)", "[web](https://example.org/a.md)"),
        ("`[code](../tool.py)`", "`[code](../tool.py)`"),
        ("```\n[code](../tool.py)\n```", "```\n[code](../tool.py)\n```"),
    ],
)
def test_links_to_files_become_links_to_pages_or_plain_text(tmp_path, link, becomes):
    root, source = tmp_path / "root", tmp_path / "source"
    for place in (
        "source/index.md",
        "source/docs/other.md",
        "source/notebooks/01_x/01_x.ipynb",
        "root/tool.py",
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    assert build.relink(f"\n{link}\n", Path("docs/some.md"), source, root) == f"\n{becomes}\n"


def test_every_page_is_in_the_contents_once_and_a_new_one_as_well():
    pages = [
        "index",
        "notebooks/a/a",
        "docs/glossary",
        "docs/learners",
        "docs/teaching/new",
        "docs/unheard_of",
        "CHANGELOG",
    ]
    said = build.contents(pages)
    listed = [line for line in said.splitlines() if line and not line.startswith((":", "`"))]
    assert [line.rpartition("<")[2].rstrip(">") for line in listed] == [
        *(
            "notebooks/a/a",
            "docs/glossary",
            "docs/learners",
            "docs/teaching/new",
            "docs/unheard_of",
            "CHANGELOG",
        )
    ]
    assert said.index(":caption: Teaching") < said.index("docs/teaching/new") < said.index(":caption: More")


def test_what_is_no_site_is_never_replaced(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="something that is no site"):
        build.build(ROOT, tmp_path, tmp_path / "store")
    with pytest.raises(ValueError, match="has no folder site/"):
        build.build(tmp_path, tmp_path / "out", tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_answers_to_exam_questions_are_for_teachers(tmp_path):
    """A site that anybody may open has no document with a heading of exam questions, and no answers of the bank."""
    for teachers in (False, True):
        source = tmp_path / str(teachers)
        build.copy_documents(ROOT, source, teachers)
        told = [path.name for path in source.rglob("*.md") if "\n## Exam\n" in path.read_text("utf-8")]
        assert bool(told) == (source / "docs/teaching/question_bank_answers.md").is_file() == teachers
        assert (source / "docs/teaching/question_bank.md").is_file()
