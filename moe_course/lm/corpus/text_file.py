"""A text file of any size: it is read piece by piece, and never held in memory as a whole."""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

PIECE_BYTES = 1 << 20
"""So much of a file is read at a time."""


@dataclass(frozen=True)
class FilePart:
    """What a `Document` is, for the bytes first … last − 1 of a UTF-8 file. `stamp`: the file's size and time."""

    id: str
    domain: str
    path: Path
    first: int
    last: int
    stamp: tuple[int, int] = field(compare=False)

    @property
    def text(self) -> str:
        """All of it: think of the memory."""
        return "".join(self.pieces())

    @property
    def size(self) -> int:
        """Bytes."""
        return self.last - self.first

    def pieces(self) -> Iterator[str]:
        """The text in pieces. Raises ValueError if the file is not what it was when it was loaded."""
        if _stamp(self.path) != self.stamp:
            raise ValueError(f"{self.path} has changed since it was loaded")
        return (text for _, text in _decoded(self.path, self.first, self.last))


def split(path: Path, share: float) -> tuple[FilePart, FilePart, str]:
    """A file cut after int(share · n) of its n characters, and the SHA-256 of its bytes.

    Raises ValueError if it cannot be read, is not UTF-8, or if there is nothing before the cut.
    """
    digest, characters, marks = hashlib.sha256(), 0, []
    try:
        stamp = _stamp(path)
        for start, text in _decoded(path, 0, stamp[0]):
            marks.append((characters, start))
            digest.update(text.encode("utf-8"))
            characters += len(text)
        cut = int(share * characters)
        if cut == 0:
            raise ValueError(f"{path} has {characters} character(s): too few to split")
        before, start = [mark for mark in marks if mark[0] <= cut][-1]
        _, text = next(_decoded(path, start, stamp[0]))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    middle = start + len(text[: cut - before].encode("utf-8"))
    train = FilePart("text/train", "text", path, 0, middle, stamp)
    return train, FilePart("text/validation", "text", path, middle, stamp[0], stamp), digest.hexdigest()


def parts(pieces: Iterable[str], longest: int) -> Iterator[str]:
    """A text that comes in pieces, cut anew into parts of at most `longest` characters.

    A part ends before white space (blank, tab, line end) that follows something else: no token of byte pairs reaches
    across such a place, so the parts have the tokens of the whole. Where there is no such place within `longest`
    characters, the part ends there all the same. How the text came in pieces makes no difference.
    """
    rest = ""
    for piece in pieces:
        rest, start = rest + piece, 0
        while len(rest) - start > longest:  # one more, to see what follows
            found = _cut(longest).match(rest, start)
            end = found.end() if found else start + longest
            yield rest[start:end]
            start = end
        rest = rest[start:]
    if rest:
        yield rest


@lru_cache
def _cut(longest: int) -> re.Pattern[str]:
    """The most characters, at most `longest`, before a place where a part may end."""
    return re.compile(rf"(?s:.){{0,{longest - 1}}}\S(?=[ \t\n\r])")


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _decoded(path: Path, first: int, last: int) -> Iterator[tuple[int, str]]:
    """(byte where it starts, text) of each piece between two bytes, which must not be within a character."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        file.seek(first)
        start = first
        while start < last:
            content = file.read(min(PIECE_BYTES, last - file.tell()))
            held = len(decoder.getstate()[0])  # the bytes of a character that the last piece cut
            try:
                text = decoder.decode(content, final=file.tell() >= last or not content)
            except UnicodeDecodeError as error:
                place = file.tell() - len(content) - held + error.start
                byte = error.object[error.start]
                raise ValueError(
                    f"{path} is not UTF-8: byte {place} is 0x{byte:02x}, {error.reason}"
                ) from error
            if not content:
                return
            if text:
                yield start, text
            start = file.tell() - len(decoder.getstate()[0])
