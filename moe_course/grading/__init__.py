"""Graders' machinery: the exercise registry, the self-check, the judge and the worker.

It imports nothing of the library it grades against (`moe`, `lm`, `systems`), so those can be masked.
"""

from moe_course.lazy import lazy_exports

_HOME = {"check": "check", "EXERCISES": "exercises.registry", "exercises_of": "exercises.registry"}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _HOME)
