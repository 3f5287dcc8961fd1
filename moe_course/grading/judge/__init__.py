"""From a learner's code to a verdict, live in a notebook and in batch, and the name of the mistake.

It may import `exercises`, `submission` and `worker`. Begin with `verdict.py`; `subject.py` is the code under test.
"""
