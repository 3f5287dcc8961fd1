"""From a recipe to a result: train a model, measure it, and keep model and result in a folder.

Beside the files of `moe_course.lm.training.run_folder` the folder holds `recipe.json`, with the fingerprint of the
corpus, `tokenizer.json` and, once the run has ended, `result.json`: the curve, the losses by domain, the recall, and
the machine on which it was measured.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moe_course import files
from moe_course.config import MoEConfig
from moe_course.jsonl import Log
from moe_course.lm.corpus.batching import Tokens, batches, encode_split, spread
from moe_course.lm.corpus.build import Corpus, load
from moe_course.lm.corpus.tokenizer import Tokenizer, tokenizer_from_json, train_tokenizer
from moe_course.lm.experiment.measure import loss_by_domain, recall
from moe_course.lm.experiment.recipe import Recipe
from moe_course.lm.model.transformer import Transformer
from moe_course.lm.training import checkpoint, costs, parallel
from moe_course.lm.training.run_folder import CHECKPOINT, LOG, RESULT
from moe_course.lm.training.trainer import Watch, train
from moe_course.moe.layer import MoELayer
from moe_course.tables import text_table

RECIPE, TOKENIZER = "recipe.json", "tokenizer.json"
TOKEN_BYTES = {"bpe": 5, "char": 2}
"""About the most bytes that a token has on average; nine tenths of a data set are for training."""
HELD_OUT = 128
"""So many sequences of the validation split are evaluated during training."""
CURVE = ("step", "ce", "held_out_ce", "seconds", "cpu_seconds", "lb_loss", "drop_rate", "load_LE")


@dataclass(frozen=True)
class Text:
    """A corpus together with the tokenizer that encodes it."""

    corpus: Corpus
    tokenizer: Tokenizer

    @classmethod
    def of(
        cls, data: str = "default", level: str = "bpe", vocab_size: int = 1024, tokens: int | None = None
    ) -> Text:
        """The corpus and a tokenizer trained on it, both kept in the cache.

        tokens: how many the run is trained on. So much of a data set is read, if it has so much; see TOKEN_BYTES.
        """
        corpus = load(data, size=None if tokens is None else int(tokens * TOKEN_BYTES[level] / 0.9))
        return cls(corpus, train_tokenizer(corpus, vocab_size, level))

    def line(self, split: str) -> Tokens:
        """The tokens of a split."""
        return encode_split(self.corpus, self.tokenizer, split)

    def last_split(self, context: int) -> str:
        """The split to measure on: "test", or "validation" if the test split is shorter than the context."""
        return "test" if self.corpus.test and len(self.line("test")) > context else "validation"

    def batch(self, recipe: Recipe) -> Callable[[int], Tensor]:
        """The function step → tokens_BS1 that `train` needs. It is fastest when the steps are asked for in order."""
        line, sizes = self.line("train"), (recipe.batch_size, recipe.model.context, recipe.plan.seed)
        upcoming, next_step = batches(line, *sizes), 0

        def batch(step: int) -> Tensor:
            nonlocal upcoming, next_step
            if step != next_step:
                upcoming = batches(line, *sizes, first_step=step)
            next_step = step + 1
            return joined(next(upcoming))

        return batch

    def held_out(self, recipe: Recipe, sequences: int = HELD_OUT) -> list[Tensor]:
        """Batches tokens_BS1, spread evenly over the validation split and the same for every run."""
        chosen = joined(spread(self.line("validation"), recipe.model.context, sequences))
        return list(chosen.split(recipe.batch_size))


def joined(batch: Any) -> Tensor:
    """tokens_BS1 of a Batch: its inputs, and the last target of each window."""
    return torch.cat([batch.inputs_BS, batch.targets_BS[:, -1:]], dim=1)


def run_recipe(
    recipe: Recipe,
    folder: Path,
    resume: bool = False,
    device: str | torch.device = "cpu",
    moe_layer: Callable[[MoEConfig], MoELayer] | None = None,
    watch: Watch | None = None,
    progress: bool = True,
    text: Text | None = None,
    expert_parallel: int = 1,
) -> dict[str, Any]:
    """Train the model of a recipe in `folder`, measure it on the test split, and return what `result.json` holds.

    moe_layer: as in `Transformer`. watch, expert_parallel: as in `train`. text: the recipe's corpus and
    tokenizer, if they are loaded already. Raises ValueError if the vocabularies of recipe and tokenizer differ, and
    if the run in the folder has another recipe or text; FileExistsError as `train` does.
    """
    text = text or Text.of(recipe.data, recipe.level, recipe.model.vocab_size, recipe.tokens)
    if text.tokenizer.vocab_size != recipe.model.vocab_size:
        sizes = f"{recipe.model.vocab_size}, the tokenizer one of {text.tokenizer.vocab_size}"
        raise ValueError(f"the model has a vocabulary of {sizes}")
    seed = recipe.plan.seed
    model = Transformer(recipe.model, torch.Generator().manual_seed(seed), moe_layer).to(device)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.endswith(recipe.frozen))
    if resume:
        parallel.from_first(lambda: _need_same(folder, recipe, text))
    papers = {
        RECIPE: _json(recipe.to_dict() | {"corpus": text.corpus.fingerprint}),
        TOKENIZER: text.tokenizer.to_json(),
    }
    batch, held_out = text.batch(recipe), text.held_out(recipe)
    train(model, recipe.plan, batch, folder, held_out, resume, progress, watch, papers, expert_parallel)
    result = measure(model, recipe, text) | {"curve": parallel.from_first(lambda: curve(folder))}
    if parallel.rank_and_size()[0] == 0:
        files.write(folder / RESULT, _json(result))
    return result


def _need_same(folder: Path, recipe: Recipe, text: Text) -> None:
    """Raise ValueError if a run would go on in another way than it began. `train` compares model and plan itself."""
    if not checkpoint.exists(folder / CHECKPOINT):
        return
    before, now = read_recipe(folder).to_dict(), recipe.to_dict()
    for name in ("name", "data", "level", "batch_size", "frozen"):
        if before[name] != now[name]:
            raise ValueError(f"the run in {folder} has {name} = {before[name]!r}, this one {now[name]!r}")
    same_tokens = read_tokenizer(folder).to_json() == text.tokenizer.to_json()
    if not same_tokens or corpus_of(folder) not in (None, text.corpus.fingerprint):
        raise ValueError(f"the run in {folder} was begun on another text: {recipe.data!r} has changed since")


def measure(model: Transformer, recipe: Recipe, text: Text) -> dict[str, Any]:
    """The loss by domain and in all on held-out text, the share of facts recalled, sizes, costs, and the machine."""
    split = text.last_split(recipe.model.context)
    by_domain = loss_by_domain(model, text.line(split), text.tokenizer, recipe.batch_size, shared=True)
    in_all, *others = by_domain.values()
    for loss in others:
        in_all = in_all + loss
    total, active = model.num_params()
    return {
        "recipe": recipe.to_dict(),
        "corpus": text.corpus.fingerprint,
        "params": {"total": total, "active": active},
        "flops_per_token": costs.flops_per_token(recipe.model),
        "split": split,
        "ce": round(in_all.ce, 5),
        "bpb": round(in_all.bpb, 5),
        "by_domain": {
            name: {"ce": round(loss.ce, 5), "bpb": round(loss.bpb, 5), "tokens": loss.tokens}
            for name, loss in by_domain.items()
        },
        "recall": round(recall(model, text.tokenizer, text.corpus.cloze), 5) if text.corpus.cloze else None,
        "machine": machine(),
    }


def curve(folder: Path) -> list[dict[str, Any]]:
    """What was logged at the steps at which held-out data were evaluated."""
    return [
        {name: _short(record[name]) for name in CURVE if name in record}
        for record in Log(folder / LOG).records()
        if "held_out_ce" in record
    ]


def table(results: Sequence[dict[str, Any]]) -> str:
    """Results side by side: parameters, tokens, loss on the test split, recall, and what the training took.

    A run that has not ended has no loss on the test split yet.
    """
    rows: list[tuple[str, ...]] = [
        ("run", "seed", "total", "active", "tokens", "CE", "bits/byte", "recall", "TFLOPs", "seconds")
    ]
    for result in results:
        recipe = Recipe.from_dict(result["recipe"])
        recalled = "" if result["recall"] is None else f"{result['recall']:.1%}"
        total, active = result["params"]["total"], result["params"]["active"]
        tokens = (result["curve"][-1]["step"] + 1) * recipe.batch_size * recipe.model.context
        sizes = (f"{total:,}", f"{active:,}", f"{tokens:,}")
        losses = (
            *("" if result[name] is None else f"{result[name]:.4f}" for name in ("ce", "bpb")),
            recalled,
        )
        costs = (
            f"{tokens * result['flops_per_token'] / 1e12:.1f}",
            f"{result['curve'][-1]['seconds']:.0f}",
        )
        rows.append((recipe.name, str(recipe.plan.seed), *sizes, *losses, *costs))
    return text_table(rows)


def machine() -> dict[str, Any]:
    """What is known of the machine that has an influence on the seconds."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": gpu or platform.machine(),
        "threads": torch.get_num_threads(),
    }


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a run. Raises ValueError if the folder holds no run."""
    try:
        plain = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no run: there is no {RECIPE} in it") from None
    return Recipe.from_dict({name: value for name, value in plain.items() if name != "corpus"})


def corpus_of(folder: Path) -> str | None:
    """The fingerprint of the corpus on which a run was begun; None for runs of versions that did not keep it."""
    fingerprint: str | None = json.loads((folder / RECIPE).read_text(encoding="utf-8")).get("corpus")
    return fingerprint


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a run."""
    return tokenizer_from_json((folder / TOKENIZER).read_text(encoding="utf-8"))


def read_result(folder: Path) -> dict[str, Any]:
    """The result of a run. Raises ValueError if the run has not ended."""
    try:
        result: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no finished run: there is no {RESULT} in it") from None
    return result


def so_far(folder: Path) -> dict[str, Any]:
    """The result of a run; of one that has not ended, what is known: its curve, and None for what is measured last.

    Raises ValueError if there is no run, or if it has not been evaluated yet.
    """
    if (folder / RESULT).exists():
        return read_result(folder)
    recipe, points = read_recipe(folder), curve(folder)
    if not points:
        raise ValueError(f"the run in {folder} has not been evaluated yet")
    total, active = costs.num_params(recipe.model)
    return {
        "recipe": recipe.to_dict(),
        "corpus": corpus_of(folder),
        "params": {"total": total, "active": active},
        "flops_per_token": costs.flops_per_token(recipe.model),
        **dict.fromkeys(("ce", "bpb", "recall")),
        "curve": points,
    }


def _short(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) else value


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1) + "\n"
