"""What a notebook says of other notebooks must be true: that they exist, and that they come back to the subject."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from nbformat import NotebookNode

from moe_course.authoring.exercise_rules import markdown_cells

PLANNED: tuple[str, ...] = ()
"""Numbers of notebooks that do not exist yet and may be promised."""

_MENTION = re.compile(r"\bnotebooks? (\d\d(?:(?:, | and | to )\d\d)*)")
_SENTENCE = re.compile(r"(?<=[.?!])\s+|\n+")
_WORD = re.compile(r"[^\W\d_]{4,}")
STEM = 6  # letters in which two forms of a word agree


def broken(notebooks: Mapping[str, NotebookNode]) -> Iterator[tuple[str, str, str]]:
    """(notebook, cell, what is wrong) for each broken promise in notebooks, given by names such as 02_topk_routing.

    A sentence that names another notebook must not call an existing one "to come". A promise, which names a later
    notebook, is kept if that one has one of its telling words: those that fewer than half of the notebooks have.
    """
    words = {
        name[:2]: _stems("\n".join(cell.source for cell in book.cells)) for name, book in notebooks.items()
    }
    known = Counter(word for found in words.values() for word in found)
    for name, notebook in notebooks.items():
        for cell in markdown_cells(notebook):
            for sentence in _SENTENCE.split(cell.source):
                for number in _numbers(sentence):
                    if wrong := _wrong(sentence, number, name[:2], words, known):
                        yield name, cell.id, wrong


def _wrong(sentence: str, number: str, here: str, words: Mapping[str, set[str]], known: Counter[str]) -> str:
    if number not in words:
        return "" if number in PLANNED else f"there is no notebook {number}"
    if "to come" in sentence:
        return f"notebook {number} is called “to come”, and is there"
    telling = {word for word in _stems(_MENTION.sub("", sentence)) if known[word] < len(words) / 2}
    if number > here and telling and not telling & words[number]:
        return f"notebook {number} never speaks of {', '.join(sorted(telling))}"
    return ""


def _numbers(sentence: str) -> list[str]:
    return [number for mention in _MENTION.findall(sentence) for number in re.findall(r"\d\d", mention)]


def _stems(text: str) -> set[str]:
    return {word[:STEM].lower() for word in _WORD.findall(text)}
