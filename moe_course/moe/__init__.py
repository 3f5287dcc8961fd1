"""The mixture-of-experts layer in parts: router, experts and dispatch.

Names load on first use: importing this package loads no other module of it.
"""

from importlib import import_module
from typing import Any

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
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
