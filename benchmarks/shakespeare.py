"""Tiny Shakespeare by character: our models beside nanoGPT's CPU configuration, in equal processor time.

    python benchmarks/shakespeare.py tinyshakespeare.txt [--seconds 119] [--arms dense moe] [--json FILE]

nanoGPT (github.com/karpathy/nanoGPT, README, "I only have a macbook") trains on the first nine tenths of the text and
validates on the last; so do we, with the same alphabet. Each model trains on one thread until its processor time is
spent. The learning rate follows that time and not the steps, so its schedule ends when the time does, however
busy the machine is. Then the loss is measured on the whole last tenth, in windows of the context.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from moe_course.config import MoEConfig
from moe_course.lm.corpus.batching import Tokens, batches, windows
from moe_course.lm.experiment.trial import joined
from moe_course.lm.model.lm_config import LMConfig, TrainConfig
from moe_course.lm.model.transformer import Transformer
from moe_course.lm.training.step import learning_rate, make_optimizer
from moe_course.lm.training.trainer import Clock, evaluate, update
from moe_course.tables import text_table


@dataclass(frozen=True)
class Row:
    """A model, what it was trained with, and its loss on the last tenth of the text in nats per character."""

    name: str
    total: int
    active: int
    context: int
    characters: int
    processor_seconds: float
    nats: float


NANOGPT = Row("nanoGPT, CPU configuration", 804_096, 804_096, 64, 1_536_000, 119.0, 1.886)
"""Measured once, on the machine that docs/benchmarks.md speaks of: 2,000 steps of 12 sequences, on one core.

Its parameters are counted with positions and embeddings, as ours are."""

WIDTH = 64
FFNS: dict[str, MoEConfig | int] = {
    "dense": 256,
    "moe": MoEConfig(d_model=WIDTH, d_ff=128, num_experts=4, top_k=2),
}
BATCH_SIZE = 32
PLAN = TrainConfig(  # a step of the schedule is a thousandth of the processor time
    steps=1000,
    warmup=30,
    peak=2e-2,
    floor=0.0,
    optimizer="muon",
    muon_iterations=3,
    embedding_peak=1e-2,
    bf16=False,
)


def split(text: str) -> tuple[Tokens, Tokens]:
    """The first nine tenths of the characters and the rest, cut as in nanoGPT's data/shakespeare_char/prepare.py."""
    number = {character: i for i, character in enumerate(sorted(set(text)))}
    ids_T = torch.tensor([number[character] for character in text], dtype=torch.int32)
    cut = int(0.9 * len(text))
    no_domains = torch.zeros(len(text), dtype=torch.int8)
    one_document = torch.zeros(1, dtype=torch.int64)
    return (
        Tokens(ids_T[:cut], no_domains[:cut], one_document, ("text",)),
        Tokens(ids_T[cut:], no_domains[cut:], one_document, ("text",)),
    )


def train(
    model: Transformer, line: Tokens, plan: TrainConfig, batch_size: int, seconds: float
) -> tuple[int, float]:
    """Train for so many seconds of processor time. Returns the characters seen and the processor seconds spent."""
    optimizer, clock, characters = make_optimizer(model, plan), Clock(), 0
    upcoming = batches(line, batch_size, model.config.context, plan.seed)
    model.train()
    while clock.spent[1] < seconds:
        clock.start()
        tokens_BS1 = joined(next(upcoming))
        now = int(plan.steps * clock.spent[1] / seconds)
        rate = learning_rate(now, plan.peak, plan.warmup, plan.steps, plan.floor)
        update(model, optimizer, tokens_BS1, plan, rate)
        characters += tokens_BS1[:, 1:].numel()
        clock.stop(tokens_BS1[:, 1:].numel())
    return characters, clock.spent[1]


def config_of(ffn: MoEConfig | int, vocab_size: int, context: int) -> LMConfig:
    """Our model with this feed-forward layer."""
    return LMConfig(vocab_size=vocab_size, d_model=WIDTH, num_layers=4, num_heads=2, context=context, ffn=ffn)


def run(name: str, text: str, seconds: float, context: int = 64) -> Row:
    """Train and measure the arm of this name."""
    config = config_of(FFNS[name], len(set(text)), context)
    first, rest = split(text)
    model = Transformer(config, torch.Generator().manual_seed(PLAN.seed))
    characters, spent = train(model, first, PLAN, BATCH_SIZE, seconds)
    nats = evaluate(model, [joined(batch) for batch in windows(rest, 64, context)])
    return Row(f"ours, {name}", *model.num_params(), context, characters, spent, nats)


def table(rows: Sequence[Row]) -> str:
    """The rows with their conditions."""
    cells = [("", "parameters", "active", "context", "characters", "processor s", "nats")]
    for r in rows:
        sizes = (f"{r.total:,}", f"{r.active:,}", f"{r.context}", f"{r.characters:,}")
        cells.append((r.name, *sizes, f"{r.processor_seconds:.0f}", f"{r.nats:.3f}"))
    return text_table(cells)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=Path)
    parser.add_argument("--seconds", type=float, default=NANOGPT.processor_seconds)
    parser.add_argument("--arms", nargs="+", default=list(FFNS), choices=list(FFNS))
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    text = args.text.read_text(encoding="utf-8")
    rows = [NANOGPT, *(run(name, text, args.seconds) for name in args.arms)]
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
