"""Several processes: which device each takes, and that they start, go on, balance and stop as one."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from lm.small import assert_identical, batch, make, plan, weights

from moe_course.lm import train
from moe_course.lm.training import checkpoint, parallel

torch.set_num_threads(1)
TESTS = Path(__file__).resolve().parents[1]

SCRIPT = """
    import os, signal, sys
    from pathlib import Path
    import torch, torch.distributed as dist
    torch.set_num_threads(1)
    from lm.small import batch, make, plan, weights
    from moe_course.lm import evaluate, train
    from moe_course.lm.training import parallel

    parallel.start("cpu")
    rank, size = parallel.rank_and_size()
    out = Path(sys.argv[1])
    seen = {}

    def ends(name, act):
        try:
            act()
        except (ValueError, OSError, KeyboardInterrupt) as error:
            seen[name] = f"{type(error).__name__}: {error}"
        else:
            seen[name] = "done"

    def killed(step):
        if step == 2 and rank == size - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch(step)

    # Every process has a folder of its own: only the first one's is used.
    own, never = out / f"folder-{rank}", plan(save_every=100)
    ends("stopped", lambda: train(make("moe", seed=rank), never, killed, own, progress=False))
    ends("not resumed", lambda: train(make("moe"), never, batch, own, progress=False))
    model = make("moe", seed=7 + rank)
    held_out = [batch(50), batch(51, rows=2), batch(52)]
    ends("resumed", lambda: train(model, never, batch, own, held_out, resume=True, progress=False))
    seen["weights"] = weights(model)

    other = out / f"other-{rank}"
    ends("plans", lambda: train(make("moe"), plan(peak=0.02 + rank), batch, other, progress=False))
    ends("data", lambda: train(make("moe"), plan(), lambda step: batch(step + rank), other, progress=False))

    pieces = make("moe", seed=rank)
    ends("pieces", lambda: train(pieces, plan(accumulate=size), batch, out / "pieces", progress=False))
    seen["pieces weights"] = weights(pieces)

    seen["sent"] = parallel.from_first(lambda: {"a": [torch.arange(3), 5], "b": (torch.ones(2, 1).bfloat16(),)})
    torch.save(seen, out / f"{rank}.pt")
    parallel.stop()
"""


@pytest.fixture(scope="module", params=[2, 4])
def processes(request, tmp_path_factory):
    """What each process has seen, and the folder: one start of two processes, and one of four."""
    folder = tmp_path_factory.mktemp(f"processes-{request.param}")
    script = folder / "script.py"
    script.write_text(textwrap.dedent(SCRIPT), encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    command = [*torchrun, str(request.param), str(script), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)], folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights of one process that was never interrupted."""
    model = make("moe")
    train(model, plan(save_every=100), batch, tmp_path_factory.mktemp("whole"), progress=False)
    return weights(model)


def near(actual, expected):
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-4, atol=1e-6, msg=name)


class TestTogether:
    def test_one_signal_stops_all_after_the_same_step(self, processes):
        seen, _ = processes
        reports = {one["stopped"] for one in seen}
        assert reports == {"KeyboardInterrupt: stopped after step 2; resume goes on from there"}

    def test_they_go_on_from_the_first_ones_folder_and_end_as_one_process_would(self, processes, whole):
        seen, folder = processes
        assert {one["resumed"] for one in seen} == {"done"}
        for one in seen[1:]:
            assert_identical(one["weights"], seen[0]["weights"])
        near(seen[0]["weights"], whole)
        assert not checkpoint.exists(folder / "folder-1" / "checkpoint.pt")
        assert checkpoint.load(folder / "folder-0" / "checkpoint.previous.pt")["step"] == 3

    def test_evaluation_is_shared_and_counts_every_token(self, processes):
        from moe_course.jsonl import Log
        from moe_course.lm import evaluate

        seen, folder = processes
        model = make("moe")
        model.load_state_dict(seen[0]["weights"])
        logged = [
            record for record in Log(folder / "folder-0" / "log.jsonl").records() if "held_out_ce" in record
        ]
        expected = evaluate(model, [batch(50), batch(51, rows=2), batch(52)])
        assert logged[-1]["held_out_ce"] == pytest.approx(expected, rel=1e-6)

    def test_an_error_of_the_first_one_is_everyones(self, processes):
        reports = {one["not resumed"] for one in processes[0]}
        assert len(reports) == 1
        assert reports.pop().startswith("FileExistsError: ")

    def test_they_do_not_begin_with_different_plans_or_data(self, processes):
        for one in processes[0]:
            assert one["plans"].startswith("ValueError: the plan of process 1 is TrainConfig(")
            assert one["data"].startswith("ValueError: the state of process 1 is (0, ")

    def test_as_many_pieces_as_processes_are_one_piece_each(self, processes, whole):
        """And then the objective is that of one process with one piece: the balanced load is that of the batch."""
        for one in processes[0]:
            assert one["pieces"] == "done"
            near(one["pieces weights"], whole)

    def test_tensors_are_sent_in_what_holds_them(self, processes):
        for one in processes[0]:
            (first, five), (second,) = one["sent"]["a"], one["sent"]["b"]
            assert (first.tolist(), five) == ([0, 1, 2], 5)
            assert second.dtype == torch.bfloat16
            assert second.tolist() == [[1.0], [1.0]]


COMMAND = """
    import sys
    from moe_course.command.cli import main
    from moe_course.lm.training import parallel
    import os

    rank = os.environ["RANK"]
    small = ["d_model=16", "d_ff=8", "num_layers=1", "context=16", "batch_size=4", "eval_every=2"]
    command = ["train", "--data", f"text:{sys.argv[1]}", "--steps", "4", "--out", f"{sys.argv[2]}/run-{rank}"]
    for setting in small:
        command += ["--set", setting]
    code = main([*command, *sys.argv[3:]])
    assert code == 0, code
"""


def test_the_command_needs_the_folder_of_the_first_process_only(tmp_path):
    """As on machines that share none; each has a text and a cache of its own."""
    poem, script = tmp_path / "poem.txt", tmp_path / "script.py"
    poem.write_text("the router sends each token to an expert\n" * 200, encoding="utf-8")
    script.write_text(textwrap.dedent(COMMAND), encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "MOE_COURSE_CACHE": str(tmp_path / "cache"),
    }
    command = [*torchrun, str(script), str(poem), str(tmp_path)]
    for more in (
        [],
        ["--resume"],
    ):  # by new processes: a second group in the same ones may find the first one's
        done = subprocess.run([*command, *more], env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("bits/byte") == 1, "one process prints"
    assert (tmp_path / "run-0" / "result.json").exists()
    assert not [path for path in (tmp_path / "run-1").iterdir() if path.name != ".lock"]


class TestDevice:
    @pytest.fixture
    def gpus(self, monkeypatch):
        """A machine with two GPUs, as far as `start` looks at it; what it did."""
        did = {}
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: did.update(set=device))
        monkeypatch.setattr(
            dist, "init_process_group", lambda backend, **how: did.update(group=backend, **how)
        )
        for name in ("LOCAL_RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        return did

    @pytest.mark.parametrize("name", [None, "cuda", "cuda:0"])
    def test_one_process_takes_the_first_unless_told(self, gpus, name):
        assert parallel.start(name) == gpus["set"] == torch.device("cuda", 0)
        assert parallel.start("cuda:1") == torch.device("cuda", 1)
        assert "group" not in gpus

    @pytest.mark.parametrize("name", [None, "cuda"])
    def test_under_torchrun_each_takes_its_own(self, gpus, monkeypatch, name):
        monkeypatch.setenv("LOCAL_RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "2")
        device = torch.device("cuda", 1)
        assert parallel.start(name) == device
        assert gpus == {"set": device, "group": "nccl", "device_id": device, "timeout": parallel.TIMEOUT}

    def test_one_gpu_for_all_is_refused(self, gpus, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(ValueError, match="'cuda:0' for 2 processes: give cuda"):
            parallel.start("cuda:0")

    def test_more_processes_than_gpus_are_refused(self, gpus, monkeypatch):
        monkeypatch.setenv("LOCAL_RANK", "2")
        monkeypatch.setenv("WORLD_SIZE", "3")
        with pytest.raises(ValueError, match="process 2 of this machine: PyTorch finds 2 GPUs"):
            parallel.start()

    def test_what_the_machine_does_not_have(self, gpus):
        with pytest.raises(ValueError, match="device 'cuda:2': PyTorch finds 2 GPUs"):
            parallel.start("cuda:2")
        with pytest.raises(ValueError, match="no device 'gpu'"):
            parallel.start("gpu")
