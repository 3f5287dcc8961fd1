"""Which demonstrations of the course a submission needs: those whose values may reach one of its answers.

While a submission is graded, released demonstrations that the learner did not change are not run: they take time
and import what is masked. But an answer may use a helper which the learner computed from a demonstration's
variable. This module follows the names that an answer reads back to the statements that made them, through all
cells, and says which demonstrations are among these.
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from moe_course.grading.submission.syntax import parsed

_NOT_ENTERED = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda


@dataclass(frozen=True)
class _Statement:
    """A statement at the top level of a cell, and the place of its cell."""

    cell: int
    node: ast.stmt

    @cached_property
    def _table(self) -> symtable.SymbolTable | None:
        try:
            return symtable.symtable(ast.unparse(self.node), "<cell>", "exec")
        except (SyntaxError, ValueError, RecursionError):  # `return` outside a function, for example
            return None

    @cached_property
    def reads(self) -> dict[str, bool]:
        """{global name that the statement reads: whether a function reads it, when it is called}."""
        inside = _outside_functions(self.node)
        extended = [
            n.target for n in inside if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name)
        ]
        found = {target.id: False for target in extended}
        tables = [(self._table, False)] if self._table else []
        for table, called in tables:  # the list grows while it is walked
            for symbol in table.get_symbols():
                if symbol.is_referenced() and (table is self._table or symbol.is_global()):
                    found[symbol.get_name()] = found.get(symbol.get_name(), False) or called
            tables += [(inner, called or _is_called(inner)) for inner in table.get_children()]
        return found

    @cached_property
    def binds(self) -> frozenset[str]:
        """The names that the statement itself binds, imports included."""
        symbols = self._table.get_symbols() if self._table else ()
        return frozenset(s.get_name() for s in symbols if s.is_assigned() or s.is_imported())

    @cached_property
    def imports(self) -> dict[str, str]:
        """{name: the import that binds it}, for an import statement."""
        if not isinstance(self.node, ast.Import | ast.ImportFrom):
            return {}
        origin = f"{self.node.level} {self.node.module}" if isinstance(self.node, ast.ImportFrom) else ""
        return {(a.asname or a.name).split(".")[0]: f"{origin} {a.name}" for a in self.node.names}

    @cached_property
    def modifies(self) -> frozenset[str]:
        """The names whose value it changes in place, as far as its text shows: `x[0] = 1`, `x.append(1)`."""
        found: set[str] = set()
        for node in _outside_functions(self.node):
            if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
                found |= _root(node)
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                found |= _root(node.value.func) if isinstance(node.value.func, ast.Attribute) else set()
        return frozenset(found)


def needed(cells: Sequence[str], answers: Collection[int], demonstrations: Collection[int]) -> set[int]:
    """The places of the demonstrations that the answers read from, directly or through other cells.

    cells: all code cells of a notebook in its order; answers, demonstrations: their places among the cells.
    A name leads to the last statement before the reader that binds it and to those in between that change its
    value. A function reads its names when it is called, so there the last statement of the notebook counts too.
    """
    trees = {place: parsed(source) for place, source in enumerate(cells)}
    statements = [_Statement(place, node) for place, tree in trees.items() if tree for node in tree.body]
    wanted = [at for at, statement in enumerate(statements) if statement.cell in answers]
    seen = set(wanted)
    while wanted:
        reader = wanted.pop()
        for name, called in statements[reader].reads.items():
            sources = set(_origin(statements, name, reader))
            sources |= set(_origin(statements, name, len(statements))) if called else set()
            wanted += sources - seen
            seen |= sources
    return {statements[at].cell for at in seen if statements[at].cell in demonstrations}


def defines(source: str) -> frozenset[str]:
    """The names that a cell binds, without those that it imports."""
    tree = parsed(source)
    statements = [_Statement(0, node) for node in (tree.body if tree else ())]
    return frozenset(name for each in statements for name in each.binds - each.imports.keys())


def _origin(statements: Sequence[_Statement], name: str, before: int) -> Iterator[int]:
    """The last statement above `before` that binds `name`, and those between that change the value."""
    changes: list[int] = []
    for at in range(before - 1, -1, -1):
        statement = statements[at]
        if name in statement.binds:
            yield _first_import(statements, name, at)
            if name not in statement.imports:  # a module is configured by many, and needed for what it holds
                yield from changes
            return
        if name in statement.modifies:
            changes.append(at)


def _first_import(statements: Sequence[_Statement], name: str, at: int) -> int:
    """The place of the first import that is the same as the one at `at`: the set-up's, rather than a repetition."""
    imported = statements[at].imports.get(name)
    if imported is None:
        return at
    return next(first for first in range(at + 1) if statements[first].imports.get(name) == imported)


def _is_called(table: symtable.SymbolTable) -> bool:
    """Whether it is that of a function or lambda; a comprehension's and a class's names are read at once."""
    comprehensions = ("listcomp", "setcomp", "dictcomp", "genexpr")
    return isinstance(table, symtable.Function) and table.get_name() not in comprehensions


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all inside it, but nothing inside a function or class, which has names of its own."""
    yield node
    for inner in ast.iter_child_nodes(node):
        if not isinstance(inner, _NOT_ENTERED) and not isinstance(node, _NOT_ENTERED):
            yield from _outside_functions(inner)


def _root(node: ast.AST) -> set[str]:
    """The name at the bottom of `name[...].attribute`, if there is one."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return {node.id} if isinstance(node, ast.Name) else set()
