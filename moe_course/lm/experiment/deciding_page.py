"""What the deciding experiment has shown so far, as the last part of docs/results.md.

A section appears once all runs of its kind are recorded; a judgement is made as it was registered, and not before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

from moe_course.lm.experiment import study
from moe_course.lm.experiment.paired import paired
from moe_course.lm.experiment.recipe import ARMS
from moe_course.tables import markdown_table

Result = Mapping[str, Any]

PAIRS = (("dense-active", "moe"), ("dense-active", "dense-total"), ("dense-total", "moe"))


def markdown() -> str:
    """The sections whose runs are all recorded."""
    runs = study.deciding_recipes()
    sections = {"whole": _rates, "arm": _arms, "time": _time, "change": _changes}
    done = []
    for kind, section in sections.items():
        names = {name for name in runs if name.startswith(f"{kind}-")}
        records = study.recorded(kind)
        if names and names == set(records):
            done.append(section(study.by_arm(records.values())))
    return "\n".join(done)


def _rates(whole: Mapping[str, Sequence[Result]]) -> str:
    short = study.by_arm(study.recorded("rate").values())
    tables = []
    for title, runs in (("short runs", short), ("whole runs", whole)):
        rates = sorted({peak(result) for results in runs.values() for result in results})
        rows = []
        for arm in ARMS:
            losses = {peak(result): result["curve"][-1]["held_out_ce"] for result in runs[arm]}
            best = min(losses.values())
            shown = [f"{losses[rate]:.4f}" for rate in rates]
            rows.append([arm, *(f"**{text}**" if float(text) == round(best, 4) else text for text in shown)])
        steps = runs["moe"][0]["recipe"]["plan"]["steps"]
        tables.append(markdown_table([f"{title}, {steps:,} steps", *(f"{rate:g}" for rate in rates)], rows))
    edge = [arm for arm in ARMS if study.CHOSEN[arm] == max(study.MUON_RATES)]
    said = f"The highest rate that was registered is the best of {', '.join(edge)}: a higher one may be better still."
    lines = ["### Its learning rates", "Validation CE by peak rate; in bold the lowest of the arm.", *tables]
    return "\n\n".join([*lines, *([said] if edge else [])]) + "\n"


def _arms(arms: Mapping[str, Sequence[Result]]) -> str:
    rows = [
        [
            arm,
            f"{arms[arm][0]['params']['active']:,}",
            f"{arms[arm][0]['params']['total']:,}",
            f"{arms[arm][0]['flops_per_token'] / 1e6:.2f}",
            ranged([r["ce"] for r in arms[arm]], 4),
            ranged([r["bpb"] for r in arms[arm]], 4),
            ranged([100 * r["recall"] for r in arms[arm]], 1),
        ]
        for arm in ARMS
    ]
    domains = list(arms["moe"][0]["by_domain"])
    by_domain = [
        [arm, *(ranged([r["by_domain"][domain]["bpb"] for r in arms[arm]], 3) for domain in domains)]
        for arm in ARMS
    ]
    return "\n".join(
        [
            "### Its arms",
            "",
            f"Test split, mean over {len(arms['moe'])} seeds, and in brackets the lowest and the highest. Guessing "
            "recalls 25 %.",
            "",
            markdown_table(["", "active", "total", "MFLOPs a token", "CE", "bpb", "facts recalled, %"], rows),
            "",
            *_judgements(arms, PAIRS),
            "",
            "bpb by domain:",
            "",
            markdown_table(["", *domains], by_domain),
            "",
        ]
    )


def _time(by_clock: Mapping[str, Sequence[Result]]) -> str:
    compared = {
        arm: [r for r in by_clock[f"{arm} by the clock"] if _seed(r) != study.TUNING_SEED] for arm in ARMS
    }
    seconds = {arm: mean(r["curve"][-1]["cpu_seconds"] for r in results) for arm, results in compared.items()}
    steps = {arm: results[0]["recipe"]["plan"]["steps"] for arm, results in compared.items()}
    rows = [[arm, f"{steps[arm]:,}", f"{seconds[arm] / seconds['dense-active']:.3f}"] for arm in ARMS]
    return "\n".join(
        [
            "### In equal processor time",
            "",
            markdown_table(["", "steps", "processor time"], rows),
            "",
            *_judgements(compared, PAIRS),
            "",
        ]
    )


def _changes(changes: Mapping[str, Sequence[Result]]) -> str:
    others = {name: results for name, results in changes.items() if name != "moe"}
    found = {name: paired(changes["moe"], results) for name, results in others.items()}
    rows = [
        [
            name,
            f"{others[name][0]['params']['active']:,}",
            f"{others[name][0]['params']['total']:,}",
            f"{mean(r['ce'] for r in others[name]):.4f}",
            f"{-gap.mean:+.4f} ± {gap.half_width:.4f}",
            ("lower" if gap.mean > 0 else "higher") if gap.decided else "open",
        ]
        for name, gap in sorted(found.items(), key=lambda item: -item[1].mean)
    ]
    plain = changes["moe"]
    steps = plain[0]["recipe"]["plan"]["steps"]
    return "\n".join(
        [
            "### One thing changed in it",
            "",
            f"Runs of {steps:,} steps on {len(plain)} seeds. The plain mixture comes to "
            f"{mean(r['ce'] for r in plain):.4f}; each row is against it, seed by seed.",
            "",
            markdown_table(["Changed", "active", "total", "CE", "against moe", "judged"], rows),
            "",
        ]
    )


def _judgements(arms: Mapping[str, Sequence[Result]], pairs: Iterable[tuple[str, str]]) -> list[str]:
    lines = []
    for worse, better in pairs:
        found = paired(arms[worse], arms[better])
        verdict = ("better" if found.mean > 0 else "worse") if found.decided else "open"
        lines.append(f"- {better} lower than {worse} by {found}: **{verdict}**.")
    return lines


def peak(result: Result) -> float:
    """The peak learning rate of a run."""
    return float(result["recipe"]["plan"]["peak"])


def _seed(result: Result) -> int:
    return int(result["recipe"]["plan"]["seed"])


def ranged(values: Sequence[float], digits: int) -> str:
    """The mean, and in brackets the lowest and the highest."""
    return f"{mean(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"
