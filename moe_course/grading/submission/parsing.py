"""Any bytes that a learner may hand in, read into a plain notebook of today's format, or refused with a reason.

Every cell is built anew from the fields the format knows, so that what later steps read has the right types.
Outputs are dropped: grading makes its own.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from nbformat import NotebookNode

MAX_BYTES = 200_000_000  # of the file, outputs included
MAX_VALUES = 5_000_000  # brackets and commas of the JSON: a bound on the memory that parsing it takes
MAX_SOURCE = 20_000_000  # characters of all cells together
MAX_CELLS = 2_000
MAX_DEPTH = 100
KINDS = ("code", "markdown", "raw")


class Ungradable(ValueError):
    """What was handed in cannot be graded; the message says what a person can do about it."""


class Notes:
    """What was repaired, said once for each kind of damage with the cells it befell."""

    def __init__(self) -> None:
        self._told: dict[str, list[str]] = {}

    def add(self, sentence: str, *who: str) -> None:
        """Note `sentence` about `who` (a cell or an exercise), or about the whole file."""
        told = self._told.setdefault(sentence, [])
        told += [name for name in who if name not in told]

    def sentences(self) -> tuple[str, ...]:
        return tuple(f"{_listed(who)}: {what}" if who else what for what, who in self._told.items())


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more


def read_notebook(submitted: bytes | str | NotebookNode, notes: Notes) -> NotebookNode:
    """A notebook of format 4.5 without outputs; cells may still lack an id. Raises Ungradable."""
    raw = submitted if isinstance(submitted, Mapping) else _parsed(_text(submitted, notes))
    version = _version(raw, notes)
    sheets = _list(raw.get("worksheets")) if version == 3 else [raw]
    found = [cell for sheet in sheets if isinstance(sheet, Mapping) for cell in _list(sheet.get("cells"))]
    if len(found) > MAX_CELLS:
        raise Ungradable(f"the notebook has {len(found)} cells, more than {MAX_CELLS}; ask for a smaller one")
    cells = [_cell(cell, f"cell {place}", notes) for place, cell in enumerate(found, 1)]
    kept = [cell for cell in cells if cell is not None]
    size = sum(len(cell.source) for cell in kept)
    if size > MAX_SOURCE:
        raise Ungradable(
            f"the cells hold {size:,} characters, more than {MAX_SOURCE:,}; ask for a smaller file"
        )
    metadata = raw.get("metadata")
    plain = _plain(metadata) if isinstance(metadata, Mapping) else NotebookNode()
    return NotebookNode(nbformat=4, nbformat_minor=5, metadata=plain, cells=kept)


def _text(submitted: bytes | str, notes: Notes) -> str:
    if len(submitted) > MAX_BYTES:
        raise Ungradable(
            f"the file has {len(submitted) // 1_000_000} MB, more than {MAX_BYTES // 1_000_000}; ask the learner "
            f"to clear all outputs, save and hand in again"
        )
    if not submitted.strip():
        raise Ungradable("the file is empty; ask the learner to hand in again")
    try:
        text = submitted.decode("utf-8") if isinstance(submitted, bytes) else submitted
    except UnicodeDecodeError as error:
        raise Ungradable(
            f"not UTF-8 text (byte {error.start}); ask for the .ipynb file as Jupyter saves it"
        ) from None
    if text.startswith("\ufeff"):
        notes.add("a byte order mark at the start of the file was removed")
    return text.removeprefix("\ufeff")


def _parsed(text: str) -> Mapping[str, Any]:
    if sum(map(text.count, "[{,")) > MAX_VALUES:
        raise Ungradable(
            "the file holds too many values; ask the learner to clear all outputs and hand in again"
        )
    try:
        parsed = json.loads(text)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated")
        what = "the file is cut off" if cut else "the file is not JSON"
        raise Ungradable(
            f"{what} ({error.msg}, line {error.lineno}); ask the learner to save and hand in again"
        ) from None
    except RecursionError:
        raise Ungradable("the file's JSON is nested too deeply; ask the learner for a new copy") from None
    except (ValueError, MemoryError) as error:
        raise Ungradable(
            f"the file's JSON cannot be read ({type(error).__name__}); ask for a new copy"
        ) from None
    if not isinstance(parsed, Mapping):
        raise Ungradable("the file is JSON but not a notebook; ask the learner for the .ipynb file")
    return parsed


def _version(raw: Mapping[str, Any], notes: Notes) -> int:
    """The major format, 3 or 4. A missing or garbled number is guessed from where the cells are."""
    where = {3: "worksheets", 4: "cells"}
    held = [version for version, field in where.items() if isinstance(raw.get(field), list)]
    major, minor = raw.get("nbformat"), raw.get("nbformat_minor", 0)
    if type(major) is int and major not in where and (held or "metadata" in raw):
        raise Ungradable(
            f"nbformat {_short(major)} is not known here; open the notebook in JupyterLab 4 and save it again"
        )
    if not held:
        raise Ungradable("the file is JSON but not a notebook (it has no cells); ask for the .ipynb file")
    if major not in held:
        notes.add("the notebook's format number was missing or wrong: put right")
        return held[-1]
    if major == 3:
        notes.add("the notebook was in the old format 3: upgraded to 4.5")
    elif minor != 5:
        notes.add(f"the notebook was in format 4.{_short(minor)}: now 4.5")
    return int(major)


def _cell(raw: Any, who: str, notes: Notes) -> NotebookNode | None:
    if not isinstance(raw, Mapping):
        notes.add("not a cell at all: left out", who)
        return None
    kind, text = raw.get("cell_type"), raw.get("source", raw.get("input"))
    source = _clean(text if isinstance(text, str) else "".join(s for s in _list(text) if isinstance(s, str)))
    if not isinstance(text, str | list):
        notes.add("held no text: now empty", who)
    if kind == "heading" and "\n" not in source:  # of format 3, one line each; an answer has more
        kind, source = "markdown", f"{'#' * _level(raw.get('level'))} {source}"
    elif kind not in KINDS:
        kind = "code" if "outputs" in raw or "execution_count" in raw else "raw"
        notes.add(f"not a type of cell that Jupyter knows: now {kind}", who)
    metadata = raw.get("metadata")
    plain = _plain(metadata) if isinstance(metadata, Mapping) else NotebookNode()
    cell = NotebookNode(cell_type=kind, source=source, metadata=plain)
    if isinstance(raw.get("id"), str):
        cell.id = _clean(raw["id"])
    if kind == "code":
        cell.update(outputs=[], execution_count=None)
    elif isinstance(raw.get("attachments"), Mapping):
        cell.attachments = _plain(raw["attachments"])
    return cell


def _level(level: Any) -> int:
    return min(level, 6) if type(level) is int and level > 0 else 1


def _plain(value: Any, depth: int = 0) -> Any:
    """A copy with nothing in it that a UTF-8 file of strict JSON cannot hold."""
    if depth > MAX_DEPTH:
        raise Ungradable(f"the metadata is nested more than {MAX_DEPTH} deep; ask the learner for a new copy")
    if isinstance(value, Mapping):
        return NotebookNode({_clean(str(key)): _plain(item, depth + 1) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _clean(text: str) -> str:
    """`text` with its lone surrogates, which no file can hold, replaced."""
    return re.sub(r"[\ud800-\udfff]", "\ufffd", text)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _short(value: Any) -> str:
    return repr(value)[:20]
