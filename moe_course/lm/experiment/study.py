"""The experiment of notebook 07, as a list of runs, and the records of those that were done.

All runs use the "cpu" preset. docs/results.md states the rule that was registered before the compared runs. A record
is what `trial.run_recipe` returns.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from moe_course import files
from moe_course.config import MoEConfig
from moe_course.lm.experiment import trial
from moe_course.lm.experiment.recipe import ARMS, PRESETS, Recipe, recipe

Result = Mapping[str, Any]
RECORDED = Path(__file__).resolve().parent / "recorded"

SEEDS = (0, 1, 2, 3, 4)
CHANGE_SEEDS = (0, 1, 2)
TUNING_SEED = 100
RATES = (3e-3, 6e-3, 1.2e-2)
STEPS, SHORT_STEPS = PRESETS["cpu"].plan.steps, 250
WHOLE_RATES = dict.fromkeys(ARMS, (1.2e-2, 6e-3))
"""What each arm tries at full length: the best of its short runs, and half of it."""
CHOSEN = dict.fromkeys(ARMS, 1.2e-2)
"""The rate of each arm: the one of WHOLE_RATES with the lower validation loss."""
EQUAL_TIME_STEPS = {"moe": 800, "dense-active": STEPS, "dense-total": 470}
"""So many steps take the processor time of STEPS of dense-active, by a measurement of all three in turns."""
CHOSEN_FOR_TIME = dict.fromkeys(ARMS, 1.2e-2)
"""The rate of each arm in so many steps, chosen like CHOSEN."""


def recipes() -> dict[str, Recipe]:
    """The recipe of every run by the run's name, in the order in which they are done.

    First each arm's peak rate is chosen by the loss on the validation split, with a seed that no comparison uses:
    three rates in short runs ("rate"), then at full length the best of them and half of it ("whole"). Then the arms
    are compared on five seeds ("arm"), and in equal processor time, that of dense-active, for which the other arms
    choose again between the same two rates ("time"). Last, one thing at a time is changed in short runs of the
    mixture on three seeds ("change").
    """
    rate = {
        f"rate-{arm}-{rate:g}": _run(arm, TUNING_SEED, rate, SHORT_STEPS) for rate in RATES for arm in ARMS
    }
    whole = {
        f"whole-{arm}-{rate:g}": _run(arm, TUNING_SEED, rate, STEPS)
        for arm, rates in WHOLE_RATES.items()
        for rate in rates
    }
    arm = {f"arm-{arm}-{seed}": _run(arm, seed, CHOSEN[arm], STEPS) for seed in SEEDS for arm in ARMS}
    time = {
        f"time-{arm}-{TUNING_SEED}-{rate:g}": _by_the_clock(arm, TUNING_SEED, rate)
        for arm in ARMS
        if arm != "dense-active"
        for rate in WHOLE_RATES[arm]
    }
    time |= {
        f"time-{arm}-{seed}": _by_the_clock(arm, seed, CHOSEN_FOR_TIME[arm]) for seed in SEEDS for arm in ARMS
    }
    change = {
        f"change-{name} {seed}": replace(changed, name=name, plan=replace(changed.plan, seed=seed))
        for seed in CHANGE_SEEDS
        for name, changed in _changed().items()
    }
    return rate | whole | arm | time | change


def _run(arm: str, seed: int, rate: float, steps: int) -> Recipe:
    base = recipe("cpu", arm, seed)
    return replace(base, plan=replace(base.plan, steps=steps, peak=rate, floor=rate / 10))


def _by_the_clock(arm: str, seed: int, rate: float) -> Recipe:
    return replace(_run(arm, seed, rate, EQUAL_TIME_STEPS[arm]), name=f"{arm} by the clock")


def _changed() -> dict[str, Recipe]:
    """Short runs of the mixture at its best short rate: unchanged, and with one thing changed.

    d_ff stays the same unless it is the thing that is changed, so a larger top-k means more compute.
    """
    base = _run("moe", 0, WHOLE_RATES["moe"][0], SHORT_STEPS)
    assert isinstance(base.model.ffn, MoEConfig)
    ffn, width = base.model.ffn, base.model.ffn.d_ff

    def moe(**changes: Any) -> Recipe:
        return replace(base, model=replace(base.model, ffn=replace(ffn, **changes)))

    unbalanced = replace(base.plan, lb_weight=0.0)
    return {
        "moe": base,
        "dense-active": _run("dense-active", 0, WHOLE_RATES["dense-active"][0], SHORT_STEPS),
        "2 experts": moe(num_experts=2),
        "4 experts": moe(num_experts=4),
        "16 experts": moe(num_experts=16),
        "top-1": moe(top_k=1, renormalize=False),
        "top-4": moe(top_k=4),
        "16 half experts, top-4": moe(num_experts=16, top_k=4, d_ff=width // 2),
        "15 half experts, top-3, one shared": moe(
            num_experts=15, top_k=3, d_ff=width // 2, num_shared=1, d_ff_shared=width // 2
        ),
        "capacity factor 1": moe(capacity_factor=1.0),
        "no balancing": replace(base, plan=unbalanced),
        "bias instead of loss": replace(moe(bias_rate=1e-3), plan=unbalanced),
        "frozen routing": replace(base, frozen=("router",)),
        "AdamW": replace(base, plan=replace(base.plan, optimizer="adamw")),
    }


def run_missing(
    names: Iterable[str], folder: Path, records: Path = RECORDED, say: Callable[[str], None] = print
) -> None:
    """Do the runs that have no record yet, one after the other on one thread, each in a folder inside `folder`.

    Several processes may share the work: each takes a run that no other process is doing. An interrupted run goes on
    from its last checkpoint. Raises ValueError for a name that is no run.
    """
    torch.set_num_threads(1)
    todo = recipes()
    records.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name not in todo:
            raise ValueError(f"no run {name!r}; there are {', '.join(todo)}")
    for name in names:
        record = records / f"{name}.json"
        with contextlib.suppress(Timeout), FileLock(folder / f"{name}.lock", blocking=False):
            if not record.exists():
                say(name)
                result = trial.run_recipe(todo[name], folder / name, resume=True, progress=False)
                files.write(record, json.dumps(result, separators=(",", ":")) + "\n")


def recorded(kind: str, folder: Path = RECORDED) -> dict[str, dict[str, Any]]:
    """The records of a kind, "arm" say, by name, in the order of `recipes`; only what is done."""
    names = [name for name in recipes() if name.startswith(f"{kind}-") and (folder / f"{name}.json").exists()]
    return {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in names}


def by_arm(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results by the name of their recipe, each list in the order of its seeds."""
    found: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: result["recipe"]["plan"]["seed"]):
        found.setdefault(result["recipe"]["name"], []).append(result)
    return found


def raced(by_clock: Mapping[str, Iterable[Result]]) -> dict[str, list[Result]]:
    """The compared runs of kind "time", by arm: those that chose the rates are left out."""
    return {
        arm: [r for r in by_clock[f"{arm} by the clock"] if r["recipe"]["plan"]["seed"] in SEEDS]
        for arm in ARMS
    }
