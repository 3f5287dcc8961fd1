"""A data set of Hugging Face, streamed into a file of the cache: as much of it as asked for, and no more than once.

The texts of the rows stand one after the other in a .txt file; an .ends file has the byte where each of them ends,
int64. A row without text ends where it begins. A download that broke off, or that was smaller, goes on where it
ended.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from filelock import FileLock

from moe_course.lm.corpus.cache import cache_folder
from moe_course.lm.corpus.document import SPLITS, split_of
from moe_course.lm.corpus.text_file import PIECE_BYTES, FilePart
from moe_course.progress import Progress

SHOWN_BYTES = 20_000_000
"""From this size on a download shows how far it is."""


@dataclass(frozen=True)
class Rows(Sequence[FilePart]):
    """The documents of a split: each is made when it is asked for, since there may be millions.

    ends: where each row of the file ends, for all splits. numbers: the rows of this one.
    """

    name: str
    path: Path
    ends: np.ndarray
    numbers: np.ndarray
    stamp: tuple[int, int]

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, place: int) -> FilePart: ...
    @overload
    def __getitem__(self, place: slice) -> Rows: ...
    def __getitem__(self, place: int | slice) -> FilePart | Rows:
        if isinstance(place, slice):
            return Rows(self.name, self.path, self.ends, self.numbers[place], self.stamp)
        number = int(self.numbers[place])
        first = int(self.ends[number - 1]) if number else 0
        row = f"{self.name}/{number:08}"
        return FilePart(row, self.name, self.path, first, int(self.ends[number]), self.stamp)


def splits(
    spec: str, name: str, configuration: str | None, limit: int
) -> tuple[dict[str, Rows], str, dict[str, str]]:
    """The documents of each split, a fingerprint of the text, and the version that read it.

    These are the rows of the training split's "text" column that begin within the first `limit` bytes, split by hash.
    Raises ValueError if the data set cannot be read, lacks the column or holds no text.
    """
    try:
        datasets: Any = importlib.import_module("datasets")
    except ImportError as error:
        raise ValueError(f"{spec!r} needs the package `datasets`: pip install datasets") from error
    version = str(datasets.__version__)
    key = hashlib.sha256(repr((name, configuration, version)).encode()).hexdigest()[:16]
    text = cache_folder() / f"hub-{key}.txt"
    text.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(text.with_suffix(".lock")):
        ends = _whole_rows(text)
        if not len(ends) or ends[-1] < limit:
            _download(
                spec,
                text,
                ends,
                limit,
                lambda: datasets.load_dataset(name, configuration, split="train", streaming=True),
            )
            ends = _whole_rows(text)
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]]) if len(ends) else ends
        ends = ends[: np.searchsorted(starts, limit)]
    filled = np.flatnonzero(np.diff(ends, prepend=0))
    if not len(filled):
        raise ValueError(f"{spec!r} holds no text")
    stat = text.stat()
    stamp = stat.st_size, stat.st_mtime_ns
    kinds = np.array([SPLITS.index(split_of(f"{name}/{number:08}")) for number in filled.tolist()])
    found = {split: Rows(name, text, ends, filled[kinds == at], stamp) for at, split in enumerate(SPLITS)}
    return found, _fingerprint(text, ends), {"datasets": version}


def _download(spec: str, text: Path, ends: np.ndarray, limit: int, open_rows: Any) -> None:
    """Append rows to both files until the text has `limit` bytes or there are no more rows."""
    size = int(ends[-1]) if len(ends) else 0
    shown = limit - size > SHOWN_BYTES
    try:
        rows = open_rows()
        rows = rows.skip(len(ends)) if len(ends) else rows
        with (
            text.open("ab") as texts,
            text.with_suffix(".ends").open("ab") as marks,
            Progress(f"{spec} downloaded", limit, "bytes", size, shown=shown) as progress,
        ):
            for content in _texts(spec, rows):
                texts.write(content)
                texts.flush()  # before the mark: a marked row is whole
                size += len(content)
                marks.write(np.int64(size).tobytes())
                progress.add(len(content))
                if size >= limit:
                    break
    except ValueError:
        raise
    except (
        Exception
    ) as error:  # many kinds: no network, no such data set, no permission to read it, a full disk
        raise ValueError(f"{spec!r} cannot be loaded: {error}; what has come is kept") from error


def _texts(spec: str, rows: Any) -> Iterator[bytes]:
    row: Mapping[str, Any]
    for row in rows:
        if not isinstance(row.get("text"), str):
            raise ValueError(f"{spec!r} has no column 'text'; it has {', '.join(map(repr, row))}")
        yield row["text"].encode("utf-8") if row["text"].strip() else b""


def _whole_rows(text: Path) -> np.ndarray:
    """The ends of the rows that are whole. What was written of a further one is cut off."""
    marks = text.with_suffix(".ends")
    if not (text.exists() and marks.exists()):
        text.unlink(missing_ok=True)
        marks.unlink(missing_ok=True)
        return np.empty(0, np.int64)
    size = text.stat().st_size
    content = marks.read_bytes()
    ends = np.frombuffer(content[: len(content) // 8 * 8], np.int64)
    ends = ends[ends <= size]
    for path, whole in ((text, int(ends[-1]) if len(ends) else 0), (marks, 8 * len(ends))):
        if path.stat().st_size != whole:
            with path.open("r+b") as file:
                file.truncate(whole)
    return ends


def _fingerprint(text: Path, ends: np.ndarray) -> str:
    """The SHA-256 of the rows and of where they end."""
    digest, left = hashlib.sha256(ends.tobytes()), int(ends[-1])
    with text.open("rb") as file:
        while left and (piece := file.read(min(PIECE_BYTES, left))):
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()
