"""The mixture-of-experts layer in parts: router, experts, dispatch, balancing and capacity.

It may import `config` and `shapes`. Begin with `layer.py`, where the parts come together. Names load on first use:
importing this package loads no other module of it.
"""

from moe_course.lazy import lazy_exports

_HOME = {
    "router_logits": "router",
    "router_probs": "router",
    "top_k_gate": "router",
    "sparse_gates": "router",
    "noisy_logits": "router",
    "switch_gate": "router",
    "router_gradient": "router",
    "swiglu_ffn": "experts",
    "swiglu_experts": "experts",
    "init_experts": "experts",
    "moe_loop": "loop",
    "moe_onehot": "dispatchers",
    "moe_sorted": "dispatchers",
    "moe_grouped": "dispatchers",
    "plan_dispatch": "dispatch",
    "gather_tokens": "dispatch",
    "grouped_ffn": "dispatch",
    "combine": "dispatch",
    "expert_load": "metrics",
    "max_violation": "metrics",
    "cv_squared": "metrics",
    "load_balancing_loss": "balance",
    "expert_counts": "counts",
    "global_load": "metrics",
    "router_z_loss": "balance",
    "biased_top_k": "balance",
    "update_bias": "balance",
    "expert_choice": "balance",
    "expert_capacity": "capacity",
    "positions_in_expert": "capacity",
    "batch_priority_positions": "capacity",
    "fill_buffers": "capacity",
    "read_buffers": "capacity",
    "shared_expert_moe": "modern",
    "group_limited_top_k": "modern",
    "MoEConfig": "layer",
    "MoELayer": "layer",
    "MoEStats": "layer",
    "split_experts": "modern",
    "from_huggingface": "modern",
    "upcycle": "modern",
    "token_major_positions": "capacity",
    "drop_and_waste": "capacity",
    "uniform_drop_rate": "capacity",
    "depends_on_future": "leaks",
    "depends_on_batch": "leaks",
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _HOME)
