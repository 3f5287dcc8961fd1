"""Tables of text: in columns for a terminal, and in Markdown for the documents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def text_table(
    rows: Iterable[Sequence[str]], *, left: Sequence[int] = (0,), rules: Sequence[int] = ()
) -> str:
    """Rows of cells in columns as wide as their widest cell, two blanks apart; trailing blanks are cut.

    The columns numbered in `left` are left-aligned, all others right-aligned, as numbers are read. A line is drawn
    before each row numbered in `rules`. Raises ValueError when a row is longer or shorter than the first.
    """
    table = [list(row) for row in rows]
    for row in table:
        if len(row) != len(table[0]):
            raise ValueError(f"a row of {len(row)} cells in a table of {len(table[0])} columns: {row}")
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines: list[str] = []
    for number, row in enumerate(table):
        if number in rules:
            lines.append("-" * (sum(widths) + 2 * (len(widths) - 1)))
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: Sequence[int] = (0,)) -> str:
    """A table in Markdown; columns numbered in `left` are left-aligned, all others right-aligned, as numbers are."""
    lines = [head, ["---" if column in left else "--:" for column in range(len(head))], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
