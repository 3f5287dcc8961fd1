"""Data parallelism: every process has the whole model and computes a share of each batch.

Without a process group these functions change nothing, so the trainer needs no second path. Start two processes with

    torchrun --nproc-per-node 2 -m moe_course train …

or a script of your own that calls `start` first. docs/gpu.md tells how to use several machines.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils import _pytree as pytree

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others, in every group. Longer than the first one reads a text or saves."""


def start(device: str | None = None) -> torch.device:
    """The device to compute on: `device`, or the GPU of this process where there is one, else the CPU.

    Under torchrun this process joins the process group: NCCL between GPUs, gloo between CPUs. "cuda" is the GPU of
    this process, the one whose number is its LOCAL_RANK. Raises ValueError for a device that this machine does not
    have, and for "cuda:N" with several processes, for all of them would use that one.
    """
    local, size = (
        int(os.environ.get(name, default)) for name, default in (("LOCAL_RANK", 0), ("WORLD_SIZE", 1))
    )
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise ValueError(f"no device {device!r}; give cpu, cuda or cuda:N") from None
    if chosen.type == "cuda":
        if chosen.index is not None and size > 1:
            raise ValueError(f"device {device!r} for {size} processes: give cuda, and each takes its own GPU")
        chosen = torch.device("cuda", local if chosen.index is None else chosen.index)
        count = torch.cuda.device_count()
        if chosen.index >= count:
            wanted = f"process {local} of this machine" if size > 1 else f"device {device or 'cuda'!r}"
            raise ValueError(f"{wanted}: PyTorch finds {count} GPUs here")
        torch.cuda.set_device(chosen)
    if "WORLD_SIZE" in os.environ and not dist.is_initialized():
        if chosen.type == "cuda":
            dist.init_process_group("nccl", device_id=chosen, timeout=TIMEOUT)
        else:
            dist.init_process_group("gloo", timeout=TIMEOUT)
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
    """The share of a batch for this process. `pieces` are those of the whole batch, for all processes together.

    So a process computes pieces / processes of them, and at least one. Raises ValueError if they do not divide.
    """
    rank, size = rank_and_size()
    own = -(-pieces // size)
    if len(tokens_BS1) % (size * own):
        raise ValueError(
            f"a batch of {len(tokens_BS1)} sequences does not divide into {size} processes × {own} pieces"
        )
    return tokens_BS1.chunk(size)[rank].chunk(own)


def together(model: nn.Module, own: Sequence[str] = ()) -> nn.Module:
    """The model with the parameters of the first process, and gradients that are means over all processes.

    own: the names of parameters that each process has for itself, and whose gradients stay as they are.
    PyTorch's DistributedDataParallel sends gradients in buckets, in one order everywhere, while the rest of the
    backward pass is still computed.
    """
    if rank_and_size()[1] == 1:
        return model
    # The name of the option in torch 2.13, and in older ones: no buffer is sent in a forward pass, all move alike.
    named = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, list(own))
    options: dict[str, Any] = {"forward_sync_buffers" if named else "broadcast_buffers": False}
    return DistributedDataParallel(model, gradient_as_bucket_view=True, **options)


def apart(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Inside, gradients of a model from `together` are added up in each process and not sent yet."""
    inner = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    return inner.no_sync() if isinstance(inner, DistributedDataParallel) else contextlib.nullcontext()


def totals(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The sum of each tensor over all processes, all in one message. Counts are exact up to 2⁵³."""
    if rank_and_size()[1] == 1:
        return list(tensors)
    flat = torch.cat([tensor.detach().flatten().double() for tensor in tensors])
    dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view_as(one).to(one.dtype) for part, one in zip(parts, tensors, strict=True)]


def mean(tensor: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    return totals([tensor])[0] / rank_and_size()[1]


@contextlib.contextmanager
def or_lost(then: Callable[[], str]) -> Iterator[None]:
    """Inside, an error in what is sent between processes becomes a ConnectionError that ends with then().

    Every other error stays what it is.
    """
    try:
        yield
    except RuntimeError as error:
        # gloo has no type of its own: its errors name the file of gloo that raised them.
        if not isinstance(error, dist.DistError) and "/gloo/" not in str(error):
            raise
        raise ConnectionError(
            f"process {rank_and_size()[0]} lost another one: it has ended, or has not answered within "
            f"{TIMEOUT.total_seconds():g} s; {then()} ({error.__cause__ or error})"
        ) from error


def wait() -> None:
    """Until all processes are here."""
    if rank_and_size()[1] > 1:
        dist.barrier()


def from_first(make: Callable[[], T]) -> T:
    """What make() returns in the first process, or the exception that it raises there, in all processes.

    Only the first process calls it. The value may hold tensors in dicts, lists and tuples; they arrive on the CPU.
    """
    rank, size = rank_and_size()
    if size == 1:
        return make()
    value: Any = None
    failure: Exception | None = None
    if rank == 0:
        try:
            value = make()
        except Exception as error:
            failure = error
    skeleton = pytree.tree_map(lambda leaf: _Empty(leaf) if isinstance(leaf, Tensor) else leaf, value)
    sent: list[Any] = [skeleton, failure]
    dist.broadcast_object_list(sent)
    if sent[1] is not None:
        raise sent[1]
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    if rank:
        received: T = pytree.tree_map(
            lambda leaf: leaf.received(device) if isinstance(leaf, _Empty) else leaf, sent[0]
        )
        return received
    for leaf in pytree.tree_leaves(value):
        if isinstance(leaf, Tensor):
            dist.broadcast(leaf.to(device), src=0)
    given: T = value
    return given


def need_same(what: str, value: object) -> None:
    """Raise ValueError in all processes unless all give an equal value."""
    size = rank_and_size()[1]
    if size == 1:
        return
    values: list[Any] = [None] * size
    dist.all_gather_object(values, value)
    for rank, other in enumerate(values):
        if other != values[0]:
            raise ValueError(f"the {what} of process {rank} is {other!r}, that of process 0 is {values[0]!r}")


class _Empty:
    """The shape and dtype of a tensor that is sent separately."""

    def __init__(self, tensor: Tensor):
        self.shape, self.dtype = tuple(tensor.shape), tensor.dtype

    def received(self, device: str) -> Tensor:
        tensor = torch.empty(self.shape, dtype=self.dtype, device=device)
        dist.broadcast(tensor, src=0)
        return tensor.cpu()
