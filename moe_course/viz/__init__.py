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
    "sorted_assignments": "dispatch",
    "layout_rows": "dispatch",
    "skew_explorer": "dispatch",
    "dispatch_times": "dispatch",
    "dispatch_winners": "dispatch",
    "gate_explorer": "interact",
    "you_are_the_router": "interact",
    "tiny_symptom": "thread",
    "label_tables": "thread",
    "split_symptom": "modern",
    "timeline": "modern",
    "group_choice": "modern",
    "group_explorer": "modern",
    "design_map": "modern",
    "load_over_training": "balance",
    "collapse_curves": "balance",
    "arm_scores": "balance",
    "loss_against_load": "balance",
    "tiny_loads": "balance",
    "balance_explorer": "balance",
}

__all__, __getattr__, __dir__ = face(__name__, _HOME)
