"""Tools of those who write the course.

It may import `grading`. Begin with `release.py`, which makes notebooks/ from solutions/, and `rules.py`, which
lists the rules of a notebook.
"""
