"""The commands about the language model: train, sample, compare, bench, results."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from moe_course.lm.experiment.recipe import Recipe


class Adder(Protocol):
    """The type of `command` in `moe_course.command.cli.build_parser`."""

    def __call__(
        self, name: str, run: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser: ...


def add_commands(command: Adder) -> None:
    """Give the parser the commands of this module."""
    train = command("train", _train, "train a small language model, and measure it on held-out text")
    train.add_argument("--preset", default="cpu", metavar="NAME", help="cpu, t4 or h100 (default cpu)")
    train.add_argument(
        "--model", default="moe", metavar="ARM", help="moe, dense-active or dense-total (default moe)"
    )
    train.add_argument("--data", default="default", metavar="SPEC", help="default, text:PATH or hf:NAME")
    train.add_argument("--level", default="bpe", choices=("bpe", "char"), help="tokens (default bpe)")
    train.add_argument("--seed", type=int, default=0, metavar="N")
    length = train.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, metavar="N", help="default: the preset's")
    length.add_argument(
        "--minutes", type=float, metavar="M", help="as many steps as fit, judged by a few timed ones"
    )
    train.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any field: peak, optimizer, top_k …"
    )
    train.add_argument("--samples", type=int, metavar="N", help="let the model write after every N steps")
    train.add_argument("--tensorboard", action="store_true", help="write RUN/tensorboard, too (an extra)")
    train.add_argument("--wandb", action="store_true", help="send the log to Weights & Biases (an extra)")
    train.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run's folder")
    train.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    train.add_argument("--device", metavar="NAME", help="default: CUDA if there is a GPU, else the CPU")
    train.add_argument("--compile", action="store_true", help="use torch.compile")
    train.add_argument("--accumulate", type=int, metavar="N", help="pieces of a batch; default: the preset's")
    train.add_argument(
        "--expert-parallel",
        type=int,
        default=1,
        metavar="R",
        help="R processes share a model's experts (torchrun)",
    )
    train.epilog = "On several GPUs: torchrun --nproc-per-node N -m moe_course train …  (see docs/gpu.md)"

    sample = command("sample", _sample, "let a trained model write")
    sample.add_argument("run_folder", type=Path, metavar="RUN")
    sample.add_argument("--prompt", default="", metavar="TEXT", help="default: the start of a document")
    sample.add_argument("--tokens", type=int, default=200, metavar="N")
    sample.add_argument("--temperature", type=float, default=0.8, metavar="T", help="0 takes the likeliest")
    sample.add_argument("--top-p", type=float, default=0.95, metavar="P")
    sample.add_argument("--seed", type=int, default=0, metavar="N")

    compare = command("compare", _compare, "runs side by side: a table, and a figure of their curves")
    compare.add_argument("run_folders", type=Path, nargs="+", metavar="RUN")
    compare.add_argument("--figure", type=Path, metavar="FILE", help="write the curves (.svg, .png or .pdf)")

    bench = command("bench", _bench, "how fast this machine is, each contender in its turn")
    bench.add_argument(
        "what",
        choices=("train", "decode", "layer", "gpu"),
        help="training steps, decoding, one MoE layer on the CPU, or all that is to be measured on a new GPU",
    )
    bench.add_argument(
        "--preset",
        metavar="NAME",
        help="train, decode: cpu, t4 or h100; gpu: t4 or h100, by compute capability",
    )
    bench.add_argument(
        "--device", metavar="NAME", help="train, decode: default as for `train`; gpu: cpu is a rehearsal"
    )
    bench.add_argument("--data", default="default", metavar="SPEC", help="gpu: as for `train`")
    bench.add_argument("--compile", action="store_true", help="train: use torch.compile")
    bench.add_argument("--accumulate", type=int, metavar="N", help="train: pieces of a batch")
    bench.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N", help="layer: 1 2")
    bench.add_argument(
        "--batches", type=int, nargs="+", default=[1, 4, 16, 64], metavar="B", help="decode: 1 4 16 64"
    )
    bench.add_argument("--json", type=Path, metavar="FILE", help="layer, gpu: write all figures there")
    bench.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of each (default 5)")

    results = command("results", _results, "do the runs of the experiment that have no record yet")
    results.add_argument("names", nargs="*", metavar="RUN", help="these only; default: all that are missing")
    results.add_argument("--runs", type=Path, default=Path("runs/results"), metavar="DIR", help="work folder")
    results.add_argument("--records", type=Path, metavar="DIR", help="default: the package's own")
    results.add_argument("--report", action="store_true", help="only write docs/results.md anew")
    results.add_argument("--list", action="store_true", help="only say what there is")


def _train(args: argparse.Namespace) -> int:
    began = time.monotonic()
    from moe_course.lm.experiment import forecast, trial, watching
    from moe_course.lm.experiment.recipe import PRESETS, recipe, with_settings
    from moe_course.lm.training import parallel

    if args.preset not in PRESETS:
        raise ValueError(f"no preset {args.preset!r}; there are {', '.join(PRESETS)}")
    device = parallel.start(args.device)
    if args.expert_parallel != 1 and args.samples is not None:
        raise ValueError("--samples writes with one process, and --expert-parallel leaves none a whole model")
    _need_gpu(args.preset, args.device, device)
    parallel.from_first(lambda: _check_folder(args.out, args.resume))
    watches = []
    if args.tensorboard:
        watches.append(watching.tensorboard(args.out / "tensorboard"))

    def chosen_with(vocab_size: int) -> Recipe:
        one = recipe(args.preset, args.model, args.seed, args.data, args.level, vocab_size)
        one = one if args.steps is None else forecast.with_steps(one, args.steps)
        return with_settings(one, _settings(args) + args.set)

    wanted = PRESETS[args.preset].vocab_size  # a small text has fewer pairs to merge
    text = trial.Text.of(args.data, args.level, wanted, chosen_with(wanted).tokens)
    chosen = chosen_with(text.tokenizer.vocab_size)
    if not PRESETS[args.preset].measured:
        print(_needed(args.preset, chosen, device), file=sys.stderr)
    expected = forecast.forecast(chosen, text, device)
    if args.minutes is not None and args.resume:
        steps = parallel.from_first(lambda: trial.read_recipe(args.out).plan.steps)
        chosen = forecast.with_steps(chosen, steps)
    elif args.minutes is not None:
        gone = parallel.from_first(lambda: time.monotonic() - began) / 60  # text and timing take a while, too
        chosen = forecast.within(args.minutes - gone, chosen, expected)
    if args.samples is not None:
        watches.append(watching.samples(args.samples, text.tokenizer))
    if args.wandb:
        watches.append(watching.wandb(chosen, args.out))
    first = parallel.rank_and_size()[0] == 0
    if first:
        print(forecast.table(chosen, expected, text), flush=True)
        if forecast.epochs(chosen, text) > forecast.MOST_EPOCHS:
            print(forecast.too_often(chosen, text), file=sys.stderr)
    watch = watching.together(watches)
    result = trial.run_recipe(
        chosen, args.out, args.resume, device, watch=watch, text=text, expert_parallel=args.expert_parallel
    )
    if first:
        print(trial.table([result]))
    parallel.stop()
    return 0


def _check_folder(folder: Path, resume: bool) -> None:
    from moe_course.lm.training import checkpoint, run_folder

    if not resume:
        run_folder.need_room(folder)
    elif not checkpoint.exists(folder / run_folder.CHECKPOINT):
        raise ValueError(
            f"{folder} holds no checkpoint to go on from: is the name right? --resume begins no run"
        )


def _need_gpu(preset: str, asked: str | None, device: torch.device) -> None:
    """Raise ValueError rather than train a preset for a GPU on a CPU that nobody has asked for."""
    from moe_course.lm.experiment.recipe import PRESETS

    if not PRESETS[preset].measured and asked is None and device.type != "cuda":
        raise ValueError(
            f"the preset {preset} is made for a GPU, and PyTorch finds none here; --device cpu runs it all the same"
        )


def _settings(args: argparse.Namespace) -> list[str]:
    """What --compile and --accumulate set."""
    accumulate = [] if args.accumulate is None else [f"accumulate={args.accumulate}"]
    return ["compile=True"] * args.compile + accumulate


def _needed(preset: str, chosen: Recipe, device: torch.device) -> str:
    """What is known of a preset that nobody has run: the memory that it needs, and what there is."""
    import torch

    from moe_course.lm.training import costs, parallel

    own = -(-chosen.plan.accumulate // parallel.rank_and_size()[1])
    rows = chosen.batch_size // (own * parallel.rank_and_size()[1])
    needed = sum(costs.training_bytes(chosen.model, rows, chosen.plan.bf16, own).values())
    there = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
    of = "" if there is None else f" of {there / 1e9:.1f} GB"
    return (
        f"The preset {preset} is computed, not measured: nobody has run it yet. "
        f"By computation it needs {needed / 1e9:.1f} GB{of} on the device."
    )


def _sample(args: argparse.Namespace) -> int:
    import torch

    from moe_course.lm.experiment import trial
    from moe_course.lm.model import sample
    from moe_course.lm.training.run_folder import load_model

    trial.read_recipe(args.run_folder)  # raises ValueError if there is no run
    model, tokenizer = load_model(args.run_folder), trial.read_tokenizer(args.run_folder)
    prompt = [tokenizer.end, *tokenizer.encode(args.prompt)]
    draw = torch.Generator().manual_seed(args.seed)
    new = sample.generate(model, prompt, args.tokens, args.temperature, args.top_p, draw)
    print(args.prompt + tokenizer.decode(new))
    return 0


def _compare(args: argparse.Namespace) -> int:
    from moe_course.lm.experiment import trial

    found = [trial.so_far(folder) for folder in args.run_folders]
    print(trial.table(found))
    if args.figure:
        from moe_course import files, viz

        viz.use_style()
        with files.writing(args.figure) as file:
            viz.training_curves(found).savefig(file, format=args.figure.suffix[1:] or "png")
        print(f"curves: {args.figure}")
    return 0


def _bench(args: argparse.Namespace) -> int:
    if args.what == "layer":
        return _bench_layer(args)
    if args.what == "gpu":
        return _bench_gpu(args)
    args.preset = args.preset or "cpu"
    from moe_course.lm.experiment import bench, decode_bench
    from moe_course.lm.experiment.recipe import PRESETS
    from moe_course.lm.training import parallel

    if args.preset not in PRESETS:
        raise ValueError(f"no preset {args.preset!r}; there are {', '.join(PRESETS)}")
    device = parallel.start(args.device)
    _need_gpu(args.preset, args.device, device)
    if args.what == "decode":
        if min(args.batches) < 1:
            raise ValueError(f"--batches takes numbers from 1, got {min(args.batches)}")
        models = decode_bench.arms(args.preset, device)
        print(decode_bench.table(decode_bench.bench(models, args.batches, rounds=args.rounds)))
        parallel.stop()
        return 0
    speeds = bench.train(args.preset, args.rounds, device, settings=_settings(args))
    if parallel.rank_and_size()[0] == 0:
        print(bench.table(speeds))
    parallel.stop()
    return 0


def _bench_gpu(args: argparse.Namespace) -> int:
    import json

    from moe_course import files
    from moe_course.lm.experiment import first_gpu
    from moe_course.lm.training import parallel

    device = parallel.start(args.device)
    if device.type != "cuda" and args.device is None:
        raise ValueError(
            "bench gpu needs a GPU, and PyTorch finds none here; --device cpu rehearses it, with tiny sizes"
        )
    found = first_gpu.record(first_gpu.session(args.preset, args.data, device))
    target = args.json or Path("gpu.json")
    files.write(target, json.dumps(found, indent=1) + "\n")
    files.write(target.with_suffix(".md"), first_gpu.page(found))
    print(f"{target} and {target.with_suffix('.md')}")
    return 0


def _bench_layer(args: argparse.Namespace) -> int:
    import json

    from moe_course import files
    from moe_course.moe import bench, memory

    if args.device or args.preset:
        raise ValueError(
            "bench layer has five shapes of its own and runs on the CPU: no --device, no --preset"
        )
    if min(args.threads) < 1:
        raise ValueError(f"--threads takes numbers from 1, got {min(args.threads)}")
    timings = bench.bench(threads=args.threads, rounds=args.rounds)
    print(bench.table(timings), end="\n\n")
    where = bench.spent(rounds=args.rounds)
    print(bench.spent_table(where), end="\n\n")
    sizes = memory.measure()
    print(memory.table(sizes))
    if args.json:
        plain = {
            "timings": [timing.to_dict() for timing in timings],
            "spent": [one.to_dict() for one in where],
            "memory": [size.to_dict() for size in sizes],
            "exponents": memory.exponents(sizes),
        }
        files.write(args.json, json.dumps(plain, indent=1) + "\n")
    return 0


def _results(args: argparse.Namespace) -> int:
    from moe_course.lm.experiment import study

    records = args.records or study.RECORDED
    if args.list:
        for name in study.recipes():
            print(f"{'recorded' if (records / f'{name}.json').exists() else 'missing ':9} {name}")
        return 0
    if not args.report:
        study.run_missing(args.names or study.recipes(), args.runs, records)
    if records != study.RECORDED:
        missing = [name for name in study.recipes() if not (records / f"{name}.json").exists()]
        print(f"{len(missing)} runs have no record in {records}; docs/results.md is as it was")
    else:
        from moe_course.command import launch
        from moe_course.lm.experiment import results_page

        (launch.checkout() / "docs" / "results.md").write_text(results_page.markdown(), encoding="utf-8")
    return 0
