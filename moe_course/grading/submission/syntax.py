"""The syntax tree of a notebook cell, IPython's own syntax included, and the names that a statement defines."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator

# Cell magics whose body is no Python of this notebook.
FOREIGN = {
    *(
        "!",
        "bash",
        "cmd",
        "file",
        "HTML",
        "html",
        "javascript",
        "js",
        "latex",
        "markdown",
        "perl",
        "pypy",
        "python",
    ),
    *("python2", "python3", "ruby", "script", "sh", "SVG", "svg", "sx", "system", "writefile"),
}
_CELL_MAGIC = re.compile(r"\s*%%(!|\w+)([^\n]*)")
_LINE_MAGIC = re.compile(r"^([ \t]*)(?:[%!][^\n]*|\?{1,2}[\w.*]+|[\w.*]+\?{1,2})[ \t]*$", re.MULTILINE)
_ASSIGNED_MAGIC = re.compile(r"^([\w.,\[\] \t]+=[ \t]*)[%!][^\n]*$", re.MULTILINE)
MAX_PARSED = 1_000_000  # characters; longer code is only searched for `def` and `class`


def parsed(source: str) -> ast.Module | None:
    """The syntax tree of a piece of code, or None where it has none: broken, too long, nested too deeply.

    Lines that only IPython understands count as `pass`, and what they assign as None. A cell magic such as %%time is
    left out; the body of one that is no Python, such as %%bash, counts as nothing. Lines and columns are kept.
    """
    if len(source) > MAX_PARSED:
        return None
    tree = _parsed(source)
    return _parsed(_as_python(source)) if tree is None else tree


def _parsed(source: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _as_python(source: str) -> str:
    """The code with IPython's own syntax replaced, line by line."""
    if magic := _CELL_MAGIC.match(source):
        if magic[1] in FOREIGN:
            return ""
        source = "\n" * magic[0].count("\n") + source[magic.end() :]
    source = _ASSIGNED_MAGIC.sub(r"\1None", source)
    return _LINE_MAGIC.sub(r"\1pass", source)


def definitions_in(source: str) -> dict[str, str]:
    """{name: source of the statement that defines it}, for every name that code defines at its top level.

    A definition may stand inside an `if`, `with`, `for` or `try`. Where the code does not parse, lines that begin
    with `def` or `class` name what it would have defined, and the source is the whole.
    """
    tree = parsed(source)
    if tree is None:
        named = re.findall(r"^(?:async\s+)?(?:def|class)\s+(\w+)", source, flags=re.MULTILINE)
        return dict.fromkeys(named, source)
    return {name: _text_of(node, source) for node in tree.body for name in bound(node)}


def _text_of(node: ast.stmt, source: str) -> str:
    """The lines of a statement, its decorators included."""
    above = [decorator.lineno for decorator in getattr(node, "decorator_list", ())]
    return "".join(lines_of(source)[min(above, default=node.lineno) - 1 : node.end_lineno]).rstrip("\r\n")


def lines_of(source: str) -> list[str]:
    """The lines with their ends, counted as Python counts them: a form feed, for example, ends none."""
    return re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", source)


def bound(node: ast.stmt) -> list[str]:
    """The names that a statement defines or assigns. An import binds none: an imported answer is no attempt."""
    return list(dict.fromkeys(_bound(node)))


def _bound(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Name):
        if isinstance(node.ctx, ast.Store):
            yield node.id
    elif not isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        for inner in ast.iter_child_nodes(node):
            yield from _bound(inner)


def without_docstrings(node: ast.AST) -> ast.AST:
    """The node itself, with every docstring inside taken out."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    for inner in ast.walk(node):
        if isinstance(inner, kinds) and ast.get_docstring(inner, clean=False) is not None:
            inner.body = inner.body[1:] or [ast.Pass()]
    return node
