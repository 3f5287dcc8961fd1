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
    "shared_expert_moe": "modern",
    "split_experts": "modern",
    "group_limited_top_k": "modern",
    "from_huggingface": "modern",
    "upcycle": "modern",
}

__all__, __getattr__, __dir__ = face(__name__, _HOME)
