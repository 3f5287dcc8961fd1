"""Figures. They draw results and never compute them; the title of each states one claim."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "use_style": "style",
    "expert_color": "style",
    "show": "style",
    "gate_curves": "models",
    "component_bars": "models",
    "capacity_curve": "models",
    "total_active_dots": "models",
    "memory_bars": "models",
    "routing_table": "routing",
    "load_bars": "routing",
    "gradient_bars": "routing",
    "gate_explorer": "interact",
    "you_are_the_router": "interact",
    "tiny_symptom": "thread",
    "label_tables": "thread",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
