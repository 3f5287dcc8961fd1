"""`check(function)` for a namespace without the course's notebooks: judged where it lives, nothing is remembered.

In the worker of batch grading it does nothing, and loads nothing of the judge.
"""

from __future__ import annotations

import sys
from typing import Any

from moe_course.grading.exercises import protocol


def check(*parts: Any) -> float:
    """Check an exercise: prints its rubric and returns the score, which nbgrader reads as the points.

    Pass the function or class you wrote; an exercise of two parts takes both: check(quantize, dequantize).
    """
    if protocol.CHECKS_DISABLED:
        return 0.0
    from moe_course.grading.judge import live, rendering

    verdict = live.examine(*parts, namespace=sys._getframe(1).f_globals)
    rendering.display(verdict)
    return verdict.score
