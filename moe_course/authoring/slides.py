"""`moe-course slides`: a deck for a lecture from an executed notebook, as one HTML file that loads nothing.

What goes on slides follows from the notebook's own structure, so it needs no marks. After the title, each section
gets one slide: its first sentences, its first formula, its exercises, its prediction, and a figure. A section that
asks for a prediction shows the last figure before the question; the first figure after it, the sentence that reads
that figure, and what happened come with the next key. Recap and "What not to conclude" end the deck, and the prose
becomes notes. A deck has at most 14 slides: where there are more, those with neither figure nor question are left
out first, then sub-sections.
"""

from __future__ import annotations

import ast
import functools
import html
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
from nbformat import NotebookNode

from moe_course import files
from moe_course.authoring.markup import as_html
from moe_course.grading.judge import templates

if TYPE_CHECKING:
    from jinja2 import Template

MOST = 14  # slides of a deck
WORDS = 45  # of the first sentences of a section, and of those that read its figure;
WORDS_BESIDE = 28  # where a question stands between them
ALONE = 90  # words of a slide that has neither figure nor question
CLOSING = ("Recap", "What not to conclude")
NO_SLIDE = ("The model card", "Going deeper", "References")

_HEADING = re.compile(r"^(##|###) (.+)$", re.MULTILINE)
_EXERCISE = re.compile(r"(?:Exercise|Warm-up) ([\d.]+) · (.+?) ★")
_READS = re.compile(r"-(read|reading|next)$")  # the ids of cells that read a figure
_FOLD = re.compile(r"</?details>|<summary>.*?</summary>")
_FORMULA = re.compile(r"\$\$.+?\$\$", re.DOTALL)
_SENTENCE_ENDS = re.compile(r"(?<=[.!?:])(?:\*{1,2}|[)\"”])?\s+(?=[\"“*(A-Z`$])")


@dataclass
class Slide:
    """One slide; texts are Markdown. `answer`, `after` and a `reading_later` wait for the next key."""

    heading: str
    text: str = ""
    formula: str = ""
    exercises: list[str] = field(default_factory=list)
    question: str = ""
    options: list[str] = field(default_factory=list)
    answer: str = ""
    reading: str = ""
    reading_later: bool = False
    before: NotebookNode | None = None  # the cell whose figure is there from the start
    after: NotebookNode | None = None  # the cell whose figure comes with the answer
    notes: str = ""


@dataclass
class _Part:
    """A section or sub-section: its heading, its depth (2 or 3), and its cells without those of exercises."""

    heading: str
    depth: int
    cells: list[NotebookNode] = field(default_factory=list)
    exercises: list[str] = field(default_factory=list)


def write(root: Path, which: str, folder: Path, *, small: bool = False) -> Iterator[Path]:
    """Execute notebooks of `root`/solutions and write their decks into `folder`, one at a time; yields the files.

    which: a notebook's name, its number ("05"), or "all". small: train for a few steps only; figures then may not
    show what the text says.
    Raises ValueError for a notebook that is not there, and nbclient's CellExecutionError where a cell fails.
    """
    paths = sorted((root / "solutions").glob("*/*.ipynb"))
    chosen = [path for path in paths if which in ("all", path.stem, path.stem.partition("_")[0])]
    if not chosen:
        names = ", ".join(path.stem for path in paths) or "not here, for solutions/ is missing"
        raise ValueError(f"there is no notebook {which!r}; the notebooks are {names}")
    folder.mkdir(parents=True, exist_ok=True)
    for path in chosen:
        target = folder / f"{path.stem}.html"
        files.write(target, page(_executed(path, small)))
        yield target


def slides(notebook: NotebookNode) -> list[Slide]:
    """The slides of a notebook. Whether it has been executed makes no difference, except that answers are missing."""
    title, *parts = _parts(notebook)
    closing = [part for part in parts if part.heading in CLOSING]
    sections = [part for part in parts if part.heading not in (*CLOSING, *NO_SLIDE)]
    ranked = sorted((_rank(part), place) for place, part in enumerate(sections) if _rank(part) is not None)
    kept = sorted(place for _, place in ranked[: MOST - 1 - len(closing)])
    answers = _answers(notebook)
    return [
        _title(title),
        *(_section(sections[place], answers) for place in kept),
        *(Slide(part.heading, _prose(part)) for part in closing),
    ]


def page(notebook: NotebookNode) -> str:
    """The deck of an executed notebook. Raises ValueError where a cell that draws a figure shows none."""
    deck = slides(notebook)
    shown = [(one, _picture(one.before), _picture(one.after)) for one in deck]
    return _template().render(title=_plain(deck[0].heading), deck=shown, count=len(deck))


def _executed(path: Path, small: bool) -> NotebookNode:
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}})
        return client.execute(env={**os.environ, **({"MOE_COURSE_SMALL": "1"} if small else {})})


def figure_cells(cells: Sequence[NotebookNode]) -> list[NotebookNode]:
    """The cells that show a figure, by their code."""
    return [cell for cell in cells if _calls(cell, "show", "viz.show")]


def _parts(notebook: NotebookNode) -> list[_Part]:
    """The notebook cut at its headings; the first part is its title. Headings of exercises cut nothing."""
    parts = [_Part("", 1)]
    for cell in notebook.cells:
        found = _HEADING.search(cell.source) if cell.cell_type == "markdown" else None
        if found and (exercise := _EXERCISE.match(found[2])):
            parts[-1].exercises.append(f"{exercise[1]} {exercise[2]}")
            continue
        if found:
            parts.append(_Part(found[2].strip(), len(found[1])))
        if "nbgrader" not in cell.metadata:
            parts[-1].cells.append(cell)
    return parts


def _rank(part: _Part) -> int | None:
    """How early a part gets a slide: 0 first. None: never."""
    shows = bool(figure_cells(part.cells) or _predictions(part.cells))
    if part.depth == 2:
        return 0 if shows else 2
    return 1 if shows else None


def _title(part: _Part) -> Slide:
    lines = part.cells[0].source.splitlines()
    question = next((line for line in lines if line.startswith("**") and line.endswith("**")), "")
    rows = [line for line in lines if line.startswith("| ")]
    table = "\n".join(["| | |", "|---|---|", *(row for row in rows if row != "| | |")])
    return Slide(lines[0].removeprefix("# "), f"{question}\n\n{table}", notes=_prose(part, first=1))


def _section(part: _Part, answers: dict[str, str]) -> Slide:
    asked = _predictions(part.cells)
    words = WORDS_BESIDE if asked else WORDS
    cells, figures = part.cells, figure_cells(part.cells)
    drawn = [cell for cell in figures if not _calls(cell, "viz.moe_layer")] or figures
    place = cells.index(asked[0][0]) if asked else 0
    earlier = [cell for cell in drawn if cells.index(cell) < place]
    later = [cell for cell in drawn if cells.index(cell) >= place]
    slide = Slide(part.heading, exercises=part.exercises, notes=_prose(part))
    if asked:
        _, key, slide.question, slide.options = asked[0]
        slide.before, slide.after = next(reversed(earlier), None), next(iter(later), None)
        if any(_calls(cell, "reveal") and f'"{key}"' in cell.source for cell in cells):
            slide.answer = answers.get(key, "")
        elif key in answers:
            slide.notes = f"*The answer comes later:* {answers[key]}\n\n{slide.notes}"
    else:
        slide.before = next(iter(drawn), None)
    if read := slide.after or slide.before:
        following = _reading(cells.index(read), cells)
        slide.reading = _first_sentences(_body(cells[following]), words) if following else ""
        slide.reading_later = bool(asked) and following > place
    if asked or read:
        slide.text, slide.formula = _lead(part, place if asked else len(cells), words)
    else:
        slide.text = _alone(part)
    return slide


def _lead(part: _Part, until: int, words: int) -> tuple[str, str]:
    """The first sentences of a part, and its first formula among the cells before `until`."""
    texts = [_body(cell) for cell in part.cells[: max(until, 1)] if cell.cell_type == "markdown"]
    formula = _FORMULA.search("\n\n".join(texts))
    first_row = "\n".join(texts[0].splitlines()[:3])  # of a section that begins with a table
    return _first_sentences(texts[0], words) or first_row, formula[0] if formula else ""


def _alone(part: _Part) -> str:
    """As many paragraphs of a part as fit a slide that has nothing else; the first one always does."""
    kept: list[str] = []
    for paragraph in _prose(part).split("\n\n"):
        if kept and len(" ".join([*kept, paragraph]).split()) > ALONE:
            break
        kept.append(paragraph)
    return "\n\n".join(kept)


def _first_sentences(text: str, words: int) -> str:
    """As many sentences of the first paragraph as have at most so many words together; the first one in any case."""
    paragraphs = [one for one in text.split("\n\n") if not one.startswith(("$$", "|", "-", "1.", "#"))]
    sentences = _SENTENCE_ENDS.split(" ".join(paragraphs[0].split())) if paragraphs else []
    kept: list[str] = []
    for sentence in sentences:
        if kept and len(" ".join([*kept, sentence]).split()) > words:
            break
        kept.append(sentence)
    return " ".join(kept)


def _prose(part: _Part, first: int = 0) -> str:
    """The text of a part, without headings and help ladders."""
    texts = [_body(cell) for cell in part.cells[first:] if cell.cell_type == "markdown"]
    return "\n\n".join(filter(None, texts))


def _body(cell: NotebookNode) -> str:
    unfolded = _FOLD.sub("", "" if cell.id.startswith("help") else cell.source)
    return re.sub(r"^#+ .*$", "", unfolded, flags=re.MULTILINE).strip()


def _reading(place: int, cells: Sequence[NotebookNode]) -> int:
    """Where the text is that reads the figure at a place, by the name of its cell; 0 if there is none."""
    for later in range(place + 1, len(cells)):
        if cells[later].cell_type == "markdown":
            return later if _READS.search(cells[later].id) else 0
        if figure_cells([cells[later]]):
            break
    return 0


def _predictions(cells: Sequence[NotebookNode]) -> list[tuple[NotebookNode, str, str, list[str]]]:
    """The predictions of the cells: (cell, key, question, options)."""
    asked = [(cell, call) for cell in cells for call in _calls(cell, "predict")]
    return [(cell, *(ast.literal_eval(argument) for argument in call.args[:3])) for cell, call in asked]


def _answers(notebook: NotebookNode) -> dict[str, str]:
    """What happened, by key of the prediction, as the cells that reveal it say."""
    found = {}
    for cell in notebook.cells:
        for call in _calls(cell, "reveal"):
            said = re.search(r"<b>What happened:</b>(.+?)</p>", "".join(_html_outputs(cell)), re.DOTALL)
            if said:
                found[ast.literal_eval(call.args[0])] = html.unescape(said[1]).strip()
    return found


def _calls(cell: NotebookNode, *names: str) -> list[ast.Call]:
    """The calls of these functions in a code cell."""
    if cell.cell_type != "code":
        return []
    nodes = ast.walk(ast.parse(re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.MULTILINE)))
    return [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) in names]


def _html_outputs(cell: NotebookNode) -> Iterator[str]:
    for output in cell.get("outputs", ()):
        yield "".join(output.get("data", {}).get("text/html", ""))


def _picture(cell: NotebookNode | None) -> dict[str, str] | None:
    """The address, which holds the picture itself, and the alt text of the first figure that a cell has shown."""
    if cell is None:
        return None
    for output in cell.outputs:
        data = output.get("data", {})
        finder = _Images()
        finder.feed("".join(data.get("text/html", "")))
        if finder.found:
            return finder.found[0]
        if png := data.get("image/png"):
            alt = "".join(data.get("text/plain", ""))
            return {"src": f"data:image/png;base64,{''.join(png.split())}", "alt": alt}
    raise ValueError(f"cell {cell.id} shows no figure: execute the notebook first")


class _Images(HTMLParser):
    """Collects the pictures that a piece of HTML holds in itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "img" and given.get("src", "").startswith("data:image/"):
            self.found.append({"src": given["src"], "alt": given.get("alt", "")})


def _plain(text: str) -> str:
    return re.sub(r"[`*$]", "", text)


def _inline(text: str) -> str:
    """Markdown of one line as HTML, without the paragraph around it."""
    return as_html(text).strip().removeprefix("<p>").removesuffix("</p>")


@functools.cache
def _template() -> Template:
    environment = templates.environment(Path(__file__).parent)
    environment.filters |= {"markdown": as_html, "inline": _inline, "plain": _plain}
    return environment.get_template("slides.html")
