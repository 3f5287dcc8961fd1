"""The mixture-of-experts layer in parts: router, experts and dispatch.

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
    "expert_capacity": "capacity",
    "positions_in_expert": "capacity",
    "token_major_positions": "capacity",
    "batch_priority_positions": "capacity",
    "fill_buffers": "capacity",
    "read_buffers": "capacity",
    "drop_and_waste": "capacity",
    "uniform_drop_rate": "capacity",
    "depends_on_future": "leaks",
    "depends_on_batch": "leaks",
}

__all__, __getattr__, __dir__ = face(__name__, _HOME)
