"""`moe-course explain`: its arguments, and the call of the modules that do the work."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path


def add_command(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `explain`; `command(name, run, text)` adds a sub-command."""
    parser = command(
        "explain", _explain, "the three questions answered for a model: active, routing, serving"
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a preset (`moe-course params` lists them), a config.json, a folder with one, or a run's folder",
    )
    parser.add_argument(
        "--text", type=Path, metavar="FILE", help="see how the weights in the folder route this text"
    )
    parser.add_argument("--gpu", metavar="NAME", help="H100, H200, B200, MI300X, …, or BYTES/s,FLOP/s")
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="how many of them (default 1)")
    parser.add_argument(
        "--context", type=int, default=4096, metavar="S", help="cached tokens a sequence (4096)"
    )
    parser.add_argument(
        "--latency", type=float, default=50, metavar="MS", help="milliseconds a step may take (50)"
    )
    parser.add_argument("--price", type=float, metavar="DOLLARS", help="of one GPU for one hour")
    parser.add_argument(
        "--bytes", type=float, default=2, metavar="N", help="of a weight: 2 bf16 (default), 1 fp8"
    )
    parser.add_argument("--json", action="store_true", help="all answers as JSON")


def _explain(args: argparse.Namespace) -> int:
    """Print the answers."""
    from moe_course.hardware import device
    from moe_course.lm.experiment import explained
    from moe_course.systems import explain
    from moe_course.systems.described import describe
    from moe_course.systems.observed import observe

    service = None
    if args.gpu is not None:
        service = explain.Service(
            device=device(args.gpu),
            devices=args.gpus,
            context=args.context,
            latency=args.latency / 1e3,
            price=args.price,
            value_bytes=args.bytes,
        )
    folder = Path(args.model)
    own = explained.is_run(folder)
    found = explained.describe_run(folder) if own else describe(args.model)
    observed = None
    if args.text is not None:
        if not folder.is_dir():
            raise ValueError(f"--text needs a folder with weights, and {args.model!r} is none")
        text = args.text.read_text(encoding="utf-8")
        observed = explained.observe_run(folder, text) if own else observe(args.model, text)
    if args.json:
        print(json.dumps(explain.as_dict(found, observed, service), indent=2))
    else:
        print(explain.as_text(found, observed, service))
    return 0
