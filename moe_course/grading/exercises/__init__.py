"""What is graded, and how a criterion is written: the registry, rubrics, comparisons, and the data that may cross.

It imports no other room of grading. Begin with `registry.py` (what exists) and `rubric.py` (how a grader is written).
"""
