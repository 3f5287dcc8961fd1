"""The mixture-of-experts layer in parts: router, experts, dispatch and balancing.

Names load on first use: importing this package loads no other module of it.
"""

from moe_course.lazy import face

_HOME = {
    "router_probs": "router",
    "top_k_gate": "router",
    "sparse_gates": "router",
    "noisy_logits": "router",
    "switch_gate": "router",
    "router_gradient": "router",
    "swiglu_ffn": "experts",
    "moe_loop": "dispatch",
    "init_experts": "experts",
    "expert_counts": "metrics",
    "expert_load": "metrics",
    "global_load": "metrics",
    "max_violation": "metrics",
    "cv_squared": "metrics",
    "dead_experts": "metrics",
    "router_entropy": "metrics",
    "load_balancing_loss": "balance",
    "importance_loss": "balance",
    "router_z_loss": "balance",
    "biased_top_k": "balance",
    "update_bias": "balance",
    "expert_choice": "balance",
    "smooth_load": "balance",
}

__all__, __getattr__, __dir__ = face(__name__, _HOME)
