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
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
) -> None:
    """Train `model` in place, on the device where it is, and leave it at its last step.

    batch(step): the tokens_BS1 of that step for all processes together, the same each time it is called. held_out:
    batches tokens_BS1 to evaluate on. folder: the folder to write to, the same for all processes. resume: go on
    from its checkpoint, if there is one. progress: show on stderr how far it is. watch(record, model): called after
    each line of the log. papers: texts by file name that say what the run is; written when the first step has
    succeeded, checked when the run is resumed.

    When it is interrupted (Ctrl-C, the stop button), it ends the step, saves a checkpoint, and raises
    KeyboardInterrupt; a second interrupt takes effect at once.
    Raises FileExistsError where the folder holds a run and resume is False; ValueError where it holds another one,
    or where another process is training in it; FloatingPointError, naming the step and the last checkpoint, where
    loss or gradient is not finite; the model then has the weights from before that step.
    """
    with run_folder.alone(folder):
        first = parallel.rank_and_size()[0] == 0
        optimizer = make_optimizer(model, plan)
        start = run_folder.begin(folder, model, optimizer, plan, resume)
        digests = start.papers
        parallel.same_start(model)
        compute: Any = torch.compile(model) if plan.compile else model
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
                numbers, counts_LE = update(compute, optimizer, tokens_BS1, plan, rate)
                clock.stop(tokens_BS1[:, 1:].numel())
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
                    record["held_out_ce"] = evaluate(model, held_out)
                if first and (logs or (evaluates and held_out)):
                    log.append(record)
                    if watch is not None:
                        watch(record, model)
                if first and (saves or interrupted()):
                    reached = run_folder.Start(step + 1, clock.spent, digests)
                    run_folder.save(folder, model, optimizer, plan, reached, must=last or interrupted())
                if interrupted() and not last:
                    raise KeyboardInterrupt(f"stopped after step {step}; resume goes on from there")


def update(
    model: nn.Module, optimizer: Optimizer, tokens_BS1: Tensor, plan: TrainConfig, rate: float
) -> tuple[dict[str, float], list[Tensor]]:
    """One step on one batch: (numbers to report, counts_LE). If a number is not finite, the weights do not change."""
    device = next(model.parameters()).device
    bf16 = plan.bf16 and device.type == "cuda"
    autocast = torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()
    pieces = [_to(tokens, device) for tokens in parallel.share(tokens_BS1, plan.accumulate)]

    optimizer.zero_grad()
    result = accumulate_gradients(model, pieces, plan.lb_weight, plan.z_weight, autocast)
    parallel.average_gradients(model)
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
    counts_LE = [parallel.total(counts_E) for counts_E in result.counts_LE]
    numbers = _read(result, grad_norm)
    if all(math.isfinite(value) for value in numbers.values()):
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("relative", 1.0)
        optimizer.step()
        for layer, counts_E in zip(moe_layers(model), counts_LE, strict=True):
            if layer.config.bias_rate:
                layer.update_bias(counts_E)
    return numbers, counts_LE


def evaluate(model: nn.Module, batches: Sequence[Tensor]) -> float:
    """CE in nats per token over batches tokens_BS1; every token has the same weight. nan if there are no batches.

    Computed in the parameters' dtype. Weights, biases, modes and the random state are left as they were.
    """
    device = next(model.parameters()).device
    nats, tokens = 0.0, 0
    with evaluating(model):
        for tokens_BS1 in batches:
            targets_BS = tokens_BS1[:, 1:].to(device)
            logits_BSV, _ = model(tokens_BS1[:, :-1].to(device))
            nats += cross_entropy(logits_BSV, targets_BS).item() * targets_BS.numel()
            tokens += targets_BS.numel()
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


def _read(result: BatchStatistics, grad_norm: Tensor) -> dict[str, float]:
    """The numbers of a step on the host, as means over processes. A step makes no other transfer from the device."""
    means = torch.stack([result.ce, result.lb_loss, result.z_loss, result.drop_rate])
    values = torch.cat([parallel.mean(means), grad_norm.reshape(1)]).tolist()
    return dict(zip(("ce", "lb_loss", "z_loss", "drop_rate", "grad_norm"), values, strict=True))


def _stop_unless_finite(numbers: dict[str, float], step: int, folder: Path) -> None:
    wrong = {name: value for name, value in numbers.items() if not math.isfinite(value)}
    if wrong:
        path = folder / CHECKPOINT
        saved = f"the last good checkpoint is {path}" if checkpoint.exists(path) else "nothing is saved yet"
        raise FloatingPointError(
            f"step {step}: {', '.join(f'{name} is {value}' for name, value in wrong.items())}; {saved}"
        )


def _shares(counts_E: Tensor) -> list[float]:
    """load_E, rounded, as the log has it."""
    return [round(share, 5) for share in (counts_E / counts_E.sum()).tolist()]
