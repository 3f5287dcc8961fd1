"""Graders' machinery: the exercise registry, the self-check, the judge and the worker.

It imports nothing of the library it grades against (`moe`, `lm`, `systems`), so those can be masked.
"""

from __future__ import annotations

from typing import Any

_HOME = {"check": "live", "EXERCISES": "registry", "exercises_of": "registry"}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
