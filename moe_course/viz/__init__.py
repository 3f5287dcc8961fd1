"""Figures. They draw results and never compute them; the title of each states one claim."""

from moe_course.lazy import face

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
    "queues": "capacity",
    "capacity_symptom": "capacity",
    "loss_against_drops": "capacity",
    "dropped_by": "capacity",
    "overflow_curves": "capacity",
    "leak_table": "capacity",
    "capacity_explorer": "capacity",
}

__all__, __getattr__, __dir__ = face(__name__, _HOME)
