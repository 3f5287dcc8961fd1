"""Many submissions: graded side by side, recorded on disk, exported to platforms, drawn on the instructor's page.

It may import every other room of grading. Begin with `grade_cohort.py`, the command; `ledger.py` is what is on disk.
"""
