"""What the experts learned: the routes of tokens, statistics of routing, and what chance alone would give.

It may import `moe`, `config` and `shapes`. Begin with `specialization.py` (the statistics) or `routes.py` (how
routes are recorded). Names load on first use: importing this package loads no other module of it.
"""

from moe_course.lazy import lazy_exports

_HOME = {
    "routing_counts": "specialization",
    "mutual_information": "specialization",
    "permutation_p_value": "specialization",
    "repeat_rate": "specialization",
    "coactivation": "specialization",
    "ablation_effect": "specialization",
    "conditional_mutual_information": "specialization",
    "conditional_permutation_p_value": "specialization",
    "permutation_null": "specialization",
    "chance_repeat_rate": "specialization",
    "saturation": "specialization",
    "expected_coactivation": "specialization",
    "left_out": "elsewhere",
    "distance": "elsewhere",
    "equal_sets": "elsewhere",
    "Sample": "routes",
    "Routes": "routes",
    "windows": "routes",
    "record_routes": "routes",
    "loss_by_domain": "routes",
    "silenced": "routes",
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _HOME)
