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
    "moe_loop": "loop",
    "init_experts": "experts",
    "plan_dispatch": "dispatch",
    "gather_tokens": "dispatch",
    "grouped_ffn": "dispatch",
    "combine": "dispatch",
}

__all__, __getattr__, __dir__ = face(__name__, _HOME)
