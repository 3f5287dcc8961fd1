"""What the training of a language model costs, computed from its sizes: FLOPs, memory, and the limits of devices.

`moe_course.systems.accounting` counts published models. This module counts the models that are trained here, so
that a run can log how much of its device it uses, and a preset can be made for a GPU that nobody has tried yet.
"""

from __future__ import annotations

import torch

from moe_course.config import MoEConfig
from moe_course.lm.model.lm_config import LMConfig
from moe_course.lm.model.transformer import Transformer

PEAK_FLOPS = {
    "T4": (8.1e12, None),
    "A100": (19.5e12, 312e12),
    "H100": (67e12, 989e12),
    "H200": (67e12, 989e12),
}
"""Dense FLOPs per second in (float32, bfloat16), SXM versions. Source: NVIDIA's data sheets of the four; a T4 has no
bfloat16 units."""


def num_params(config: LMConfig) -> tuple[int, int]:
    """(total, active) parameters. No memory is used for them."""
    with torch.device("meta"):
        return Transformer(config).num_params()


def flops_per_token(config: LMConfig) -> int:
    """FLOPs of one token in training at full context, forward and backward; a multiply-add counts as two.

    Six for every active weight of a matrix (2 forward, 4 backward), except the input embedding, which is only a
    look-up. In attention a position attends to (S + 1) / 2 positions on average, which costs twice 2·D FLOPs each
    forward, and three times as much with the backward pass. Norms, softmax and the sorting of indices are left out,
    as is usual (Kaplan et al. 2020, arXiv 2001.08361, section 2.1).
    """
    active = num_params(config)[1]
    gains = (2 * config.num_layers + 1) * config.d_model
    lookup = 0 if config.tied else config.vocab_size * config.d_model
    attention = config.num_layers * 2 * config.d_model * (config.context + 1)
    return 6 * (active - gains - lookup) + 3 * attention


def training_bytes(config: LMConfig, sequences: int, bf16: bool = False) -> dict[str, int]:
    """Bytes on the device while `sequences` full contexts are computed at a time in training, by what they hold.

    "state": float32 weights, gradients and AdamW's two moments of all parameters. "activations": what the backward
    pass needs, for each token and layer the inputs of every matrix, of the norms, of attention and of the products
    in the experts that a token uses. "logits": the output in the dtype of computation, the same in float32 for the
    loss, and its gradient. This is an estimate from which to choose a batch size; what the allocator wastes is not
    in it.
    """
    c, tokens, width = config, sequences * config.context, 2 if bf16 else 4
    if isinstance(c.ffn, MoEConfig):
        hidden = c.ffn.top_k * c.ffn.d_ff + c.ffn.num_shared * c.ffn.d_ff_shared
        rows = (
            c.ffn.top_k * c.d_model * 2 + 3 * c.ffn.num_experts
        )  # gathered rows, answers, router in float32
    else:
        hidden, rows = c.ffn, 0
    per_layer = (
        9 * c.d_model + rows + 4 * hidden
    )  # norms' inputs and outputs, q, k, v, their mixture; gate, up, ...
    return {
        "state": 16 * num_params(c)[0],
        "activations": width * tokens * c.num_layers * per_layer,
        "logits": tokens * c.vocab_size * (width + 8),
    }


def peak_flops(device: torch.device, bf16: bool) -> float | None:
    """The most FLOPs per second that the device can do; None if that is not known, as for a CPU."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    for known, (wide, narrow) in PEAK_FLOPS.items():
        if known in name.replace("-", " ").split():
            return narrow if bf16 else wide
    return None
