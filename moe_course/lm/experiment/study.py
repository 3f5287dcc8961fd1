"""The experiment of notebook 07, as a list of runs, and the records of those that were done.

All runs use the "cpu" preset. First the learning rate of each arm is chosen, with equal budgets ("tune"). Then the
mixture is compared with a dense model of equal active and one of equal total parameters, on three seeds ("main"), and
once more with as many steps as fit into the processor time of dense-active ("clock"). Last, in short runs, one thing
at a time is changed in the mixture of the first seed ("vary"). A record is what `trial.run_recipe` returns.
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
from moe_course.lm.experiment.recipe import ARMS, Recipe, recipe

Result = Mapping[str, Any]
RECORDED = Path(__file__).resolve().parent / "recorded"
SEEDS = (0, 1, 2)
RATES = (3e-3, 6e-3, 1.2e-2)
TUNING_STEPS = 400
SHORT_RATE = 6e-3
"""The best of RATES for every arm in short runs. It may be too high for full-length runs, so some of them try it."""
CLOCK_STEPS = 830
"""So many steps of the mixture take no more processor time than all steps of dense-active."""


def recipes() -> dict[str, Recipe]:
    """The recipe of every run of the experiment by the run's name, in the order in which they are done."""
    tune = {f"tune-{arm}-{rate:g}": _tuning(arm, rate) for rate in RATES for arm in ARMS}
    tune |= {f"tune-whole-{arm}-0.006": _whole(arm, seed=0) for arm in ARMS}
    tune |= {f"tune-whole-moe-0.006-{seed}": _whole("moe", seed) for seed in SEEDS[1:]}
    main = {f"main-{arm}-{seed}": recipe("cpu", arm, seed) for seed in SEEDS for arm in ARMS}
    clock = {f"clock-moe-{seed}": _clock(seed) for seed in SEEDS}
    vary = {f"vary-{name}": replace(changed, name=_plain(name)) for name, changed in _varied().items()}
    return tune | main | clock | vary


def _tuning(arm: str, rate: float) -> Recipe:
    """A shorter run, with a seed that no comparison uses."""
    base = recipe("cpu", arm, seed=100)
    return replace(base, plan=replace(base.plan, steps=TUNING_STEPS, peak=rate, floor=rate / 10))


def _whole(arm: str, seed: int) -> Recipe:
    """A full-length run at SHORT_RATE; the main runs have half that rate."""
    base = recipe("cpu", arm, seed)
    return replace(base, plan=replace(base.plan, peak=SHORT_RATE, floor=SHORT_RATE / 10))


def _clock(seed: int) -> Recipe:
    base = recipe("cpu", "moe", seed)
    return replace(base, name="moe by the clock", plan=replace(base.plan, steps=CLOCK_STEPS))


def _varied() -> dict[str, Recipe]:
    """Short runs of the mixture at their best rate: three seeds unchanged, then one seed with one thing changed.

    d_ff stays the same unless it is the thing that is changed, so a larger top-k means more compute.
    """
    base = replace(_tuning("moe", SHORT_RATE), name="moe")
    base = replace(base, plan=replace(base.plan, seed=0))
    assert isinstance(base.model.ffn, MoEConfig)
    ffn, width = base.model.ffn, base.model.ffn.d_ff

    def moe(**changes: Any) -> Recipe:
        return replace(base, model=replace(base.model, ffn=replace(ffn, **changes)))

    seeds = {f"moe {seed}": replace(base, plan=replace(base.plan, seed=seed)) for seed in SEEDS}
    return seeds | {
        "16 experts": moe(num_experts=16),
        "4 experts": moe(num_experts=4),
        "2 experts": moe(num_experts=2),
        "top-1": moe(top_k=1, renormalize=False),
        "top-4": moe(top_k=4),
        "16 half experts, top-4": moe(num_experts=16, top_k=4, d_ff=width // 2),
        "7 experts and a shared one": moe(num_experts=7, top_k=1, num_shared=1, d_ff_shared=width),
        "capacity factor 1": moe(capacity_factor=1.0),
        "no balancing": replace(base, plan=replace(base.plan, lb_weight=0.0)),
        "bias instead of loss": replace(moe(bias_rate=1e-3), plan=replace(base.plan, lb_weight=0.0)),
        "frozen routing": replace(base, frozen=("router",)),
    }


def _plain(name: str) -> str:
    """The name in tables: runs that differ only in their seed share it."""
    return "moe" if name.startswith("moe ") else name


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
    """The records of "tune", "main", "clock" or "vary" by name, in the order of `recipes`; only what is done."""
    names = [name for name in recipes() if name.startswith(f"{kind}-") and (folder / f"{name}.json").exists()]
    return {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in names}


def by_arm(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results by the name of their recipe, each list in the order of its seeds."""
    found: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: result["recipe"]["plan"]["seed"]):
        found.setdefault(result["recipe"]["name"], []).append(result)
    return found


def gaps(worse: Iterable[Result], better: Iterable[Result], what: str = "ce") -> list[float]:
    """How much lower each seed of `better` is than the same seed of `worse`. Seeds that only one has are left out."""
    seeds = [{r["recipe"]["plan"]["seed"]: r[what] for r in results} for results in (worse, better)]
    return [seeds[0][seed] - seeds[1][seed] for seed in sorted(seeds[0].keys() & seeds[1].keys())]


def spread(results: Iterable[Result], what: str = "ce") -> float:
    """The range over seeds. A difference between arms says something only if it is larger than this."""
    values = [result[what] for result in results]
    return max(values) - min(values)
