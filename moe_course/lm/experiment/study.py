"""The experiment of notebook 07, as a list of runs, and the records of those that were done.

All runs use the "cpu" preset. First the learning rate of each arm is chosen, with equal budgets ("tune"). Then the
mixture is compared with a dense model of equal active and one of equal total parameters, on three seeds ("main"), and
once more with as many steps as fit into the processor time of dense-active ("clock"). Last, in short runs, one thing
at a time is changed in the mixture of the first seed ("vary"). A record is what `trial.run_recipe` returns.

These were trained with AdamW on three seeds, and do not decide. The experiment that shall, registered in
docs/results.md before its runs, is `deciding_recipes`: Muon, twice the tokens, five seeds, and its own kinds of runs
("rate", "whole", "arm", "time", "change"). Until all are recorded, notebook 07 and the page rest on the first.
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

MUON_RATES = (3e-3, 6e-3, 1.2e-2)
MUON_STEPS, SHORT_STEPS, TUNING_SEED = 1000, 250, 100
FIVE_SEEDS = (0, 1, 2, 3, 4)
WHOLE_RATES = dict.fromkeys(ARMS, (1.2e-2, 6e-3))
"""What each arm tries at full length: the best of its short runs, and half of it."""
CHOSEN = dict.fromkeys(ARMS, 1.2e-2)
"""The rate of each arm: the one of WHOLE_RATES with the lower validation loss."""
EQUAL_TIME_STEPS: dict[str, int] = {}
"""So many steps take the processor time of dense-active's MUON_STEPS, which are here as well."""
CHOSEN_FOR_TIME: dict[str, float] = {}


def recipes() -> dict[str, Recipe]:
    """The recipe of every run of both experiments by the run's name, in the order in which they are done."""
    return _first_recipes() | deciding_recipes()


def deciding_recipes() -> dict[str, Recipe]:
    """The runs of the experiment that shall decide.

    First each arm's peak rate is chosen by the loss on the validation split, with a seed that no comparison uses:
    three rates in short runs ("rate"), then at full length the best of them and half of it ("whole"). Then the arms
    are compared on five seeds ("arm"), and in equal processor time, that of dense-active, for which the other arms
    choose again between the same two rates ("time"). Last, one thing at a time is changed in short runs of the
    mixture on three seeds ("change"). What follows from earlier runs, and is not decided yet, is missing.
    """
    rate = {
        f"rate-{arm}-{rate:g}": _muon(arm, TUNING_SEED, rate, SHORT_STEPS)
        for rate in MUON_RATES
        for arm in ARMS
    }
    whole = {
        f"whole-{arm}-{rate:g}": _muon(arm, TUNING_SEED, rate, MUON_STEPS)
        for arm, rates in WHOLE_RATES.items()
        for rate in rates
    }
    arm = {
        f"arm-{arm}-{seed}": _muon(arm, seed, CHOSEN[arm], MUON_STEPS)
        for seed in FIVE_SEEDS
        for arm in CHOSEN
    }
    time = {
        f"time-{arm}-{TUNING_SEED}-{rate:g}": replace(
            _muon(arm, TUNING_SEED, rate, steps), name=f"{arm} by the clock"
        )
        for arm, steps in EQUAL_TIME_STEPS.items()
        for rate in WHOLE_RATES[arm]
    }
    time |= {
        f"time-{arm}-{seed}": replace(
            _muon(arm, seed, rate, EQUAL_TIME_STEPS[arm]), name=f"{arm} by the clock"
        )
        for seed in FIVE_SEEDS
        for arm, rate in CHOSEN_FOR_TIME.items()
    }
    change = {
        f"change-{name} {seed}": replace(changed, name=name, plan=replace(changed.plan, seed=seed))
        for seed in SEEDS
        for name, changed in _changed().items()
    }
    return rate | whole | arm | time | change


def _muon(arm: str, seed: int, rate: float, steps: int) -> Recipe:
    base = recipe("cpu", arm, seed)
    plan = replace(base.plan, steps=steps, peak=rate, floor=rate / 10, optimizer="muon")
    return replace(base, batch_size=32, plan=replace(plan, muon_iterations=3, embedding_peak=1e-2))


def _changed() -> dict[str, Recipe]:
    """Short runs of the mixture at its best short rate: unchanged, and with one thing changed.

    d_ff stays the same unless it is the thing that is changed, so a larger top-k means more compute.
    """
    if not WHOLE_RATES:
        return {}
    base = _muon("moe", 0, WHOLE_RATES["moe"][0], SHORT_STEPS)
    assert isinstance(base.model.ffn, MoEConfig)
    ffn, width = base.model.ffn, base.model.ffn.d_ff

    def moe(**changes: Any) -> Recipe:
        return replace(base, model=replace(base.model, ffn=replace(ffn, **changes)))

    unbalanced = replace(base.plan, lb_weight=0.0)
    return {
        "moe": base,
        "dense-active": _muon("dense-active", 0, WHOLE_RATES["dense-active"][0], SHORT_STEPS),
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


def _first_recipes() -> dict[str, Recipe]:
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
    """The records of a kind, "main" say, by name, in the order of `recipes`; only what is done."""
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
