"""What the notebooks use besides the library: the self-check, predictions, the tiny MoE, and the learner's folder.

It may import the library, `viz` and `grading`. Begin with `checking.py` (what `check` does in a notebook) and
`assemble.py` (the layer that is built from a learner's own functions).
"""

from moe_course.lazy import lazy_exports

_HOME = {
    "check": "checking",
    "working": "checking",
    "predict": "predictions",
    "reveal": "predictions",
    "mine": "assemble",
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _HOME)
