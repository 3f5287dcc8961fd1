"""A document of the corpus, and the two choices that its name alone decides: its split and its turn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

SPLITS = ("train", "validation", "test")
"""In the order in which they are always given."""


@dataclass(frozen=True)
class Document:
    """One text with a name and the domain it belongs to.

    The name says where the text comes from: "code/asyncio/queues.py". What stands before a "#" is the group:
    documents of one group tell of the same thing ("facts/territory/FR#0", "facts/territory/FR#1") and are
    never parted by a split.
    """

    id: str
    domain: str
    text: str

    @property
    def group(self) -> str:
        return self.id.partition("#")[0]


def split_of(group: str) -> str:
    """Train, validation or test (90, 5 and 5 of 100), by a hash of the group's name and nothing else.

    So a document stays in its split when others come or go.
    """
    percent = _hash(f"split {group}") % 100
    return "train" if percent < 90 else "validation" if percent < 95 else "test"


def turn(group: str) -> tuple[int, str]:
    """Sort key that shuffles groups in the same way on every machine. A size limit takes them in this order."""
    return _hash(f"turn {group}"), group


def take(documents: Iterable[Document], limit: int) -> Iterator[Document]:
    """Whole documents until `limit` bytes are reached; the last one may pass it."""
    size = 0
    for document in documents:
        if size >= limit:
            return
        yield document
        size += len(document.text.encode("utf-8"))


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8")).digest()[:8], "big")
