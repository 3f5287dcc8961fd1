"""Three published kinds of MoE block, small and with random weights: the weights, an input, and the block's output.

If `transformers` is installed, its own classes compute the outputs; otherwise they are read from blocks.json.
`python -m moe_course.lesson.blocks` writes that file anew.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moe_course import files

RECORDED = Path(__file__).with_name("blocks.json")
TOKENS = 12


@dataclass(frozen=True)
class _Kind:
    """A class of `transformers`: its module and family, the names it gives to two sizes, and the sizes used here."""

    module: str
    family: str
    num_experts: str
    d_ff: str
    sizes: tuple[int, int, int, int]  # d_model, d_ff, num_experts, top_k
    renormalize: bool


_KINDS = {
    "Mixtral": _Kind("mixtral", "Mixtral", "num_local_experts", "intermediate_size", (8, 6, 5, 2), True),
    "OLMoE": _Kind("olmoe", "Olmoe", "num_experts", "intermediate_size", (6, 4, 12, 4), False),
    "Qwen3-MoE": _Kind("qwen3_moe", "Qwen3Moe", "num_experts", "moe_intermediate_size", (7, 5, 10, 3), True),
}


@dataclass(frozen=True, eq=False)
class Block:
    """Weights as `transformers` stores them (output axis first), in float32; tokens x_TD; the block's output y_TD.

    moved_in_bf16: the share of 4096 tokens that go to other experts when the whole block is in bfloat16 than when it
    is in float32. The router then multiplies in bfloat16; weights and tokens are the same numbers in both dtypes.
    """

    router_ED: Tensor
    gate_up_proj_E2FD: Tensor
    down_proj_EDF: Tensor
    x_TD: Tensor
    y_TD: Tensor
    top_k: int
    renormalize: bool
    moved_in_bf16: float


def blocks() -> tuple[dict[str, Block], str]:
    """The blocks by name, and where their outputs come from: "transformers 5.1.0" or "recorded with …"."""
    if _installed():
        import transformers

        return {name: _built(name) for name in _KINDS}, f"transformers {transformers.__version__}"
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    return {name: _read(_KINDS[name], parts) for name, parts in recorded["blocks"].items()}, (
        f"recorded with transformers {recorded['transformers']}"
    )


def _installed() -> bool:
    try:
        return importlib.util.find_spec("transformers") is not None
    except ImportError:  # while a notebook is graded, the package is masked
        return False


def _built(name: str) -> Block:
    """A block of `transformers` with small random weights, and what it returns."""
    import transformers

    kind = _KINDS[name]
    d_model, d_ff, num_experts, top_k = kind.sizes
    sizes = {
        "hidden_size": d_model,
        kind.d_ff: d_ff,
        kind.num_experts: num_experts,
        "num_experts_per_tok": top_k,
    }
    config = getattr(transformers, f"{kind.family}Config")(**sizes, norm_topk_prob=kind.renormalize)
    config._experts_implementation = "eager"  # in a whole model `transformers` chooses this itself
    modeling = importlib.import_module(f"transformers.models.{kind.module}.modeling_{kind.module}")
    block = getattr(modeling, f"{kind.family}SparseMoeBlock")(config).eval()

    rng = torch.Generator().manual_seed(len(name))
    weights = (block.gate.weight, block.experts.gate_up_proj, block.experts.down_proj)
    with torch.no_grad():
        for weight in weights:
            weight.copy_(_coarse(weight.shape, rng) / 2)
        x_TD = _coarse((TOKENS, d_model), rng)
        y_TD = block(x_TD[None])[0]
        many_TD = _coarse((4096, d_model), rng)
        *_, high_TK = block.gate(many_TD)
        router_ED, gate_up_proj, down_proj = (w.detach().clone() for w in weights)
        *_, low_TK = block.bfloat16().gate(many_TD.bfloat16())
    moved_T = (high_TK.sort(dim=-1).values != low_TK.sort(dim=-1).values).any(dim=-1)
    share = moved_T.double().mean().item()
    return Block(router_ED, gate_up_proj, down_proj, x_TD, y_TD, top_k, kind.renormalize, share)


def _coarse(shape: Any, rng: torch.Generator) -> Tensor:
    """Normal numbers up to 3.5, as multiples of 1/32: bfloat16 represents them, and half of each, exactly."""
    return (torch.randn(*shape, generator=rng).clamp(-3.5, 3.5) * 32).round() / 32


def _read(kind: _Kind, parts: dict[str, Any]) -> Block:
    moved = parts.pop("moved_in_bf16")
    tensors = {name: torch.tensor(values) for name, values in parts.items()}
    return Block(**tensors, top_k=kind.sizes[3], renormalize=kind.renormalize, moved_in_bf16=moved)


def record() -> str:
    """The text of blocks.json: every tensor of every block, and the version of `transformers`."""
    import transformers

    lines = []
    for name in _KINDS:
        block = _built(name)
        numbers = {key: _digits(value) for key, value in vars(block).items() if isinstance(value, Tensor)}
        numbers["moved_in_bf16"] = block.moved_in_bf16
        parts = [f"   {json.dumps(key)}: {json.dumps(value)}" for key, value in numbers.items()]
        lines.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(parts) + "\n  }")
    return (
        f'{{\n "transformers": "{transformers.__version__}",\n "blocks": {{\n'
        + ",\n".join(lines)
        + "\n }\n}\n"
    )


def _digits(tensor: Tensor) -> Any:
    """Nested lists of floats, with as many digits as float32 needs."""
    if tensor.dim():
        return [_digits(part) for part in tensor]
    return float(f"{tensor.item():.9g}")


if __name__ == "__main__":
    files.write(RECORDED, record())
