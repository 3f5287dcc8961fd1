"""The folder of a training run: `checkpoint.pt`, the one before it as `checkpoint.previous.pt`, and `log.jsonl`."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

from moe_course.jsonl import Log
from moe_course.lm.model.lm_config import LMConfig, TrainConfig
from moe_course.lm.model.transformer import Transformer
from moe_course.lm.training import checkpoint, parallel
from moe_course.lm.training.step import Optimizer

CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"


def load_model(folder: Path) -> Transformer:
    """The model of a run as it was last saved, on the CPU and in evaluation mode. Errors as in `checkpoint.load`."""
    state = checkpoint.load(folder / CHECKPOINT)
    model = Transformer(LMConfig.from_dict(state["config"]))
    model.load_state_dict(state["model"])
    return model.eval()


def begin(
    folder: Path, model: Transformer, optimizer: Optimizer, plan: TrainConfig, resume: bool
) -> tuple[int, tuple[float, float]]:
    """Make the folder, or load the checkpoint in it. Returns the first step to do, and `Clock.spent` up to there."""
    if not checkpoint.exists(folder / CHECKPOINT):
        folder.mkdir(parents=True, exist_ok=True)
        _cut_log(folder, step=0)  # what a run logged that was stopped before its first checkpoint
        return 0, (0.0, 0.0)
    if not resume:
        raise FileExistsError(f"{folder} holds a run: resume it, or choose another folder")
    state = checkpoint.load(folder / CHECKPOINT)
    _need_same("config", state["config"], model.config.to_dict())
    _need_same("plan", state["plan"], dataclasses.asdict(plan))
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    _cut_log(folder, state["step"])
    return state["step"], tuple(state["spent"])


def save(
    folder: Path,
    model: Transformer,
    optimizer: Optimizer,
    plan: TrainConfig,
    step: int,
    spent: tuple[float, float],
    must: bool,
) -> None:
    """Write a checkpoint after `step` steps. If the disk does not take it, raise if it `must`, else warn."""
    state = {
        "step": step,
        "spent": spent,
        "config": model.config.to_dict(),
        "plan": dataclasses.asdict(plan),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    try:
        checkpoint.save(folder / CHECKPOINT, state)
    except OSError as error:
        if must:
            raise
        warnings.warn(f"no checkpoint at step {step}: {error}; the run goes on", stacklevel=3)


def _cut_log(folder: Path, step: int) -> None:
    """Forget what was logged from `step` on: the run will log it again."""
    if parallel.rank_and_size()[0] == 0:
        log = Log(folder / LOG)
        log.replace([record for record in log.records() if record["step"] < step])


def _need_same(what: str, saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ValueError where a setting differs from the saved one. Only how often something is written may differ."""
    free = ("log_every", "save_every", "eval_every")
    changed = [name for name in now if name not in free and saved.get(name) != now[name]]
    if changed:
        name = changed[0]
        raise ValueError(f"the run's {what} has {name} = {saved.get(name)!r}, this one has {now[name]!r}")
