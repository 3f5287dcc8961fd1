"""Markdown as HTML that loads nothing: its LaTeX formulas become MathML, which browsers draw without a script."""

from __future__ import annotations

import re

from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath


def as_html(text: str) -> str:
    """The HTML of a Markdown text. Tags in it are kept, so it must be the course's own.

    Raises ValueError for a formula that is not LaTeX, and where latex2mathml is missing.
    """
    return str(MarkdownWithMath(renderer=_Renderer(escape=False, exclude_anchor_links=True)).render(text))


class _Renderer(IPythonRenderer):
    def block_math(self, body: str) -> str:
        return _mathml(body, "block")

    def inline_math(self, body: str) -> str:
        return _mathml(body, "inline")


def _mathml(formula: str, display: str) -> str:
    try:
        from latex2mathml.converter import convert
    except ImportError:
        raise ValueError("formulas need latex2mathml: pip install latex2mathml") from None
    try:
        markup = convert(formula.strip(), display=display)
    except Exception as error:  # latex2mathml has no common type for its errors
        raise ValueError(f"{formula.strip()} is not LaTeX: {error or type(error).__name__}") from None
    if unknown := re.search(r"\\[a-zA-Z]+", markup):  # it passes on what it does not know
        raise ValueError(
            f"{formula.strip()} is not LaTeX: {unknown[0]} is no command that latex2mathml knows"
        )
    return markup
