"""The far side of grading: the process that runs a learner's code, the wire to it, and the walls around it.

It may import `exercises`. Begin with `serve.py` (what runs inside) and `sandbox.py` (what it may see and use).
"""
