"""Reading the teachers' Markdown: its parts under headings, and the Python in them."""

import re


def parts(text, heading):
    """{rest of the heading: text below it} for all headings that begin so, each up to the next of its level."""
    level = heading.split()[0]
    pieces = re.split(rf"^(?={level} )", text, flags=re.MULTILINE)
    found = (piece.removeprefix(heading).partition("\n") for piece in pieces if piece.startswith(heading))
    return {title: below for title, _, below in found}


def fences(text):
    """The sources of the ```python fences."""
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
