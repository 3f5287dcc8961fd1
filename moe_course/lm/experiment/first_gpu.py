"""The first half hour on a GPU: everything that was computed without one is measured, by one command.

    moe-course bench gpu --json gpu.json        # and gpu.md beside it

`PARTS` lists what is done, in order. A part that fails is recorded with its error, and the next one begins. Without a
GPU the same parts run with tiny sizes, as a rehearsal: they prove the command, and their figures mean nothing.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from moe_course import hardware
from moe_course.config import MoEConfig
from moe_course.jsonl import Log
from moe_course.lm.experiment import bench, trial
from moe_course.lm.experiment.recipe import ARMS, PRESETS, Recipe, recipe, with_settings
from moe_course.lm.model.transformer import Transformer
from moe_course.lm.training import costs, run_folder
from moe_course.lm.training.step import make_optimizer
from moe_course.lm.training.trainer import evaluate, train
from moe_course.moe import init_experts, max_violation, moe_loop
from moe_course.moe.dispatchers import DISPATCHES, pick_dispatch
from moe_course.tables import markdown_table

TINY = [
    *("d_model=32", "d_ff=16", "num_layers=2", "num_heads=2", "num_experts=4", "context=16"),
    *("batch_size=8", "accumulate=4", "warmup=1"),
]
"""What a rehearsal sets."""


@dataclass(frozen=True)
class Session:
    """What the parts work on. `short` and `long`: the steps of the two runs."""

    preset: str
    chosen: Recipe
    text: trial.Text
    device: torch.device
    short: int = 20
    long: int = 300
    timed: int = 5

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    def model(self) -> Transformer:
        return Transformer(self.chosen.model, torch.Generator().manual_seed(0)).to(self.device)

    def train(
        self, folder: Path, steps: int, stop_at: int | None = None, resume: bool = False
    ) -> Transformer:
        """A run of the recipe with other steps; stop_at: it breaks off there."""
        often = replace(
            self.chosen.plan, steps=steps, warmup=steps // 10, save_every=max(1, steps // 2), log_every=1
        )
        batch, model = self.text.batch(self.chosen), self.model()

        def breaking(step: int) -> torch.Tensor:
            if step == stop_at:
                raise _BrokenOff
            return batch(step)

        train(model, often, breaking, folder, resume=resume, progress=False)
        return model

    def settle(self) -> None:
        """Wait until the device has done everything."""
        if self.gpu:
            torch.cuda.synchronize(self.device)


class _BrokenOff(Exception):
    pass


def session(preset: str | None, data: str, device: torch.device) -> Session:
    """On a GPU the preset, or the one that suits it; on a CPU a rehearsal with tiny sizes."""
    gpu = device.type == "cuda"
    preset = preset or ("t4" if gpu and torch.cuda.get_device_capability(device) < (8, 0) else "h100")
    text = trial.Text.of(data, "bpe", PRESETS[preset].vocab_size if gpu else 300)
    chosen = recipe(preset, "moe", data=data, vocab_size=text.tokenizer.vocab_size)
    if gpu:
        return Session(preset, chosen, text, device)
    return Session(preset, with_settings(chosen, TINY), text, device, short=4, long=6, timed=1)


def record(
    of: Session, say: Callable[[str], None] = print, parts: Mapping[str, Part] | None = None
) -> dict[str, Any]:
    """Do every part, and return what each of them found, plain values for JSON."""
    found: dict[str, Any] = {
        "rehearsal": not of.gpu,
        "preset": of.preset,
        "recipe": of.chosen.to_dict(),
        "machine": trial.machine(),
    }
    for name, part in (parts or PARTS).items():
        began = time.perf_counter()
        try:
            found[name] = part(of, found)
        except Exception as error:  # one part that fails shall not cost the others
            found[name] = {"error": f"{type(error).__name__}: {error}"}
        finally:
            if of.gpu:
                torch.cuda.empty_cache()
        say(f"{name}: {time.perf_counter() - began:.0f} s")
    return found


def tests(of: Session, found: Mapping[str, Any]) -> dict[str, Any]:
    """The tests that need a GPU; in a rehearsal they are only collected."""
    root = Path(__file__).resolve().parents[3]
    how = [] if of.gpu else ["--collect-only"]
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-m", "gpu", "-p", "no:cacheprovider", *how]
    done = subprocess.run([*command, "tests/moe", "tests/lm"], cwd=root, capture_output=True, text=True)
    return {"code": done.returncode, "summary": done.stdout.strip().splitlines()[-1:]}


def resume(of: Session, found: Mapping[str, Any]) -> dict[str, Any]:
    """The same short run twice, once broken off and resumed: the largest difference between their weights."""
    with tempfile.TemporaryDirectory() as work:
        whole = of.train(Path(work) / "whole", of.short)
        with contextlib.suppress(_BrokenOff):
            of.train(Path(work) / "broken", of.short, stop_at=of.short - 1)
        resumed = of.train(Path(work) / "broken", of.short, resume=True)
    pairs = zip(whole.parameters(), resumed.parameters(), strict=True)
    return {"steps": of.short, "difference": max((a - b).abs().max().item() for a, b in pairs)}


def arms(of: Session, found: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens per second and the most memory of the three models, beside what is computed."""
    rows = {}
    for arm in ARMS:
        theirs = recipe(of.preset, arm, data=of.chosen.data, vocab_size=of.chosen.model.vocab_size)
        if not of.gpu:
            fitting = [
                setting for setting in TINY if arm == "moe" or not setting.startswith(("d_ff", "num_experts"))
            ]
            theirs = with_settings(theirs, fitting)
        rows[arm] = _timed(of, theirs) | _computed(of, theirs)
    return rows


def variants(of: Session, found: Mapping[str, Any]) -> dict[str, Any]:
    """The mixture with one setting changed at a time."""
    settings = ["compile=False", "compile=True", *(f"accumulate={n}" for n in (4, 2, 1))]
    settings += ["dispatch=grouped", "dispatch=sorted"]
    rows = {}
    for setting in settings:
        try:
            rows[setting] = _timed(of, with_settings(of.chosen, [setting]))
        except (RuntimeError, ValueError) as error:  # too little memory, or no compiler
            rows[setting] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    return rows


def one_step(of: Session, found: Mapping[str, Any]) -> dict[str, Any]:
    """A profile of one step: the share of its time in which no kernel runs, and the kernels that take longest."""
    arm = bench.Arm(of.chosen, of.device)
    arm.time(2)
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * of.gpu]) as profiled:
        arm.time(1)
    wanted = DeviceType.CUDA if of.gpu else DeviceType.CPU
    ran = [e for e in profiled.events() if e.device_type == wanted and not e.cpu_children]
    taken: dict[str, float] = defaultdict(float)
    for event in ran:
        taken[event.name] += event.time_range.elapsed_us()
    busy, until = 0.0, 0.0
    for span in sorted((e.time_range for e in ran), key=lambda span: span.start):
        busy += max(0.0, span.end - max(span.start, until))
        until = max(until, span.end)
    whole = until - min(e.time_range.start for e in ran)
    top = sorted(taken.items(), key=lambda item: -item[1])[:10]
    return {
        "kernels": len(ran),
        "idle": 1 - busy / whole,
        "top": [{"name": name[:80], "share": us / sum(taken.values())} for name, us in top],
    }


def grouped(of: Session, found: Mapping[str, Any]) -> dict[str, Any]:
    """TFLOP/s of one grouped product at the preset's size, and the gradient of an expert that has no tokens.

    The latter with the dispatch that is chosen here, in bfloat16: is it zero, and how far are all from the loop's?
    """
    c = of.chosen.model
    assert isinstance(c.ffn, MoEConfig)
    rows = of.chosen.batch_size // of.chosen.plan.accumulate * c.context * c.ffn.top_k
    made: dict[str, Any] = dict(device=of.device, dtype=torch.bfloat16)
    x_ND, w_EDF = (
        torch.randn(rows, c.d_model, **made),
        torch.randn(c.ffn.num_experts, c.d_model, c.ffn.d_ff, **made),
    )
    ends_E = torch.linspace(0, rows, c.ffn.num_experts + 1, device=of.device)[1:].to(torch.int32)
    F.grouped_mm(x_ND, w_EDF, offs=ends_E)
    of.settle()
    began = time.perf_counter()
    for _ in range(of.timed):
        F.grouped_mm(x_ND, w_EDF, offs=ends_E)
    of.settle()
    seconds = (time.perf_counter() - began) / of.timed

    idx_TK = torch.arange(64 * c.ffn.top_k, device=of.device).view(64, -1) % (c.ffn.num_experts - 1) + 1
    x_TD, weights_TK = torch.randn(64, c.d_model, **made), torch.rand(64, c.ffn.top_k, **made)
    experts = init_experts(c.ffn.num_experts, c.d_model, c.ffn.d_ff, **made)
    gradients = {}
    for name in (picked := pick_dispatch(x_TD, idx_TK, experts[0]), "loop"):
        leaves = [w.detach().requires_grad_() for w in experts]
        way = moe_loop if name == "loop" else DISPATCHES[name]
        way(x_TD, weights_TK, idx_TK, *leaves).float().square().sum().backward()
        gradients[name] = [leaf.grad for leaf in leaves]
    differences = [
        ((a - b).abs().max() / b.abs().max()).item()
        for a, b in zip(*gradients.values(), strict=True)
        if b is not None
    ]
    return {
        "TFLOP/s": 2 * rows * c.d_model * c.ffn.d_ff / seconds / 1e12,
        "dispatch": picked,
        "zeros": not any(bool(g[0].any()) for g in gradients[picked] if g is not None),
        "difference": max(differences),
    }


def seconds(of: Session, found: Mapping[str, Any]) -> dict[str, Any]:
    """One evaluation, and one checkpoint."""
    model = of.model()
    optimizer = make_optimizer(model, of.chosen.plan)
    held_out = of.text.held_out(of.chosen)
    evaluate(model, held_out[:1], of.chosen.plan.bf16)
    began = time.perf_counter()
    evaluate(model, held_out, of.chosen.plan.bf16)
    evaluated = time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        states = model.state_dict(), optimizer.state_dict()
        run_folder.save(Path(work), model.config, states, of.chosen.plan, run_folder.Start(), must=True)
        saved = time.perf_counter()
        size = (Path(work) / run_folder.CHECKPOINT).stat().st_size
    return {"evaluation": evaluated - began, "checkpoint": saved - evaluated, "checkpoint bytes": size}


def long_run(of: Session, found: Mapping[str, Any]) -> dict[str, Any]:
    """A longer run: loss at its beginning and at its end, and how far the busiest expert is above the mean."""
    with tempfile.TemporaryDirectory() as work:
        of.train(Path(work) / "run", of.long)
        lines = Log(Path(work) / "run" / run_folder.LOG).records()
    tail = lines[-max(1, len(lines) // 10) :]
    worst = max(max_violation(torch.tensor(load_E)).item() for line in tail for load_E in line["load_LE"])
    return {
        "steps": of.long,
        "first loss": lines[0]["ce"],
        "last loss": sum(line["ce"] for line in tail) / len(tail),
        "largest load above the mean": worst,
        "tokens per second": tail[-1]["tokens_per_second"],
        "utilisation": tail[-1].get("utilisation"),
    }


def hour(of: Session, found: Mapping[str, Any]) -> dict[str, Any]:
    """How long the whole preset takes, from what was measured."""
    plan, parts = of.chosen.plan, found["seconds"]
    training = plan.steps * found["arms"]["moe"]["seconds"]
    others = (
        plan.steps / plan.eval_every * parts["evaluation"]
        + plan.steps / plan.save_every * parts["checkpoint"]
    )
    return {"training": training, "evaluations and checkpoints": others, "minutes": (training + others) / 60}


Part = Callable[[Session, Mapping[str, Any]], dict[str, Any]]
PARTS: dict[str, Part] = {
    "tests": tests,
    "resume": resume,
    "arms": arms,
    "variants": variants,
    "one step": one_step,
    "grouped": grouped,
    "seconds": seconds,
    "long run": long_run,
    "hour": hour,
}


def computed() -> str:
    """What is computed of the presets' mixtures on the GPUs that they are made for, as a table for docs/gpu.md."""
    rows: list[tuple[str, ...]] = []
    for preset, names in {"t4": ("T4",), "h100": ("H100", "H100 PCIe", "H200")}.items():
        r = recipe(preset, "moe")
        pieces = r.plan.accumulate
        memory = costs.training_bytes(r.model, r.batch_size // pieces, r.plan.bf16, pieces)
        for name in names:
            step = costs.step_seconds(r.model, r.plan, r.batch_size, hardware.DEVICES[name])
            speed, minutes = r.tokens / r.plan.steps / step, r.plan.steps * step / 60
            figures = (f"{sum(memory.values()) / 1e9:.1f}", f"{step:.3f}", f"{speed:,.0f}", f"{minutes:.0f}")
            rows.append((preset, name, *figures))
    return markdown_table(("preset", "GPU", "GB", "seconds a step", "tokens/s", "minutes"), rows)


def page(found: Mapping[str, Any]) -> str:
    """What was recorded, as a page."""
    machine = found["machine"]
    title = (
        "A rehearsal without a GPU: tiny sizes, and figures that mean nothing"
        if found["rehearsal"]
        else "Measured"
    )
    lines = [
        f"# {title}",
        "",
        f"`moe-course bench gpu`, preset {found['preset']}, on {machine['processor']}, PyTorch {machine['torch']}.",
    ]
    for name in PARTS:
        content = found.get(name, {})
        lines += ["", f"## {name.capitalize()}", "", (PARTS[name].__doc__ or "").split("\n")[0], ""]
        if all(isinstance(value, dict) for value in content.values()):
            columns = list(dict.fromkeys(key for row in content.values() for key in row))
            rows = [(key, *(_cell(row.get(column)) for column in columns)) for key, row in content.items()]
            lines.append(markdown_table(("", *columns), rows))
        else:
            lines.append(
                markdown_table(("", "found"), [(key, _cell(value)) for key, value in content.items()])
            )
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(map(_cell, value))
    if isinstance(value, dict):
        return ", ".join(f"{_cell(inner)}" for inner in value.values())
    if isinstance(value, float):
        return f"{value:,.4g}"
    return "" if value is None else f"{value:,}" if type(value) is int else str(value).replace("|", "/")


def _timed(of: Session, chosen: Recipe) -> dict[str, Any]:
    """Median seconds of a step, tokens per second and the most bytes, measured."""
    if of.gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(of.device)
    took = bench.step_seconds(chosen, of.device, of.timed)
    row = {"seconds": took, "tokens/s": chosen.batch_size * chosen.model.context / took}
    return row | ({"GB": torch.cuda.max_memory_allocated(of.device) / 1e9} if of.gpu else {})


def _computed(of: Session, chosen: Recipe) -> dict[str, Any]:
    """The same, computed: of a GPU that is not in the table the memory only."""
    pieces = chosen.plan.accumulate
    needed = costs.training_bytes(chosen.model, chosen.batch_size // pieces, chosen.plan.bf16, pieces)
    row: dict[str, Any] = {"GB computed": sum(needed.values()) / 1e9}
    limits = (
        hardware.limits(torch.cuda.get_device_name(of.device))
        if of.gpu
        else hardware.DEVICES[of.preset.upper()]
    )
    if limits is not None:
        row["seconds computed"] = costs.step_seconds(chosen.model, chosen.plan, chosen.batch_size, limits)
    return row
