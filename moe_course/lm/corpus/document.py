"""A document of the corpus, and two things that its name alone decides: its split and its place in the order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

SPLITS = ("train", "validation", "test")
"""The splits, in the order in which they are always listed."""


@dataclass(frozen=True)
class Document:
    """One text with a name and the domain it belongs to.

    The name says where the text comes from: "code/asyncio/queues.py". The part before a "#" is the group:
    documents of one group describe the same thing ("facts/territory/FR#0", "facts/territory/FR#1"), and they
    are always in the same split.
    """

    id: str
    domain: str
    text: str

    @property
    def group(self) -> str:
        return self.id.partition("#")[0]

    @property
    def size(self) -> int:
        """Bytes of UTF-8."""
        return len(self.text.encode("utf-8"))

    def pieces(self) -> Iterator[str]:
        """The text; only a `FilePart` has several pieces."""
        yield self.text


def split_of(group: str) -> str:
    """Train, validation or test (90, 5 and 5 of 100), decided by a hash of the group's name and nothing else.

    So a document stays in its split when other documents are added or removed.
    """
    percent = _hash(f"split {group}") % 100
    return "train" if percent < 90 else "validation" if percent < 95 else "test"


def shuffle_key(group: str) -> tuple[int, str]:
    """A sort key that shuffles groups in the same way on every machine. A size limit takes them in this order."""
    return _hash(f"turn {group}"), group


def take(documents: Iterable[Document], limit: int) -> Iterator[Document]:
    """Documents, none of them cut, until `limit` bytes are reached; the last one may exceed the limit."""
    size = 0
    for document in documents:
        if size >= limit:
            return
        yield document
        size += document.size


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8")).digest()[:8], "big")
