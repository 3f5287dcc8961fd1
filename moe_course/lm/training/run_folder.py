"""The folder of a training run: `checkpoint.pt`, the one before it as `checkpoint.previous.pt`, and `log.jsonl`.

Beside them lie the run's papers: files that say what it is, such as its recipe and its tokenizer. They are written
once, after the first step, and each checkpoint holds their SHA-256, so a file of another run is noticed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from moe_course import files
from moe_course.jsonl import Log
from moe_course.lm.model.lm_config import LMConfig, TrainConfig
from moe_course.lm.model.transformer import Transformer
from moe_course.lm.training import checkpoint, parallel
from moe_course.lm.training.step import Optimizer, load_optimizer

CHECKPOINT, LOG, RESULT = "checkpoint.pt", "log.jsonl", "result.json"


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a run goes on: the first step to do, `Clock.spent` up to there, and the SHA-256 of its papers by name."""

    step: int = 0
    spent: tuple[float, float] = (0.0, 0.0)
    papers: Mapping[str, str] = dataclasses.field(default_factory=dict)


def load_model(folder: Path) -> Transformer:
    """The model of a run as it was last saved, on the CPU and in evaluation mode.

    Raises ValueError if a paper in the folder is not the run's; further errors as in `checkpoint.load`.
    """
    state = checkpoint.load(folder / CHECKPOINT)
    _need_papers(folder, state)
    model = Transformer(LMConfig.from_dict(state["config"]))
    model.load_state_dict(state["model"])
    return model.eval()


def need_room(folder: Path) -> None:
    """Raise FileExistsError if the folder holds a run, or the result of one whose checkpoints were deleted."""
    if checkpoint.exists(folder / CHECKPOINT):
        raise FileExistsError(f"{folder} holds a run: resume it, or choose another folder")
    if (folder / RESULT).exists():
        raise FileExistsError(
            f"{folder} holds the result of a run without its checkpoint: choose another folder"
        )


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make the folder, and keep it for this process; ValueError if another one is training in it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", blocking=False)

    def take() -> None:
        try:
            with contextlib.suppress(NotImplementedError):  # a file system without locks
                lock.acquire()
        except Timeout:
            raise ValueError(f"another process is training in {folder}") from None

    parallel.from_first(take)
    try:
        yield
    finally:
        lock.release()


def begin(folder: Path, model: Transformer, optimizer: Optimizer, plan: TrainConfig, resume: bool) -> Start:
    """Load the checkpoint in the folder, if there is one. Errors as in `train`.

    The first process reads it, and all others get its state: their folder need not be the same one.
    """
    state = parallel.from_first(lambda: _read(folder, model, plan, resume))
    if state is None:
        return Start()
    model.load_state_dict(state["model"])
    load_optimizer(optimizer, state["optimizer"])
    return Start(state["step"], tuple(state["spent"]), state.get("papers", {}))


def _read(folder: Path, model: Transformer, plan: TrainConfig, resume: bool) -> dict[str, Any] | None:
    """The state in the folder, which must fit, or None where a run begins. The log is cut to it."""
    if not resume or not checkpoint.exists(folder / CHECKPOINT):
        need_room(folder)
        _cut_log(folder, step=0)  # what a run logged that was stopped before its first checkpoint
        return None
    state = checkpoint.load(folder / CHECKPOINT)
    _need_papers(folder, state)
    _need_same("config", state["config"], model.config.to_dict())
    _need_same("plan", state["plan"], dataclasses.asdict(plan))
    _cut_log(folder, state["step"])
    return state


def write_papers(folder: Path, papers: Mapping[str, str]) -> dict[str, str]:
    """Write the files that say what the run is, texts by name. Returns the SHA-256 of each, for `save`."""
    for name, text in papers.items():
        files.write(folder / name, text)
    return {name: _sha256(text.encode("utf-8")) for name, text in papers.items()}


def save(
    folder: Path,
    config: LMConfig,
    states: tuple[dict[str, Tensor], dict[str, Any]],
    plan: TrainConfig,
    start: Start,
    must: bool,
) -> None:
    """Write a checkpoint from which `start` goes on: the states of model and optimizer, whole ones.

    If the disk does not take it, raise if it `must`, else warn.
    """
    state = {
        "step": start.step,
        "spent": start.spent,
        "papers": dict(start.papers),
        "config": config.to_dict(),
        "plan": dataclasses.asdict(plan),
        "model": states[0],
        "optimizer": states[1],
    }
    try:
        checkpoint.save(folder / CHECKPOINT, state)
    except OSError as error:
        if must:
            raise
        warnings.warn(f"no checkpoint at step {start.step}: {error}; the run goes on", stacklevel=3)


def _cut_log(folder: Path, step: int) -> None:
    """Forget what was logged from `step` on: the run will log it again."""
    log = Log(folder / LOG)
    log.replace([record for record in log.records() if record["step"] < step])


def _need_papers(folder: Path, state: Mapping[str, Any]) -> None:
    """Raise ValueError unless each paper of the checkpoint's run is in the folder as it was written."""
    for name, digest in state.get("papers", {}).items():
        try:
            found = _sha256((folder / name).read_bytes())
        except FileNotFoundError:
            raise ValueError(
                f"{folder / name} is missing: it belongs to the checkpoint in the folder"
            ) from None
        if found != digest:
            raise ValueError(f"{folder / name} does not belong to the checkpoint in the folder")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _need_same(what: str, saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ValueError where a setting differs from the saved one. Only how often something is written may differ."""
    free = ("log_every", "save_every", "eval_every")
    changed = [name for name in now if name not in free and saved.get(name) != now[name]]
    if changed:
        name = changed[0]
        raise ValueError(f"the run's {what} has {name} = {saved.get(name)!r}, this one has {now[name]!r}")
