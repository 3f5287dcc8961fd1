"""What a model costs: parameters, FLOPs and bytes.

Names load on first use: importing this package loads no other module of it.
"""

from importlib import import_module
from typing import Any

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
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
