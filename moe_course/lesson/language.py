"""The language model of notebooks 07 and 08: trained once, stored in the work folder, then loaded from there.

mixture = language.train("moe", m.layer)    # with your own layer; live curves; a second call loads it
dense = language.train("dense-active")
study = language.load_or_train()            # in notebook 08: the model of 07, else a smaller training now
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from IPython.display import HTML, display

from moe_course.config import MoEConfig
from moe_course.jsonl import Log
from moe_course.lesson import home
from moe_course.lm.corpus import build, tokenizer
from moe_course.lm.experiment import recipe, trial
from moe_course.lm.experiment import study as recorded_study
from moe_course.lm.model.lm_config import LMConfig
from moe_course.lm.model.transformer import Transformer
from moe_course.lm.training import checkpoint
from moe_course.lm.training.run_folder import LOG, load_model
from moe_course.moe.layer import MoELayer
from moe_course.viz import style, training

SNAPSHOTS = (20, 50, 100, 200, 400, 800)
"""The model is stored after so many steps, and after the last one."""
QUICK_STEPS = 150
SMALL_LIMITS = {"code": 950_000, "technical": 450_000, "names": 150_000, "facts": 150_000}
"""The smallest sizes with which every split has documents of every domain."""
REDRAW_SECONDS = 10.0


@dataclass(frozen=True)
class Study:
    """A trained model, its text and its result. `snapshots`: (steps done, model) from the first to the last."""

    model: Transformer
    snapshots: list[tuple[int, Transformer]]
    text: trial.Text
    result: dict[str, Any]

    @property
    def tokenizer(self) -> tokenizer.Tokenizer:
        return self.text.tokenizer

    @property
    def corpus(self) -> build.Corpus:
        return self.text.corpus


def train(
    arm: str,
    moe_layer: Callable[[MoEConfig], MoELayer] | None = None,
    again: bool = False,
    steps: int | None = None,
) -> Study:
    """Train an arm of the experiment on its first seed, with live curves. If that was done before, load the result.

    arm: "moe", "dense-active" or "dense-total". moe_layer: makes the MoE layers, the library's by default. An
    interrupted training goes on at the next call. again: delete what was trained before. Uses a GPU if there is
    one.
    """
    chosen = _recipe(arm, steps)
    folder = _runs() / f"{arm}-{chosen.plan.steps}"
    text = text_of(chosen)
    if again:
        _forget(folder)
    elif any(folder.glob("[!.]*")) and not _is_of(folder, chosen, text):
        _set_aside(folder)
    if (folder / trial.RESULT).exists():
        print(f"{arm}: trained already, loaded from {folder}. To train anew: again=True.")
        return _study(folder, text, trial.read_result(folder))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    live = Live(arm, folder, chosen.plan.steps)
    result = trial.run_recipe(
        chosen, folder, resume=True, device=device, moe_layer=moe_layer, watch=live, progress=False, text=text
    )
    live.draw()
    return _study(folder, text, result)


def load_or_train(steps: int | None = None) -> Study:
    """The mixture that notebook 07 trained, or 08; if there is none, one that is trained now, for fewer steps.

    steps: how many; by default as many as notebook 08 needs.
    """
    for known in (None, _quick_steps()):
        chosen = _recipe("moe", known)
        folder = _runs() / f"moe-{chosen.plan.steps}"
        if (folder / trial.RESULT).exists() and _is_of(folder, chosen, text_of(chosen)):
            return train("moe", steps=known)
    steps = min(steps or _quick_steps(), _quick_steps())
    print(f"Notebook 07 has trained no model here, so a small one is trained now: {steps} steps.")
    return train("moe", steps=steps)


def text() -> trial.Text:
    """The corpus and tokenizer of the experiment."""
    return text_of(_recipe("moe"))


def text_of(chosen: recipe.Recipe) -> trial.Text:
    """The corpus and tokenizer of a recipe; with MOE_COURSE_SMALL in the environment a small part of the corpus."""
    return _text(chosen.data, chosen.level, chosen.model.vocab_size, _small())


@lru_cache(maxsize=2)
def _text(data: str, level: str, vocab_size: int, small: bool) -> trial.Text:
    if not small:
        return trial.Text.of(data, level, vocab_size)
    part = build.load(data, SMALL_LIMITS)
    return trial.Text(part, tokenizer.train_tokenizer(part, vocab_size, level))


def recorded(text: trial.Text) -> dict[str, list[recorded_study.Result]]:
    """The recorded runs of the experiment by arm, one for each seed. Prints a note if their text was another."""
    runs = recorded_study.recorded("arm")
    theirs = {result["corpus"] for result in runs.values()}
    if theirs != {text.corpus.fingerprint}:
        print(
            f"The recorded runs saw another text ({', '.join(sorted(f[:8] for f in theirs))}; yours is "
            f"{text.corpus.fingerprint[:8]}): it is made of what is installed. Compare gaps, not losses."
        )
    return recorded_study.by_arm(runs.values())


def renamed(study: Study, name: str) -> recorded_study.Result:
    """A study's result under another name, for figures that distinguish runs by their names."""
    return {**study.result, "recipe": {**study.result["recipe"], "name": name}}


class Live:
    """The curves of a run while it is trained, drawn again every few seconds. It also stores the snapshots."""

    def __init__(self, name: str, folder: Path, steps: int):
        self.name, self.folder, self.steps = name, folder, steps
        self._handle: Any = None
        self._drawn = 0.0

    def __call__(self, record: dict[str, Any], model: Transformer) -> None:
        done = record["step"] + 1
        if done in SNAPSHOTS:
            state = {"config": model.config.to_dict(), "model": model.state_dict()}
            checkpoint.save(self.folder / f"snapshot-{done:05}.pt", state)
        if time.monotonic() - self._drawn > REDRAW_SECONDS:
            self.draw()

    def draw(self) -> None:
        self._drawn = time.monotonic()
        figure = training.progress(Log(self.folder / LOG).records(), self.name, self.steps)
        picture = HTML(style.as_html(figure, f"Loss and loads of {self.name} while it is trained."))
        if self._handle is None:
            self._handle = display(picture, display_id=True)
        else:
            self._handle.update(picture)


def _recipe(arm: str, steps: int | None = None) -> recipe.Recipe:
    chosen = recipe.recipe("cpu", arm)
    if _small():
        sizes = replace(chosen.model, context=64)
        plan = replace(chosen.plan, steps=40, warmup=5, eval_every=20)
        return replace(chosen, batch_size=8, model=sizes, plan=plan)
    return replace(chosen, plan=replace(chosen.plan, steps=steps)) if steps else chosen


def _study(folder: Path, text: trial.Text, result: dict[str, Any]) -> Study:
    model = load_model(folder)
    snapshots = [
        (done, _snapshot(path)) for done in SNAPSHOTS if (path := folder / f"snapshot-{done:05}.pt").exists()
    ]
    steps = result["recipe"]["plan"]["steps"]
    return Study(model, [*snapshots, (steps, model)], text, result)


def _snapshot(path: Path) -> Transformer:
    state = checkpoint.load(path)
    model = Transformer(LMConfig.from_dict(state["config"]))
    model.load_state_dict(state["model"])
    return model.eval()


def _is_of(folder: Path, chosen: recipe.Recipe, text: trial.Text) -> bool:
    """Whether the run in a folder, finished or not, has this recipe and this text."""
    try:
        same_text = trial.read_tokenizer(folder).to_json() == text.tokenizer.to_json()
        same_text &= trial.corpus_of(folder) in (None, text.corpus.fingerprint)
        if (folder / trial.RESULT).exists():
            same_text &= trial.read_result(folder)["corpus"] == text.corpus.fingerprint
        return same_text and trial.read_recipe(folder) == chosen
    except (OSError, ValueError, TypeError, KeyError):
        return False  # there is no run, it is damaged, or an older version of the course wrote it


def _forget(folder: Path) -> None:
    for path in folder.glob("*"):
        path.unlink()


def _set_aside(folder: Path) -> None:
    """Keep under a free name what has another recipe or text, is of another version of the course, or is damaged."""
    names = (folder.with_name(f"{folder.name}-before{n}") for n in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    folder.rename(aside)
    print(f"{folder.name} is damaged, or has another recipe or text: kept as {aside.name}, and trained anew.")


def _small() -> bool:
    return "MOE_COURSE_SMALL" in os.environ


def _quick_steps() -> int:
    return 40 if _small() else QUICK_STEPS


@lru_cache(maxsize=1)
def _elsewhere() -> Path:
    """A folder for this session only: outside a work folder nothing is stored."""
    return Path(tempfile.mkdtemp(prefix="moe-course-runs-"))


def _runs() -> Path:
    state = home.state_dir()
    return state / "runs" if state else _elsewhere()
