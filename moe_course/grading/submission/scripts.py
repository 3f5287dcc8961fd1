"""A notebook that was saved as a Python file: its cells, found again at the markers that the tool wrote.

    # In[3]:                    jupyter nbconvert --to script
    # %%   # %% [markdown]      jupytext's percent format, VS Code, Spyder, PyCharm
    # +  …  # -                 jupytext's light format
    # COMMAND ----------        Databricks

In a file without markers the released demonstrations are found by their text.
"""

from __future__ import annotations

import ast
import io
import itertools
import json
import re
import tokenize
from collections.abc import Collection, Iterator
from typing import Any

from moe_course.grading.submission.syntax import FOREIGN, lines_of, parsed

_NUMBERED = re.compile(r"# In ?\[[\d *]*\]:?\s*")
_PERCENT = re.compile(r"#\s?%%(?!%)(.*)")
_CODECELL = re.compile(r"#\s*(?:<codecell>|<markdowncell>|<rawcell>|COMMAND -{5,})\s*")
_LIGHT_START, _LIGHT_END = re.compile(r"# (?:\+|region)(?:\s.*)?"), re.compile(r"# (?:-|endregion)\s*")
_TEXT_CELL = re.compile(r"(?:.*\s)?\[(?:markdown|md|raw)\].*|\s*md\s*|.*cell_type=\"(?:markdown|raw)\".*")
_MAGICS = FOREIGN | {"time", "timeit", "capture", "prun", "debug", "memit", "mprun", "lprun"}
_COMMENTED_ASSIGNMENT = re.compile(r"^# ([A-Za-z_]\w*\s*=\s*[%!][A-Za-z].*)$", re.MULTILINE)
_LIGHT_HEADER = re.compile(r"^#\s+format_name: light\s*$", re.MULTILINE)


def cells_of(text: str, demonstrations: Collection[tuple[str, ...]]) -> list[str]:
    """The code cells of a Python file, in order; a file of plain functions is one cell.

    demonstrations: the released ones by the form of their statements, see `statement_forms`.
    """
    marked = marked_cells(text)
    return _unmarked_cells(text, demonstrations) if marked is None else marked


def marked_cells(text: str) -> list[str] | None:
    """The code cells between the markers of a notebook saved as a script, or None where there are no markers."""
    lines = [line.rstrip("\r\n") for line in lines_of(text)]
    if any(map(_is_marker, lines)):
        return [source for source in map(_restored, _split(lines)) if source.strip()]
    starts = sum(_LIGHT_START.fullmatch(line) is not None for line in lines)
    ends = sum(_LIGHT_END.fullmatch(line) is not None for line in lines)
    if _LIGHT_HEADER.search(text) or (starts and ends):
        return [source for source in map(_restored, _split_light(lines)) if source.strip()]
    return None


def _is_marker(line: str) -> bool:
    return any(form.fullmatch(line) for form in (_NUMBERED, _PERCENT, _CODECELL))


def _split(lines: list[str]) -> Iterator[str]:
    """The text between the markers; what a marker calls markdown or raw is left out."""
    cell: list[str] = []
    is_code = True
    for line in [*lines, "# %%"]:
        if not _is_marker(line):
            cell.append(line)
            continue
        if is_code:
            yield from _without_text_below("\n".join(cell).strip("\n"))
        percent = _PERCENT.fullmatch(line)
        title = percent[1] if percent else line
        magic = re.match(r"\w+|!", title)
        cell = (
            [f"%%{title}"] if percent and magic and magic[0] in _MAGICS else []
        )  # jupytext comments magics out
        is_code = not (_TEXT_CELL.fullmatch(title) or "<markdowncell>" in title or "<rawcell>" in title)


def _without_text_below(source: str) -> list[str]:
    """The code, and apart from it the comments below: nbconvert marks no text cell, so it follows the code cell."""
    tree = parsed(source)
    if tree is None or not tree.body:
        return [source]
    lines, end = lines_of(source), tree.body[-1].end_lineno or 0
    blank = next((n for n in range(end, len(lines)) if not lines[n].strip()), len(lines))
    return ["".join(lines[:blank]), "".join(lines[blank:])]


def _split_light(lines: list[str]) -> Iterator[str]:
    """The cells of jupytext's light format: between `# +` and `# -`, else paragraphs."""
    cell: list[str] = []
    is_open, is_code = False, True
    for line in [*lines, "# -"]:
        starts, ends = _LIGHT_START.fullmatch(line), _LIGHT_END.fullmatch(line)
        if not starts and not ends:
            cell.append(line)
            continue
        if is_code:
            yield from ["\n".join(cell)] if is_open else paragraphs("\n".join(cell))
        cell, is_open = [], starts is not None
        is_code = not (starts and _TEXT_CELL.fullmatch(line))


def paragraphs(text: str) -> list[str]:
    """Code split at blank lines, where the next line begins at the margin and a statement can begin there."""
    going_on = r"(?:else|elif|except|finally)\b|[)\]}]"
    found: list[str] = []
    for piece in re.split(rf"\n[ \t]*(?:\n[ \t]*)*\n(?=[^\s])(?!{going_on})", text):
        whole = f"{found[-1]}\n\n{piece}" if found else ""
        if found and parsed(found[-1]) is None and parsed(whole) is not None:
            found[-1] = whole  # the blank line stood inside a string or brackets
        else:
            found.append(piece)
    return found


def _restored(source: str) -> str:
    """The cell as it was in the notebook: exporters write IPython's syntax as calls or as comments."""
    source = _COMMENTED_ASSIGNMENT.sub(r"\1", source.strip("\n"))
    tree = parsed(source)
    statements = tree.body if tree else []
    if len(statements) == 1 and isinstance(statements[0], ast.Expr):
        match _ipython_call(statements[0].value):
            case ("run_cell_magic", [str(name), str(line), str(body)]):
                return f"%%{name} {line}".rstrip() + f"\n{body}"
    lines = [line.rstrip("\r\n") for line in lines_of(source)]
    for node in statements:
        if isinstance(node, ast.Expr | ast.Assign) and node.lineno == node.end_lineno:
            before = f"{ast.unparse(node.targets[0])} = " if isinstance(node, ast.Assign) else ""
            match _ipython_call(node.value):
                case ("run_line_magic", [str(name), str(line)]):
                    lines[node.lineno - 1] = f"{before}%{name} {line}".rstrip()
                case ("system" | "getoutput", [str(line)]):
                    lines[node.lineno - 1] = f"{before}!{line}"
    return "\n".join(lines)


def _ipython_call(node: ast.expr) -> tuple[str, list[object]] | None:
    """(method, arguments) of `get_ipython().method("…", …)` with literal arguments."""
    match node:
        case ast.Call(
            func=ast.Attribute(value=ast.Call(func=ast.Name(id="get_ipython")), attr=method), args=args
        ) if all(isinstance(arg, ast.Constant) for arg in args):
            return method, [arg.value for arg in args if isinstance(arg, ast.Constant)]
    return None


def statement_forms(source: str) -> tuple[str, ...]:
    """The statements of code without their layout and comments; of code that does not parse, its text."""
    tree = parsed(source)
    try:
        return (source.strip(),) if tree is None else tuple(map(ast.dump, tree.body))
    except RecursionError:
        return (source.strip(),)


def _unmarked_cells(text: str, demonstrations: Collection[tuple[str, ...]]) -> list[str]:
    """A file without markers: the released demonstrations in it are cells, and so is what lies between them."""
    tree = parsed(text)
    if tree is None:  # an error costs the paragraph in which it stands, not the file
        return paragraphs(text)
    forms = statement_forms(text)
    if len(forms) != len(tree.body):
        return [text]
    longest = max(map(len, demonstrations), default=0)
    starts, at = {0, len(forms)}, 0
    while at < len(forms):
        sizes = range(min(longest, len(forms) - at), 0, -1)
        size = next((size for size in sizes if forms[at : at + size] in demonstrations), 0)
        size = size or int(_is_cell_magic(tree.body[at]))
        starts |= {at, at + size} if size else set()
        at += size or 1
    lines, ends = lines_of(text), [0, *(node.end_lineno or 0 for node in tree.body)]
    begins = sorted(starts)
    pieces = ["".join(lines[ends[one] : ends[next_]]) for one, next_ in itertools.pairwise(begins)]
    return [source for source in map(_restored, pieces) if source.strip()] or [text]


def _is_cell_magic(node: ast.stmt) -> bool:
    call = _ipython_call(node.value) if isinstance(node, ast.Expr) else None
    return call is not None and call[0] == "run_cell_magic"


def as_notebook(data: bytes) -> bytes | None:
    """A notebook that was saved as a script as the bytes of a notebook again; None where there are no markers."""
    try:
        cells = marked_cells(decoded(data))
    except (SyntaxError, UnicodeDecodeError):
        return None
    if cells is None:
        return None
    made: list[dict[str, Any]] = [
        {"cell_type": "code", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
        for source in cells
    ]
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": made}).encode()


def decoded(data: bytes) -> str:
    """The text of a Python file, in the encoding that its first lines name, else UTF-8.

    Raises SyntaxError for an unknown encoding, UnicodeDecodeError for other bytes.
    """
    text = data.decode(tokenize.detect_encoding(io.BytesIO(data).readline)[0])
    return text.replace("\r\n", "\n").replace("\r", "\n")
