"""`moe-course train --expert-parallel`, one of whose processes ends or stops: the others say so; the run goes on."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest
import torch

from moe_course.command.cli import main
from moe_course.jsonl import Log
from moe_course.lm.training import checkpoint

torch.set_num_threads(1)
SIZES = ["d_model=16", "d_ff=8", "num_layers=1", "context=16", "batch_size=4"]
WRITES = ["log_every=1", "save_every=2", "eval_every=8"]
SCRIPT = """
    import os, sys
    from datetime import timedelta
    import torch
    torch.set_num_threads(1)
    from moe_course.command.cli import main
    from moe_course.lm.training import parallel
    from moe_course.systems import expert_parallel

    start, exchange, calls = parallel.start, expert_parallel.exchange_rows, 0

    def started(device):
        device = start(device)
        parallel.TIMEOUT = timedelta(seconds=5)  # of the groups that share experts: until now imports may take longer
        return device

    def dying(*args):
        global calls
        calls += 1  # a step has two exchanges: this is between those of step 5
        if calls == 12 and os.environ["RANK"] == sys.argv[2]:
            os.kill(os.getpid(), int(sys.argv[1]))
        return exchange(*args)

    parallel.start, expert_parallel.exchange_rows = started, dying
    raise SystemExit(main(sys.argv[3:]))
"""


def command(poem: Path, out: Path) -> list[str]:
    fields = [part for field in SIZES + WRITES for part in ("--set", field)]
    return ["train", "--data", f"text:{poem}", "--steps", "8", "--device", "cpu", "--out", str(out), *fields]


@pytest.fixture(scope="module")
def poem(tmp_path_factory):
    """A text, and the cache for its tokens."""
    folder = tmp_path_factory.mktemp("poem")
    os.environ["MOE_COURSE_CACHE"] = str(folder / "cache")
    (folder / "poem.txt").write_text("the router sends each token to an expert\n" * 200, encoding="utf-8")
    return folder / "poem.txt"


@pytest.fixture(scope="module")
def whole(poem, tmp_path_factory):
    """The result of one process that was never interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert main(command(poem, out)) == 0
    return json.loads((out / "result.json").read_text(encoding="utf-8"))


def started(script: Path, size: int, arguments: list[str]) -> list[subprocess.Popen[str]]:
    """As torchrun starts them, and nobody ends one because another has ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = partial(
        subprocess.Popen, [sys.executable, str(script), *arguments], stderr=subprocess.PIPE, text=True
    )
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
    return [run(env={**os.environ, **common, **own}) for own in ranks]


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="signals of POSIX")
@pytest.mark.parametrize(("how", "size"), [("SIGKILL", 4), ("SIGSTOP", 2)])
def test_all_others_end_with_a_clear_error_and_the_run_goes_on(how, size, poem, whole, tmp_path):
    """Killed beside another pair that holds the same experts; stopped, so that only the timeout tells."""
    script, out = tmp_path / "script.py", tmp_path / "run"
    script.write_text(textwrap.dedent(SCRIPT), encoding="utf-8")
    dies = [str(int(getattr(signal, how))), str(size - 1)]
    processes = started(script, size, [*dies, *command(poem, out), "--expert-parallel", "2"])
    try:
        said = [process.communicate(timeout=120)[1] for process in processes[:-1]]
    finally:
        for process in processes:
            process.kill()
            process.communicate()

    for rank, words in enumerate(said):
        lost = f"moe-course: process {rank} lost another one: it has ended, or has not answered within 5 s"
        assert f"{lost}; the last good checkpoint is {out / 'checkpoint.pt'} (" in words
        assert processes[rank].returncode == 2
    assert checkpoint.load(out / "checkpoint.pt")["step"] == 4

    assert main([*command(poem, out), "--resume"]) == 0  # one process
    assert [record["step"] for record in Log(out / "log.jsonl").records()] == list(range(8))
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert result["ce"] == pytest.approx(whole["ce"], rel=1e-4)
