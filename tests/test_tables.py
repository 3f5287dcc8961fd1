"""Tables of text: every column as wide as its widest cell, whatever stands in it."""

import pytest

from moe_course.tables import markdown_table, text_table

ROWS = [("model", "parameters", "note"), ("a", "7", "x"), ("a longer name", "1,234,567,890,123", "")]


def test_columns_line_up_and_nothing_is_cut():
    assert text_table(ROWS, left=(0, 2), rules=(1,)).splitlines() == [
        "model                 parameters  note",
        "-" * 38,
        "a                              7  x",
        "a longer name  1,234,567,890,123",
    ]


def test_numbers_stand_at_the_right_unless_the_column_is_named():
    assert text_table([("a", "b"), ("ccc", "ddd")], left=()).splitlines() == ["  a    b", "ccc  ddd"]


def test_a_row_of_another_length_is_named():
    with pytest.raises(ValueError, match=r"2 cells in a table of 3 columns: \['x', 'y'\]"):
        text_table([*ROWS, ("x", "y")])


def test_an_empty_table_is_empty():
    assert text_table([]) == ""


def test_markdown():
    assert markdown_table(("name", "count"), [("a", "1")]) == "| name | count |\n| --- | --: |\n| a | 1 |"
