"""Experts × data parallelism trains as one process does: the same losses, norms and weights, and one checkpoint."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from lm.small import MOE, assert_identical, batch, make, plan, weights

from moe_course.config import MoEConfig
from moe_course.jsonl import Log
from moe_course.lm import train

torch.set_num_threads(1)
TESTS = Path(__file__).resolve().parents[1]
STEPS = 20
FFN = MoEConfig(**(MOE | {"num_experts": 4}), num_shared=1, d_ff_shared=6, bias_rate=0.01)
OPTIMIZERS = ("adamw", "muon")

SCRIPT = """
    import os, sys
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    from lm.small import batch, make, weights
    from lm.test_experts_apart import FFN, OPTIMIZERS, of_run
    from moe_course.lm import train
    from moe_course.lm.training import parallel

    parallel.start("cpu")
    rank, size = parallel.rank_and_size()
    out, seen = Path(sys.argv[1]), {}
    held_out = [batch(50), batch(51, rows=2), batch(52)]

    def run(name, experts, steps, resume=False, optimizer="adamw"):
        model = make(FFN, seed=rank).double()  # the first process decides
        layers = [id(module) for module in model.modules()]
        kwargs = dict(progress=False, resume=resume, expert_parallel=experts)
        def interrupted(step):
            if step == steps:
                raise SystemExit  # before anything is sent: all processes end here
            return batch(step)
        try:
            train(model, of_run(optimizer), interrupted, out / name, held_out, **kwargs)
        except SystemExit:
            return None
        assert layers == [id(module) for module in model.modules()]  # whole again, the same objects
        return weights(model)

    for optimizer in OPTIMIZERS:
        seen[optimizer] = run(optimizer, size, 99, optimizer=optimizer)
        seen["pairs " + optimizer] = run("pairs " + optimizer, 2, 99, optimizer=optimizer)
        run("stopped " + optimizer, 2, 13, optimizer=optimizer)
        seen["on more"] = run("stopped " + optimizer, size, 99, resume=True, optimizer=optimizer)
        seen["resumed " + optimizer] = seen.pop("on more")
    for wrong in (3, 0):
        try:
            train(make(FFN), of_run("adamw"), batch, out / f"wrong-{wrong}", progress=False, expert_parallel=wrong)
        except ValueError as error:
            seen[wrong] = str(error)
    torch.save(seen, out / f"{rank}.pt")
    parallel.stop()
"""


def of_run(optimizer):
    """Clipping binds in every step, and AdamW would hide wrongly scaled gradients: the norm shows them."""
    return plan(steps=STEPS, save_every=4, eval_every=10, log_every=1, clip=0.05, optimizer=optimizer)


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What each of four processes has seen, and the folder."""
    folder = tmp_path_factory.mktemp("apart")
    script = folder / "script.py"
    script.write_text(textwrap.dedent(SCRIPT), encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    done = subprocess.run(
        [*torchrun, str(script), str(folder)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in range(4)], folder


@pytest.fixture(scope="module", params=OPTIMIZERS)
def whole(request, tmp_path_factory):
    """The optimizer, and the weights and log of one process."""
    folder, model = tmp_path_factory.mktemp("whole"), make(FFN).double()
    held_out = [batch(50), batch(51, rows=2), batch(52)]
    train(model, of_run(request.param), batch, folder, held_out, progress=False)
    return request.param, weights(model), Log(folder / "log.jsonl").records()


@pytest.mark.parametrize("kind", ["", "pairs ", "resumed "])
def test_weights_losses_and_norms_are_those_of_one_process(processes, whole, kind):
    """With all experts on four processes, with two pairs, and begun by pairs and resumed by four.

    In float64, except for the routers, so that rounding cannot grow in 20 steps, nor hide a fault.
    """
    seen, folder = processes
    optimizer, expected, log = whole
    for one in seen:
        assert_identical(one[kind + optimizer], seen[0][kind + optimizer])
    for name, value in expected.items():
        torch.testing.assert_close(seen[0][kind + optimizer][name], value, rtol=1e-5, atol=1e-7, msg=name)
    name = {"resumed ": "stopped "}.get(kind, kind) + optimizer
    records = list(Log(folder / name / "log.jsonl").records())
    assert len(records) == STEPS
    for record, other in zip(records, log, strict=True):
        for number in ("ce", "lb_loss", "grad_norm", "held_out_ce"):
            if number in other:
                assert record[number] == pytest.approx(other[number], rel=1e-5), (record["step"], number)
    assert min(record["grad_norm"] for record in log) > 0.05  # so it was clipped in every step


def test_sizes_that_do_not_divide(processes):
    for one in processes[0]:
        assert one[3] == "4 processes do not divide into groups of 3 that share the experts"
        assert one[0] == "4 processes do not divide into groups of 0 that share the experts"
