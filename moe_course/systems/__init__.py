"""What a model costs: parameters, FLOPs and bytes; the timeline of published models; and what scaling laws predict.

It may import `moe`, `published`, `config` and `shapes`. Begin with `accounting.py`. Names load on first use:
importing this package loads no other module of it.
"""

from moe_course.lazy import lazy_exports

_HOME = {
    "tokens_per_expert": "accounting",
    "ffn_params": "accounting",
    "ffn_flops": "accounting",
    "moe_ffn_params": "accounting",
    "model_params": "accounting",
    "active_matched_d_ff": "accounting",
    "breakdown": "accounting",
    "flops_per_token": "accounting",
    "weight_bytes": "accounting",
    "activations_per_token": "accounting",
    "training_memory": "accounting",
    "format_table": "accounting",
    "timeline_table": "timeline",
    "best_plan": "scaling",
    "budget_table": "scaling",
    "dense_equivalent": "scaling",
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _HOME)
