"""Who looks on while a model is trained: samples of its text, TensorBoard, Weights & Biases.

Each function here returns what `train` takes as `watch`. The last two need a package that is no requirement.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from moe_course.lm.corpus.tokenizer import Tokenizer
from moe_course.lm.experiment.recipe import Recipe
from moe_course.lm.model.sample import generate
from moe_course.lm.model.transformer import Transformer
from moe_course.lm.training.trainer import Watch
from moe_course.progress import say

SAMPLE_TOKENS = 60


def together(watches: Sequence[Watch]) -> Watch:
    """All of them, one after the other."""

    def watch(record: dict[str, Any], model: Transformer) -> None:
        for each in watches:
            each(record, model)

    return watch


def samples(every: int, tokenizer: Tokenizer, say: Callable[[str], None] = say) -> Watch:
    """Let the model write the start of a document after every `every` steps, or at the next line of the log.

    The training does not notice: the sample is drawn with a generator of its own, the same each time.
    """
    if every < 1:
        raise ValueError(f"--samples takes a number of steps from 1, got {every}")
    turn = 0

    def watch(record: dict[str, Any], model: Transformer) -> None:
        nonlocal turn
        done = record["step"] + 1
        if done // every > turn:
            turn = done // every
            ids = generate(model, [tokenizer.end], SAMPLE_TOKENS, generator=torch.Generator().manual_seed(0))
            say(f"after {done:,} steps: {tokenizer.decode(ids)!r}")

    return watch


def tensorboard(folder: Path) -> Watch:
    """Write the log's numbers into `folder` for TensorBoard. A resumed run replaces what it does again."""
    module = _need("torch.utils.tensorboard", "tensorboard")
    writer: Any = None

    def watch(record: dict[str, Any], model: Transformer) -> None:
        nonlocal writer
        if writer is None:
            writer = module.SummaryWriter(str(folder), purge_step=record["step"])
        for name, value in numbers(record).items():
            writer.add_scalar(name, value, record["step"])
        writer.flush()

    return watch


def wandb(recipe: Recipe, folder: Path) -> Watch:
    """Send the log's numbers to Weights & Biases; a resumed run is a second run in the same group."""
    module = _need("wandb", "wandb")
    run: Any = None

    def watch(record: dict[str, Any], model: Transformer) -> None:
        nonlocal run
        if run is None:
            run = module.init(
                project="moe-course",
                group=folder.name,
                name=recipe.name,
                config=recipe.to_dict(),
                dir=str(folder),
            )
        run.log(numbers(record), step=record["step"])

    return watch


def numbers(record: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line of the log, and the largest load of each layer: 1/E where it is balanced."""
    plain = {
        name: value for name, value in record.items() if isinstance(value, int | float) and name != "step"
    }
    loads = {f"largest_load/{layer}": max(load_E) for layer, load_E in enumerate(record.get("load_LE", ()))}
    return plain | loads


def _need(module: str, extra: str) -> Any:
    """The module. Raises ValueError, naming the extra, where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"--{extra} needs the package `{extra}`, which is not installed: pip install 'moe-course[{extra}]', "
            f"in a checkout pip install -e '.[{extra}]' ({error})"
        ) from error
