"""What the notebooks use besides the library: the self-check, committed predictions, the thread's tiny MoE."""

from moe_course.lazy import face

_HOME = {
    "check": "checking",
    "working": "checking",
    "predict": "predictions",
    "reveal": "predictions",
    "mine": "assemble",
}

__all__, __getattr__, __dir__ = face(__name__, _HOME)
