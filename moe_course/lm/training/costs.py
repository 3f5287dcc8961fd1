"""What the training of a language model costs, computed from its sizes: FLOPs, memory, and the limits of devices.

`moe_course.systems.accounting` counts published models. This module counts the models that are trained here, so
that a run can log how much of its device it uses, and a preset can be made for a GPU that nobody has tried yet.
Memory and time are counted on fake tensors (`counting`), from the very code that trains.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import lru_cache

import torch
from torch._subclasses import FakeTensorMode

from moe_course.config import MoEConfig
from moe_course.hardware import Device, limits
from moe_course.lm.model.lm_config import LMConfig, TrainConfig
from moe_course.lm.model.transformer import Transformer
from moe_course.lm.training.counting import Counter, as_on_cuda
from moe_course.lm.training.step import accumulate_gradients

ARITHMETIC, MEMORY, LAUNCH = 0.5, 0.75, 10e-6
"""What is assumed of a GPU that nobody has measured: half of its FLOPs, three quarters of its bandwidth, and a host
that takes 10 microseconds for each kernel."""


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


@lru_cache(maxsize=8)
def count_piece(config: LMConfig, sequences: int, bf16: bool = False) -> Counter:
    """Forward and backward of `sequences` full contexts, counted on fake tensors: a few seconds, and no memory.

    With the dispatch "auto" as on a GPU: "grouped" in bfloat16, as on an H100, else "sorted".
    """
    if isinstance(config.ffn, MoEConfig) and config.ffn.dispatch in ("auto", "fused", "loop"):
        ffn = replace(config.ffn, dispatch="grouped" if bf16 else "sorted")
        config = replace(config, ffn=ffn)
    autocast = torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext()
    with FakeTensorMode():
        model = Transformer(config)
        tokens_BS1 = torch.zeros(sequences, config.context + 1, dtype=torch.long)
        with as_on_cuda(), Counter() as counted:
            accumulate_gradients(model, [tokens_BS1], 0.01, 0.001, autocast)
    return counted


def training_bytes(config: LMConfig, sequences: int, bf16: bool = False, pieces: int = 1) -> dict[str, int]:
    """Bytes on the device while `sequences` full contexts are computed at a time in training, by what they hold.

    "state": float32 weights and AdamW's two moments of all parameters. "gradients": those of the pieces before, if a
    batch has several. "piece": what one piece holds when it holds most, which is after its forward pass: everything
    that the backward pass needs, and the logits. What the allocator wastes is not in it.
    """
    parameters = num_params(config)[0]
    return {
        "state": 12 * parameters,
        "gradients": 4 * parameters if pieces > 1 else 0,
        "piece": count_piece(config, sequences, bf16).peak_bytes,
    }


def step_seconds(config: LMConfig, plan: TrainConfig, batch_size: int, device: Device) -> float:
    """The time of one step on a device that nobody has measured, from the kernels that are counted (see ARITHMETIC).

    Kernels take the time of their arithmetic or of their traffic, one after the other; or the host is too slow for
    them. The update by AdamW, with clipping, moves 40 bytes for each parameter.
    """
    piece = count_piece(config, batch_size // plan.accumulate, plan.bf16)
    narrow = device.bfloat16 and ARITHMETIC * device.bfloat16
    busy = piece.seconds(ARITHMETIC * device.float32, narrow, MEMORY * device.bandwidth)
    update = 40 * num_params(config)[0] / (MEMORY * device.bandwidth)
    return plan.accumulate * max(busy, LAUNCH * piece.kernels) + update


def peak_flops(device: torch.device, bf16: bool) -> float | None:
    """The most FLOPs per second that the device can do; None if that is not known, as for a CPU."""
    if device.type != "cuda":
        return None
    found = limits(torch.cuda.get_device_name(device))
    if found is None:
        return None
    return found.bfloat16 if bf16 else found.float32
