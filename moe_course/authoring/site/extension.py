"""What Sphinx loads: formulas as MathML, links from the words of a notebook, docstrings in the course's plain style.

A formula becomes MathML while the site is built, so no page needs a script to show it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

GLOSSARY = "docs/glossary"
TERM = re.compile(r"^## (.+?)\n\n(?:\*Also: (.+?)\.\*\n)?", re.MULTILINE)
PAPER = r"(?P<paper>\b\d{4}\.\d{4,5}\b)"
NOTEBOOK = r"\b[Nn]otebook (?P<notebook>\d\d)\b"
NO_PLACE = (  # where a word is no link: names, code, and what is a link already
    *(nodes.title, nodes.reference, nodes.literal, nodes.literal_block, nodes.raw, nodes.math),
    *(nodes.term, nodes.thead, nodes.caption),
)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.connect("autodoc-process-docstring", _plain)
    app.connect("doctree-read", link_words)
    app.connect("html-page-context", _headings, priority=900)  # after the theme has written its contents
    return {"parallel_read_safe": True}


# --------------------------------------------------------------------------------------------------- formulas


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>')
    raise nodes.SkipNode


# ------------------------------------------------------------------------------------------------------- links


def terms(glossary: str) -> dict[str, str]:
    """{how a term may be written, in small letters: its anchor} of a glossary in Markdown.

    A term is a heading of the second level; a line “*Also: ...*” below it has its other names.
    """
    found = {}
    for name, others in TERM.findall(glossary):
        anchor = nodes.make_id(name)
        for word in (name, *filter(None, others.split(", "))):
            found[word.lower()] = anchor
    return found


def link_words(app: Sphinx, doctree: nodes.document) -> None:
    """Link notebooks, papers and, where they first occur, terms of the glossary, in the prose of a page."""
    page = app.env.docname
    if not page.startswith(("notebooks/", GLOSSARY)):
        return
    pages = {name[10:12]: name for name in app.env.found_docs if name.startswith("notebooks/")}
    anchors = terms((Path(app.srcdir) / f"{GLOSSARY}.md").read_text(encoding="utf-8"))
    words = "|".join(sorted(map(re.escape, anchors), key=len, reverse=True))
    pattern = re.compile(rf"{PAPER}|{NOTEBOOK}|\b(?P<term>{words})(?:s|es)?\b", re.IGNORECASE)
    seen: set[str] = set()

    def target(match: re.Match[str], inside: set[str]) -> str | None:
        """The address that a match links to; None where it is no link."""
        if paper := match["paper"]:
            return f"https://arxiv.org/abs/{paper}"
        if number := match["notebook"]:
            there = pages.get(number, page)
            return None if there == page else app.builder.get_relative_uri(page, there)
        anchor = anchors[match["term"].lower()]
        if anchor in seen | inside:
            return None
        seen.add(anchor)
        return f"{app.builder.get_relative_uri(page, GLOSSARY)}#{anchor}"

    for text in list(doctree.findall(nodes.Text)):
        above = list(_above(text))
        if not any(isinstance(node, NO_PLACE) for node in above):
            inside = {name for node in above if isinstance(node, nodes.section) for name in node["ids"]}
            parts = list(_parts(text.astext(), pattern, lambda match, i=inside: target(match, i)))
            if len(parts) > 1:
                text.parent.replace(text, parts)


def _above(node: nodes.Node) -> Iterator[nodes.Node]:
    while (parent := node.parent) is not None:
        yield parent
        node = parent


def _parts(text: str, pattern: re.Pattern[str], target: Any) -> Iterator[nodes.Node]:
    """A text in pieces: what is a link, and what is between."""
    done = 0
    for match in pattern.finditer(text):
        if (address := target(match)) is not None:
            kind = "term" if match["term"] else "mention"
            yield nodes.Text(text[done : match.start()])
            yield nodes.reference("", match[0], refuri=address, classes=[kind], internal="://" not in address)
            done = match.end()
    yield nodes.Text(text[done:])


def _headings(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Headings of the table of contents, which Sphinx writes without the level that screen readers need."""
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')


# -------------------------------------------------------------------------------------------------- docstrings


def _plain(app: Sphinx, kind: str, name: str, item: object, options: object, lines: list[str]) -> None:
    """A docstring as it stands: what reStructuredText would read as marks is text, code in backticks stays code."""
    lines[:] = [line if line.lstrip().startswith(">>>") else _escaped(line) for line in lines]


def _escaped(line: str) -> str:
    code = line.split("`")
    marks = re.compile(r"(\*\w+\*)|[*|]|(?<=\w)_(?=\W|$)")  # a word in asterisks is emphasis here as well
    code[::2] = [marks.sub(lambda mark: mark[1] or f"\\{mark[0]}", text) for text in code[::2]]
    return "`".join(code)
