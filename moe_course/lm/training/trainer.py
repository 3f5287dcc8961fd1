"""The trainer: the same loop for one CPU core, one GPU, and several processes under torchrun.

    model = Transformer(config, torch.Generator().manual_seed(0))
    train(model, TrainConfig(steps=500), batch, Path("runs/first"))

The number of a step decides everything that happens in it: the data (`batch(step)`), the learning rate, and the
router's noise (torch's global generator is seeded at every step). A checkpoint therefore holds the weights, the
optimizer's state and the step, and a run that is resumed from it does what the uninterrupted run would have done; on
a CPU the results are equal to the bit.

`moe_course.lm.training.run_folder` says what the folder of a run holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from moe_course.jsonl import Log
from moe_course.lm.model.lm_config import TrainConfig
from moe_course.lm.model.transformer import Transformer, evaluating
from moe_course.lm.training import checkpoint, costs, parallel, run_folder
from moe_course.lm.training.interrupt import interrupts_wait
from moe_course.lm.training.objective import cross_entropy
from moe_course.lm.training.run_folder import CHECKPOINT, LOG
from moe_course.lm.training.step import (
    BatchStatistics,
    Optimizer,
    accumulate_gradients,
    learning_rate,
    make_optimizer,
)
from moe_course.moe.layer import MoELayer
from moe_course.progress import Progress

if TYPE_CHECKING:
    from moe_course.lm.training.experts_apart import ExpertsApart

Batch = Callable[[int], Tensor]
Watch = Callable[[dict[str, Any], Transformer], None]


def train(
    model: Transformer,
    plan: TrainConfig,
    batch: Batch,
    folder: Path,
    held_out: Sequence[Tensor] = (),
    resume: bool = False,
    progress: bool = True,
    watch: Watch | None = None,
    papers: Mapping[str, str] | None = None,
    expert_parallel: int = 1,
) -> None:
    """Train `model` in place, on the device where it is, and leave it at its last step.

    batch(step): the tokens_BS1 of that step for all processes together, the same each time it is called. held_out:
    batches tokens_BS1 to evaluate on. folder: the folder to write to, the same for all processes. resume: go on
    from its checkpoint, if there is one. progress: show on stderr how far it is. watch(record, model): called after
    each line of the log. papers: texts by file name that say what the run is; written when the first step has
    succeeded, checked when the run is resumed. expert_parallel: so many processes share the experts of a model
    (`experts_apart`), as long as it trains; `watch` must not run the model then, for only the first process calls it.

    When it is interrupted (Ctrl-C, the stop button, SIGTERM), it ends the step, saves a checkpoint, and raises
    KeyboardInterrupt; a second interrupt takes effect at once. Of several processes all stop after the same step,
    whichever was interrupted. Only the first one needs the folder: what is in it is sent to the others.
    Raises FileExistsError where the folder holds a run and resume is False; ValueError where it holds another one,
    or where another process is training in it; FloatingPointError, naming the step and the last checkpoint, where
    loss or gradient is not finite; the model then has the weights from before that step; ConnectionError where
    another process has ended, or has not answered within `parallel.TIMEOUT`.
    """
    with run_folder.alone(folder), parallel.or_lost(lambda: _saved(folder)):
        first = parallel.rank_and_size()[0] == 0
        optimizer = make_optimizer(model, plan)
        parallel.need_same("plan", plan)
        start = run_folder.begin(folder, model, optimizer, plan, resume)
        digests = start.papers
        apart = _apart(model, expert_parallel)
        optimizer = apart.optimizer(optimizer, plan) if apart else optimizer
        own = apart.expert_names if apart else []
        shared = parallel.together(model, own)
        compute: Any = torch.compile(shared) if plan.compile else shared
        parallel.need_same("state", _fingerprint(model, start.step, batch, own))
        model.train()

        clock, log = Clock(*start.spent), Log(folder / LOG)
        rates = _rates(model, plan)
        shown = Progress("trained", plan.steps, "steps", start.step, shown=progress and first)
        with interrupts_wait() as interrupted, shown:
            for step in range(start.step, plan.steps):
                clock.start()
                tokens_BS1 = batch(step)
                torch.manual_seed(_seed(plan.seed, step))
                rate = learning_rate(step, plan.peak, plan.warmup, plan.steps, plan.floor)
                numbers, counts_LE, stop = update(
                    compute, optimizer, tokens_BS1, plan, rate, interrupted, apart
                )
                clock.stop(tokens_BS1[:, 1:].numel())
                if apart and not _finite(numbers):
                    apart.join()
                _stop_unless_finite(numbers, step, folder)
                shown.add(note=f"loss {numbers['ce']:.4f}")
                if first and step == 0:
                    digests = run_folder.write_papers(folder, papers or {})

                last = step == plan.steps - 1
                record: dict[str, Any] = {"step": step, "learning_rate": rate, **numbers}
                logs, evaluates, saves = (
                    last or (step + 1) % every == 0
                    for every in (plan.log_every, plan.eval_every, plan.save_every)
                )
                if logs:
                    speed = clock.read()
                    record |= {"load_LE": [_shares(counts_E) for counts_E in counts_LE], **speed}
                    record |= rates(speed["tokens_per_second"])
                if evaluates and held_out:
                    record["held_out_ce"] = evaluate(model, held_out, plan.bf16, shared=True)
                if first and (logs or (evaluates and held_out)):
                    log.append(record)
                    if watch is not None:
                        watch(record, model)
                if saves or stop:
                    reached = run_folder.Start(step + 1, clock.spent, digests)
                    states = apart.whole(optimizer) if apart else (model.state_dict(), optimizer.state_dict())
                    if first:
                        run_folder.save(folder, model.config, states, plan, reached, must=last or stop)
                if apart and (last or stop):
                    apart.join()
                if stop and not last:
                    parallel.wait()  # who ends first makes torchrun end the others: not before all is saved
                    raise KeyboardInterrupt(f"stopped after step {step}; resume goes on from there")


def _apart(model: nn.Module, expert_parallel: int) -> ExpertsApart | None:
    if expert_parallel == 1:
        return None
    from moe_course.lm.training.experts_apart import ExpertsApart

    return ExpertsApart(model, expert_parallel)


class Updated(NamedTuple):
    """What one step gave: numbers to report, counts_LE over all processes, and whether any of them is to stop."""

    numbers: dict[str, float]
    counts_LE: list[Tensor]
    stop: bool


def update(
    model: nn.Module,
    optimizer: Optimizer,
    tokens_BS1: Tensor,
    plan: TrainConfig,
    rate: float,
    interrupted: Callable[[], bool] = lambda: False,
    apart: ExpertsApart | None = None,
) -> Updated:
    """One step on one batch. If a number is not finite, the weights do not change.

    apart: where the model's experts are, unless they are here. interrupted(): whether this process was asked to stop;
    asked once, and all processes get the same answer.
    """
    device = next(model.parameters()).device
    autocast = _autocast(device, plan.bf16)
    pieces = [_to(tokens, device) for tokens in parallel.share(tokens_BS1, plan.accumulate)]

    optimizer.zero_grad()
    result = accumulate_gradients(model, pieces, plan.lb_weight, plan.z_weight, autocast)
    grad_norm = apart.clip(plan.clip) if apart else nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
    numbers, stop = _read(result, grad_norm, interrupted())
    if _finite(numbers):
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("relative", 1.0)
        optimizer.step()
        for layer, counts_E in zip(moe_layers(model), result.counts_LE, strict=True):
            if layer.config.bias_rate:
                layer.update_bias(counts_E)
    return Updated(numbers, result.counts_LE, stop)


def _finite(numbers: Mapping[str, float]) -> bool:
    return all(map(math.isfinite, numbers.values()))


def evaluate(model: nn.Module, batches: Sequence[Tensor], bf16: bool = False, shared: bool = False) -> float:
    """CE in nats per token over batches tokens_BS1; every token has the same weight. nan if there are no batches.

    Computed in the parameters' dtype, or with `bf16` as training does. shared: each process computes its share of the
    batches; all of them must call this. Weights, biases, modes and the random state are left as they were.
    """
    device = next(model.parameters()).device
    rank, size = parallel.rank_and_size() if shared else (0, 1)
    nats, tokens = 0.0, 0
    with evaluating(model), _autocast(device, bf16):
        own = batches[rank::size]
        for number in range(
            -(-len(batches) // size)
        ):  # as often on every process: experts may be on another one
            tokens_BS1 = own[number] if number < len(own) else batches[0]
            targets_BS = tokens_BS1[:, 1:].to(device)
            logits_BSV, _ = model(tokens_BS1[:, :-1].to(device))
            if number == len(own):
                break
            nats += cross_entropy(logits_BSV, targets_BS).item() * targets_BS.numel()
            tokens += targets_BS.numel()
    if size > 1:
        nats, tokens = parallel.totals([torch.tensor([nats, tokens], dtype=torch.float64, device=device)])[
            0
        ].tolist()
    return nats / tokens if tokens else math.nan


def moe_layers(model: nn.Module) -> list[MoELayer]:
    """The MoE layers, first layer first."""
    return [module for module in model.modules() if isinstance(module, MoELayer)]


class Clock:
    """The time spent on training, without evaluation and saving, and the tokens per second since the last `read`.

    `spent`: seconds by the clock, and seconds of processor time, which hardly depend on other programs.
    """

    def __init__(self, seconds: float = 0.0, cpu_seconds: float = 0.0) -> None:
        self.spent = seconds, cpu_seconds
        self._read_at = seconds
        self._tokens = 0
        self._began = 0.0, 0.0

    def start(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def stop(self, tokens: int) -> None:
        now = time.perf_counter(), time.process_time()
        self.spent = (
            self.spent[0] + now[0] - self._began[0],
            self.spent[1] + now[1] - self._began[1],
        )
        self._tokens += tokens

    def read(self) -> dict[str, float]:
        seconds, cpu_seconds = self.spent
        rate = self._tokens / (seconds - self._read_at)
        self._tokens, self._read_at = 0, seconds
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "tokens_per_second": rate}


def _rates(model: Transformer, plan: TrainConfig) -> Callable[[float], dict[str, float]]:
    """A function from tokens per second to FLOPs per second, and to the share of the device's peak if it is known."""
    device = model.embedding.weight.device
    each = costs.flops_per_token(model.config)
    peak = costs.peak_flops(device, plan.bf16)

    def rates(tokens_per_second: float) -> dict[str, float]:
        flops = each * tokens_per_second
        size = parallel.rank_and_size()[1]
        return {"flops_per_second": flops} | ({"utilisation": flops / (size * peak)} if peak else {})

    return rates


def _seed(seed: int, step: int) -> int:
    """A seed that differs between all seeds, steps and processes."""
    rank, size = parallel.rank_and_size()
    return (seed * 1_000_003 + step) * size + rank


def _to(tokens: Tensor, device: torch.device) -> Tensor:
    """The tokens on the device. They go to a GPU from pinned memory, so that the host need not wait for the copy."""
    if device.type == "cuda" and tokens.device.type == "cpu":
        tokens = tokens.pin_memory()
    return tokens.to(device, non_blocking=True)


def _autocast(device: torch.device, bf16: bool) -> contextlib.AbstractContextManager[object]:
    """Products in bfloat16, on CUDA only."""
    if bf16 and device.type == "cuda":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


def _read(result: BatchStatistics, grad_norm: Tensor, stop: bool) -> tuple[dict[str, float], bool]:
    """The numbers of a step on the host, as means over processes, and whether any process is to stop.

    A step makes no other transfer from the device.
    """
    means = [result.ce, result.lb_loss, result.z_loss, result.drop_rate]
    asked = torch.full_like(result.ce, float(stop))
    sums = torch.stack(parallel.totals([*means, asked])) / parallel.rank_and_size()[1]
    *values, stops, norm = torch.cat([sums, grad_norm.reshape(1)]).tolist()
    names = ("ce", "lb_loss", "z_loss", "drop_rate", "grad_norm")
    return dict(zip(names, [*values, norm], strict=True)), stops > 0


def _fingerprint(model: nn.Module, step: int, batch: Batch, own: Sequence[str]) -> tuple[int, str] | None:
    """What processes must have in common: the step, and a digest of the weights and of the step's batch.

    own: the weights that each process has for itself.
    """
    if parallel.rank_and_size()[1] == 1:
        return None
    digest = hashlib.sha256()
    common = [value for name, value in model.state_dict().items() if name not in own]
    for tensor in (*common, batch(step)):
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return step, digest.hexdigest()


def _stop_unless_finite(numbers: dict[str, float], step: int, folder: Path) -> None:
    wrong = {name: value for name, value in numbers.items() if not math.isfinite(value)}
    if wrong:
        raise FloatingPointError(
            f"step {step}: {', '.join(f'{name} is {value}' for name, value in wrong.items())}; {_saved(folder)}"
        )


def _saved(folder: Path) -> str:
    path = folder / CHECKPOINT
    saved = checkpoint.exists(path)
    return f"the last good checkpoint is {path}" if saved else f"nothing is saved in {folder}"


def _shares(counts_E: Tensor) -> list[float]:
    """load_E, rounded, as the log has it."""
    return [round(share, 5) for share in (counts_E / counts_E.sum()).tolist()]
