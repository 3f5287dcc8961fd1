"""The experiment's records as a page: docs/results.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

from moe_course.lm.experiment import deciding_page, study
from moe_course.lm.experiment.deciding_page import peak, ranged
from moe_course.lm.experiment.recipe import ARMS, Recipe
from moe_course.tables import markdown_table

Result = Mapping[str, Any]

HEAD = """# What the experiment showed

Written by `moe-course results --report` from the records in `moe_course/lm/experiment/recorded/`; a test holds it to
them. `make results` does the runs that have no record; `moe-course results NAME --records DIR` repeats one.

A mixture of experts (8 experts, each token uses 2) against a dense model with the same *active* parameters and one
with the same *total*: the same decoder, the same batches in the same order for each seed, the same budget to find
each arm's learning rate, the loss measured on documents that no run has seen. CE is in nats per token, bpb in bits
per byte.
"""

REGISTERED = """## Registered before its runs: the experiment that shall decide

The experiment above does not decide: with AdamW and three seeds the mixture's own seeds differ as much as the arms
do. The next one is fixed here before its compared runs are done; its records appear beside the others as they come.

- **Arms**: moe, dense-active and dense-total as above. Muon for the matrices (three Newton–Schulz iterations), AdamW
  for embeddings (peak rate 0.01), routers and gains; {tokens:.1f}M tokens in {steps:,} steps of {batch} sequences.
- **Rates**: each arm tries {rates} in {short:,} steps, then the best of them and half of it at full length, with seed
  {seed}, which no comparison uses. The lower loss on the *validation* split decides.
- **Compared**: five seeds ({seeds}), paired: on one seed all arms see the same batches. Reported are the mean of the
  five differences in test CE, its 95 % interval (Student's t, four degrees of freedom) and each seed's sign.
- **Better** means: the interval excludes 0 and all five signs agree. Anything else is reported as open.
- **By the clock**: runs of their own, while nothing else runs. Dense-active's set the processor time; the other arms
  get the same within 1 %, with a rate chosen for that length in the same way, and are judged by the same rule.
- **One thing changed**: runs of {short:,} steps on seeds {three}, each against the plain mixture of the same seed;
  the interval has two degrees of freedom, so only large effects can be told from none.
- Whatever comes out is published here, and notebook 07 then says what this page says.

Records so far: {done}.
"""


def markdown() -> str:
    """The whole page."""
    tune, main, clock, vary = (
        study.by_arm(study.recorded(kind).values()) for kind in ("tune", "main", "clock", "vary")
    )
    parts = [
        HEAD,
        _setting(main["moe"][0]),
        _tuned(tune, main),
        _arms(main),
        _domains(main),
        _clock(main, clock),
    ]
    return "\n".join(filter(None, [*parts, _varied(vary), _registered(), deciding_page.markdown()]))


def _registered() -> str:
    runs = study.deciding_recipes()
    first = next(iter(runs.values()))
    kinds = list(dict.fromkeys(name.partition("-")[0] for name in runs))
    counts = {kind: len(study.recorded(kind)) for kind in kinds}
    return REGISTERED.format(
        tokens=study.MUON_STEPS * first.batch_size * first.model.context / 1e6,
        steps=study.MUON_STEPS,
        batch=first.batch_size,
        rates=_words(f"{rate:g}" for rate in study.MUON_RATES),
        short=study.SHORT_STEPS,
        seed=study.TUNING_SEED,
        seeds=_words(map(str, study.FIVE_SEEDS)),
        three=_words(map(str, study.SEEDS)),
        done=", ".join(f"{count} of kind “{kind}”" for kind, count in counts.items() if count) or "none",
    )


def _words(items: Iterable[str]) -> str:
    *most, last = items
    return f"{', '.join(most)} and {last}"


def _setting(result: Result) -> str:
    recipe, machine = Recipe.from_dict(result["recipe"]), result["machine"]
    model = recipe.model
    return (
        f"{model.num_layers} layers of width {model.d_model}, context {model.context}, vocabulary "
        f"{model.vocab_size:,}; {recipe.plan.steps:,} steps of {recipe.batch_size} sequences, "
        f"{recipe.tokens / 1e6:.2f}M tokens. Corpus {result['corpus'][:8]}. {machine['threads']} thread of a shared "
        f"{machine['processor']} machine, PyTorch {machine['torch']}, Python {machine['python']}; seconds are those "
        "of the processor, which other work on the machine lengthens less than those of the clock.\n"
    )


def _tuned(tune: Mapping[str, Sequence[Result]], main: Mapping[str, Sequence[Result]]) -> str:
    """CE by peak rate: first of short runs, then of full-length runs on the first seed, the main runs included."""
    lines = ["## The learning rate of each arm", "", "CE by peak rate; in bold the lowest of the arm.", ""]
    titles = {_steps(tune["moe"][-1]): "short runs", _steps(main["moe"][0]): "whole runs"}
    for steps, title in titles.items():
        by_arm = {arm: _by_rate([*tune[arm], *main[arm]], steps) for arm in tune}
        rates = sorted({rate for losses in by_arm.values() for rate in losses})
        rows = [[arm, *(_bold_if_least(losses, rate) for rate in rates)] for arm, losses in by_arm.items()]
        lines += [_table([f"{title}, {steps:,} steps", *(f"{rate:g}" for rate in rates)], rows)]
    high = [r for r in tune["moe"] if _steps(r) == _steps(main["moe"][0])]
    lines += [
        f"All arms take {peak(main['moe'][0]):g}: for whole runs the best, or within a hundredth of it. "
        f"At {peak(high[0]):g} the mixture's seeds came to {_list(r['ce'] for r in high)}, at "
        f"{peak(main['moe'][0]):g} to {_list(r['ce'] for r in main['moe'])}.",
        "",
    ]
    return "\n".join(lines)


def _by_rate(results: Iterable[Result], steps: int) -> dict[float, float]:
    """The CE of the first seed at each rate."""
    found: dict[float, float] = {}
    for result in results:
        if _steps(result) == steps:
            found.setdefault(peak(result), result["ce"])
    return found


def _steps(result: Result) -> int:
    return int(result["recipe"]["plan"]["steps"])


def _bold_if_least(losses: Mapping[float, float], rate: float) -> str:
    if rate not in losses:
        return ""
    return f"**{losses[rate]:.4f}**" if losses[rate] == min(losses.values()) else f"{losses[rate]:.4f}"


def _arms(main: Mapping[str, Sequence[Result]]) -> str:
    base = mean(_seconds(r) for r in main["dense-active"])
    rows = [
        [
            arm,
            f"{main[arm][0]['params']['active']:,}",
            f"{main[arm][0]['params']['total']:,}",
            f"{main[arm][0]['flops_per_token'] / 1e6:.2f}",
            ranged([r["ce"] for r in main[arm]], 4),
            ranged([r["bpb"] for r in main[arm]], 4),
            ranged([100 * r["recall"] for r in main[arm]], 1),
            f"{mean(_seconds(r) for r in main[arm]) / base:.2f}",
        ]
        for arm in ARMS
    ]
    names = ["", "active", "total", "MFLOPs a token", "CE", "bpb", "facts recalled, %", "seconds"]
    lines = [
        "## The arms",
        "",
        f"Mean over {len(main['moe'])} seeds, and in brackets the lowest and the highest. Seconds are relative to "
        "dense-active. Guessing recalls 25 %.",
        "",
        _table(names, rows),
    ]
    for worse, better in (("dense-active", "moe"), ("dense-active", "dense-total"), ("dense-total", "moe")):
        gained = study.gaps(main[worse], main[better])
        widest = max(study.spread(main[worse]), study.spread(main[better]))
        beyond = min(abs(g) for g in gained) > widest and len({g > 0 for g in gained}) == 1
        lines.append(
            f"- {better} against {worse}: CE lower by {_list(gained)} on the seeds; the wider range over seeds is "
            f"{widest:.4f}, so this is {'more' if beyond else 'not surely more'} than a difference of seeds."
        )
    return "\n".join(lines) + "\n"


def _domains(main: Mapping[str, Sequence[Result]]) -> str:
    domains = list(main["moe"][0]["by_domain"])
    rows = [
        [arm, *(ranged([r["by_domain"][domain]["bpb"] for r in main[arm]], 3) for domain in domains)]
        for arm in ARMS
    ]
    return "## By domain\n\nbpb on the test documents.\n\n" + _table(["", *domains], rows)


def _clock(main: Mapping[str, Sequence[Result]], clock: Mapping[str, Sequence[Result]]) -> str:
    lines = ["## By the clock", ""]
    if not clock:
        return "\n".join([*lines, "Not done yet.", ""])
    results = clock["moe by the clock"]
    steps = _steps(results[0])
    seconds = mean(_seconds(r) for r in results) / mean(_seconds(r) for r in main["dense-active"])
    gained = study.gaps(main["dense-active"], results)
    lines += [
        f"The mixture again with {steps:,} steps, and a learning rate that comes down by then: {seconds:.2f} of the "
        f"processor time that dense-active takes. CE {ranged([r['ce'] for r in results], 4)}: lower than "
        f"dense-active's by {_list(gained)}.",
        "",
    ]
    return "\n".join(lines)


def _varied(vary: Mapping[str, Sequence[Result]]) -> str:
    others = dict(vary)
    moe = others.pop("moe")
    rows = [_row("nothing: 8 experts, top-2, balancing loss", moe[0], moe[0])]
    rows += [
        _row(name, results[0], moe[0])
        for name, results in sorted(others.items(), key=lambda item: item[1][0]["ce"])
    ]
    names = ["Changed", "active", "total", "CE", "against moe", "max violation", "dropped, %", "seconds"]
    return (
        "## One thing changed\n\n"
        f"Short runs of {_steps(moe[0])} steps at {peak(moe[0]):g}, on the first seed. The mixture as it is comes "
        f"to {_list(r['ce'] for r in moe)} on three seeds, a range of {study.spread(moe):.4f}: less than that "
        "means nothing. Max violation: of the last batch, in the layer where it is highest.\n\n"
        + _table(names, rows)
    )


def _row(name: str, result: Result, base: Result) -> list[str]:
    last = result["curve"][-1]
    violation = max(max(load) * len(load) - 1 for load in last["load_LE"])
    return [
        name,
        f"{result['params']['active']:,}",
        f"{result['params']['total']:,}",
        f"{result['ce']:.4f}",
        "" if result is base else f"{result['ce'] - base['ce']:+.4f}",
        f"{violation:.2f}",
        f"{100 * last['drop_rate']:.1f}",
        f"{_seconds(result) / _seconds(base):.2f}",
    ]


def _seconds(result: Result) -> float:
    return float(result["curve"][-1]["cpu_seconds"])


def _list(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return markdown_table(head, rows) + "\n"
