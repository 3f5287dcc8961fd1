"""Which vocabulary? Bits per byte after equal processor time, for several sizes, everything else alike.

    python benchmarks/vocabulary.py [--seconds 150] [--sizes 512 1024 2048 4096]

Nats per token cannot be compared between vocabularies, and neither can steps: with a larger vocabulary a step covers
more text and costs more. So the cost of a step is measured first, in turns, so that a busy minute falls on all sizes
alike; then each size trains the mixture of the "cpu" preset on one thread for as many steps as cost the given
seconds, with a learning-rate schedule that ends there, and is measured on the validation split.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from moe_course.lm.experiment.measure import loss_by_domain
from moe_course.lm.experiment.recipe import Recipe, recipe
from moe_course.lm.experiment.trial import Text
from moe_course.lm.model.transformer import Transformer
from moe_course.lm.training.step import make_optimizer
from moe_course.lm.training.trainer import train, update

ROUNDS, STEPS = 7, 4


def seconds_per_step(runs: dict[int, tuple[Recipe, Text]]) -> dict[int, float]:
    """Median processor time of an update of each size, data included."""
    times: dict[int, list[float]] = {size: [] for size in runs}
    ready = {}
    for size, (run, text) in runs.items():
        model = Transformer(run.model, torch.Generator().manual_seed(0))
        ready[size] = model, make_optimizer(model, run.plan), text.batch(run)
    for turn in range(ROUNDS + 1):
        for size, (model, optimizer, batch) in ready.items():
            began = time.process_time()
            for step in range(turn * STEPS, (turn + 1) * STEPS):
                update(model, optimizer, batch(step), runs[size][0].plan, rate=1e-4)
            if turn:  # the first one starts things up
                times[size].append((time.process_time() - began) / STEPS)
    return {size: statistics.median(taken) for size, taken in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = {size: (recipe("cpu", "moe", vocab_size=size), Text.of(vocab_size=size)) for size in args.sizes}
    seconds = seconds_per_step(runs)
    print(f"{'vocabulary':>10} {'bytes/token':>11} {'ms/step':>8} {'steps':>6} {'bits per byte':>14}")
    for size, (run, text) in runs.items():
        steps = int(args.seconds / seconds[size])
        plan = replace(run.plan, steps=steps)
        model = Transformer(run.model, torch.Generator().manual_seed(0))
        with tempfile.TemporaryDirectory() as folder:
            train(model, plan, text.batch(run), Path(folder), progress=False)
        first, *others = loss_by_domain(model, text.line("validation"), text.tokenizer).values()
        loss = sum(others, start=first)
        print(
            f"{size:>10,} {loss.bytes / loss.tokens:>11.2f} {1e3 * seconds[size]:>8.0f} {steps:>6} {loss.bpb:>14.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
