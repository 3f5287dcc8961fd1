"""What the notebooks use besides the library: the self-check, committed predictions, the thread's tiny MoE."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {"check": "checking", "working": "checking", "predict": "predictions", "reveal": "predictions"}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
