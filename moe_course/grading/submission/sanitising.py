"""What a browser would show of a submission, made inert: no script, link or form of a learner acts on who opens it.

Instructors open submissions in formgrader, with the right to set marks, and feedback goes to learners. Both render
markdown with whatever HTML is in it. So each text cell is rendered here, as nbconvert will do it, and bleach looks
at the result. A cell in which everything is on the list below stays as it is; any other becomes a block of plain
text, in which all that the learner wrote can be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bleach.sanitizer import Cleaner
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

TAGS = {
    *(
        "a",
        "abbr",
        "b",
        "blockquote",
        "br",
        "code",
        "dd",
        "del",
        "details",
        "div",
        "dl",
        "dt",
        "em",
        "h1",
        "h2",
    ),
    *(
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "i",
        "img",
        "input",
        "kbd",
        "li",
        "ol",
        "p",
        "pre",
        "q",
        "s",
        "span",
        "strong",
    ),
    *("sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "u", "ul"),
}
_LINK = re.compile(
    r"(?:https?://|mailto:|#)[^\x00-\x20]*"
)  # a relative link may lead to a file beside the notebook
_IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]*")
_CLASS = r"(?:anchor-link|highlight|task-list-item(?:-checkbox)?|language-\w+|err|hll|cpf|esc|[a-z][a-z0-9]?)"
_CLASSES = re.compile(rf"(?:{_CLASS}(?: {_CLASS})*)?")  # those that nbconvert writes itself; no button's
_ATTRIBUTES = {  # {(tag, or "*", attribute): the values it may have}
    ("a", "href"): _LINK,
    ("img", "src"): _IMAGE,
    ("img", "width"): re.compile(r"\d{1,4}%?"),
    ("img", "height"): re.compile(r"\d{1,4}%?"),
    ("input", "type"): re.compile("checkbox"),
    ("input", "disabled"): re.compile(r"(?:disabled)?"),
    ("input", "checked"): re.compile(r"(?:checked)?"),
    ("ol", "start"): re.compile(r"\d+"),
    ("details", "open"): re.compile(r"(?:open)?"),
    ("td", "style"): re.compile(r"text-align:\s*(?:left|right|center);?"),
    ("th", "style"): re.compile(r"text-align:\s*(?:left|right|center);?"),
    **{(f"h{level}", "id"): re.compile(r".*", re.DOTALL) for level in range(1, 7)},
    **{("*", name): re.compile(r".*", re.DOTALL) for name in ("alt", "title")},
    ("*", "class"): _CLASSES,
}
# Commands of MathJax that make links, styles and ids, or that load and build other commands.
_TEX = re.compile(
    r"\\(?:href|url|class|cssId|style|require|csname|htmlData|htmlId|htmlClass|htmlStyle)(?![A-Za-z])"
)
_END = '<p title="end">end</p>'
RASTER = ("image/png", "image/jpeg", "image/gif", "image/webp")
# Rendering takes up to a second for 5,000 characters that were made for it, so what is longer is not looked at.
MAX_RENDERED = 20_000  # characters of a text cell
MAX_TAGS = 2_000  # of a text cell; each `<` counts
MAX_RENDERED_IN_ALL = 100_000  # characters of all text cells that are not the course's
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")


def make_inert(cells: Sequence[tuple[NotebookNode, NotebookNode | None]]) -> Iterator[int]:
    """Make cells harmless to look at, in place; yields the places of those whose text had to be changed.

    Each cell comes with the course's cell that it is, if any: what equals it is the course's own and stays.
    """
    left = MAX_RENDERED_IN_ALL
    for place, (cell, released) in enumerate(cells):
        if _make_inert(cell, released, left >= len(cell.source)):
            yield place
        if cell.cell_type == "markdown" and (released is None or cell.source != released.source):
            left -= len(cell.source)


def _make_inert(cell: NotebookNode, released: NotebookNode | None, may_render: bool) -> bool:
    """Make one cell harmless; returns whether its text had to be changed."""
    for field in [field for field in cell if field not in _FIELDS[cell.cell_type]]:
        del cell[field]
    cell.metadata = _harmless_metadata(cell, released)
    if cell.cell_type == "code":
        cell.outputs = []
        return False
    if "attachments" in cell:
        cell.attachments = _rasters(cell.attachments)
        if not cell.attachments:
            del cell["attachments"]
    if released is not None and cell.source == released.source and cell.cell_type == released.cell_type:
        return False
    if cell.cell_type == "raw":  # an HTML exporter copies raw cells as they are
        if not re.search("[<&]", cell.source):
            return False
        cell.cell_type = "markdown"
    elif _is_text(cell.source) or (may_render and is_harmless(cell.source, cell.get("attachments"))):
        return False
    cell.source = _as_text(cell.source)
    cell.pop("attachments", None)
    return True


_FIELDS = {
    "code": ("cell_type", "source", "metadata", "id", "outputs", "execution_count"),
    "markdown": ("cell_type", "source", "metadata", "id", "attachments"),
    "raw": ("cell_type", "source", "metadata", "id", "attachments"),
}


def is_harmless(markdown: str, attachments: Mapping[str, Any] | None = None) -> bool:
    """Whether markdown, rendered as nbconvert does it, holds nothing but what this module lists."""
    return not _TEX.search(markdown) and _renders_harmless(markdown, attachments)


def _is_text(source: str) -> bool:
    """Whether a cell is one fenced block, as `_as_text` makes it."""
    block = re.fullmatch(r"(`{3,})text\n(.*)\n\1", source, re.DOTALL)
    return (
        block is not None
        and block[1] not in block[2]
        and (len(source) > MAX_RENDERED or _renders_harmless(source))
    )


def _renders_harmless(markdown: str, attachments: Mapping[str, Any] | None = None) -> bool:
    if len(markdown) > MAX_RENDERED or markdown.count("<") > MAX_TAGS:
        return False
    try:
        renderer = IPythonRenderer(escape=False, attachments=dict(attachments or {}))
        html = MarkdownWithMath(renderer=renderer).render(markdown)
    except Exception:  # a missing attachment, nesting too deep: what cannot be rendered is shown as text
        return False
    refused: list[str] = []

    def is_listed(tag: str, name: str, value: str) -> bool:
        form = _ATTRIBUTES.get((tag, name)) or _ATTRIBUTES.get(("*", name))
        if form is None or not form.fullmatch(value):
            refused.append(name)
        return True

    # An open quote, tag or comment would swallow what follows in the page, and so the end of this frame.
    framed = f"<div>{html}</div>{_END}"
    # Tags that are not listed are escaped or left out: where both come out the same, there was none.
    escaped, left_out = (
        Cleaner(TAGS, is_listed, protocols=("http", "https", "mailto", "data"), strip=strip).clean(framed)
        for strip in (False, True)
    )
    return not refused and escaped == left_out and escaped.endswith(f"</div>{_END}")


def _as_text(source: str) -> str:
    """The source in a fenced block, which no line of its own can close."""
    longest = max(map(len, re.findall("`+", source)), default=0)
    fence = "`" * max(3, longest + 1)
    block = f"{fence}text\n{source}\n{fence}"
    if _is_text(block):
        return block
    return "".join(c if c.isalnum() or c in " \n" else f"&#{ord(c)};" for c in source)


def _harmless_metadata(cell: NotebookNode, released: NotebookNode | None) -> NotebookNode:
    """The marks of nbgrader, which the repair has put right, and what the release has, and what a notebook needs."""
    course = released.metadata if released is not None else {}
    kept = NotebookNode()
    for name, value in cell.metadata.items():
        if name in ("nbgrader", "deletable", "editable") or (name in course and course[name] == value):
            kept[name] = value
        elif name == "tags" and isinstance(value, list):
            kept[name] = [tag for tag in value if is_plain_tag(tag)]
        elif name in ("collapsed", "scrolled") and isinstance(value, bool):
            kept[name] = value
    return kept


def is_plain_tag(tag: Any) -> bool:
    """Whether a tag is a word: it becomes part of a class in HTML."""
    return isinstance(tag, str) and re.fullmatch(r"[\w.:+-]{1,64}", tag) is not None


def _rasters(attachments: Any) -> NotebookNode:
    """The attachments that are pictures of dots: an SVG can hold scripts."""
    kept = NotebookNode()
    bundles: dict[str, Any] = dict(attachments) if isinstance(attachments, Mapping) else {}
    for name, bundle in bundles.items():
        held: dict[str, Any] = dict(bundle) if isinstance(bundle, Mapping) else {}
        pictures = {
            kind: data
            for kind, data in held.items()
            if kind in RASTER and isinstance(data, str) and _BASE64.fullmatch(data)
        }
        if pictures:
            kept[name] = NotebookNode(pictures)
    return kept
