"""Data parallelism, written out: every process has the whole model and computes a share of each batch.

Without a process group these functions change nothing, so the trainer needs no second path. Start two processes with

    torchrun --nproc-per-node 2 -m moe_course train …

or a script of your own that calls `start` first.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn


def start(device: str | None = None) -> torch.device:
    """The device to compute on: `device`, or the GPU of this process where there is one, else the CPU.

    Under torchrun this process joins the process group: NCCL between GPUs, gloo between CPUs. Raises ValueError for a
    device that this machine does not have.
    """
    local = int(os.environ.get("LOCAL_RANK", 0))
    try:
        chosen = torch.device(device or (f"cuda:{local}" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise ValueError(f"no device {device!r}; give cpu, cuda or cuda:N") from None
    if chosen.type == "cuda":
        if (chosen.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"device {device!r}: PyTorch finds {torch.cuda.device_count()} GPUs here")
        torch.cuda.set_device(chosen)
    if "WORLD_SIZE" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return chosen


def stop() -> None:
    """Leave the process group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def rank_and_size() -> tuple[int, int]:
    """The number of this process, and how many processes there are: (0, 1) without a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def share(tokens_BS1: Tensor, pieces: int) -> tuple[Tensor, ...]:
    """The share of a batch for this process, in `pieces` equal pieces. Raises ValueError if it does not divide."""
    rank, size = rank_and_size()
    if len(tokens_BS1) % (size * pieces):
        raise ValueError(
            f"a batch of {len(tokens_BS1)} sequences does not divide into {size} processes × {pieces} pieces"
        )
    return tokens_BS1.chunk(size)[rank].chunk(pieces)


def same_start(model: nn.Module) -> None:
    """Give every process the parameters and buffers of the first one."""
    if rank_and_size()[1] > 1:
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.detach(), src=0)


def average_gradients(model: nn.Module) -> None:
    """Replace each gradient by its mean over processes, in one message per dtype.

    A parameter that no token of this process has used takes part with zeros: other processes may have used it.
    """
    size = rank_and_size()[1]
    if size == 1:
        return
    parameters = [p for p in model.parameters() if p.requires_grad]
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    for dtype in {p.dtype for p in parameters}:
        gradients = [p.grad for p in parameters if p.grad is not None and p.dtype == dtype]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= size
        for g, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            g.copy_(mean.view_as(g))


def total(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all processes."""
    if rank_and_size()[1] > 1:
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def mean(tensor: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    return total(tensor) / rank_and_size()[1]
