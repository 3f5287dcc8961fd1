"""What test_notebooks.py asks of the released notebooks, asked of those with answers; a file of its own, so that the
two can run side by side."""

from test_notebooks import (  # noqa: F401
    test_runs_top_to_bottom,
    test_the_same_score_from_the_command_and_from_pytest,
)

TREE = "solutions"
