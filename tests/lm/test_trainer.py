"""The trainer: what a step does, what a run leaves, and what survives an interruption."""

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from lm.small import V, assert_identical, batch, make, plan, weights

from moe_course.lm import TrainConfig, evaluate, learning_rate, load_model, train, train_step
from moe_course.lm.training import checkpoint
from moe_course.lm.training import step as step_module
from moe_course.lm.training.step import accumulate_gradients, load_optimizer, make_optimizer
from moe_course.lm.training.trainer import Clock, moe_layers, update

torch.set_num_threads(1)
TESTS = Path(__file__).resolve().parents[1]


def quietly(model, plan, batch, run, **options):
    train(model, plan, batch, run, progress=False, **options)
    return model


def records(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]


class TestPlan:
    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"steps": 0}, "steps must be an int of at least 1, got 0"),
            ({"accumulate": 1.5}, r"accumulate .* got 1\.5"),
            ({"warmup": -1}, "warmup .* got -1"),
            ({"peak": 0}, "peak must be positive, got 0"),
            ({"clip": math.inf}, "clip must be positive, got inf"),
            ({"floor": -1e-4}, r"floor must not be negative, got -0\.0001"),
            ({"lb_weight": math.nan}, "lb_weight must not be negative, got nan"),
            ({"floor": 0.5, "peak": 0.1}, r"floor = 0\.5 is above peak = 0\.1"),
            ({"betas": (0.9, 1.0)}, r"betas .* got \(0\.9, 1\.0\)"),
            ({"steps": 3, "warmup": 2}, "steps = 3 leaves no room after a warmup of 2"),
            ({"compile": 1}, "compile must be True or False, got 1"),
        ],
    )
    def test_an_error_names_the_values(self, options, complaint):
        with pytest.raises(ValueError, match=complaint):
            plan(**options)


def test_learning_rate_by_hand():
    """Peak 8, warm-up 4, 9 steps, floor 2: the cosine's quarters lie at steps 4, 5, 6, 7, 8."""
    rates = [learning_rate(step, 8, 4, 9, 2) for step in range(11)]
    bend = 3 * math.cos(math.pi / 4)
    assert rates == pytest.approx([2, 4, 6, 8, 8, 5 + bend, 5, 5 - bend, 2, 2, 2])
    assert learning_rate(0, 8, 0, 9, 2) == 8, "no warm-up"


class TestStep:
    def test_train_step_returns_the_loss_before_the_update(self):
        model = make("moe")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        before, start = evaluate(model, [batch(0)]), weights(model)
        assert train_step(model, batch(0), optimizer, 0.01, 0.001, clip=0.25) == pytest.approx(
            before, rel=1e-5
        )
        moved = math.sqrt(
            sum((weights(model)[n] - start[n]).square().sum() for n, _ in model.named_parameters())
        )
        assert moved == pytest.approx(0.5 * 0.25, rel=1e-3), "the clipped norm times the learning rate"
        assert evaluate(model, [batch(0)]) < before

    def test_update_is_train_step_with_more_around_it(self):
        one, other = make("moe"), make("moe")
        schedule = plan(weight_decay=0.0, clip=0.3)
        optimizers = [make_optimizer(model, schedule) for model in (one, other)]
        for step in range(3):
            numbers, *_ = update(one, optimizers[0], batch(step), schedule, schedule.peak)
            ce = train_step(other, batch(step), optimizers[1], schedule.lb_weight, schedule.z_weight, 0.3)
            assert numbers["ce"] == pytest.approx(ce, rel=1e-6)
        assert_identical(weights(one), weights(other))

    def test_pieces_add_up_to_the_batch(self):
        """For the cross-entropy; the balancing loss is that of each piece by itself."""
        whole, parts = make("moe"), make("moe")
        result = accumulate_gradients(whole, [batch(0)], 0, 0)
        pieces = accumulate_gradients(parts, batch(0).chunk(4), 0, 0)
        assert pieces.ce.item() == pytest.approx(result.ce.item(), rel=1e-5)
        for counts_E, expected_E in zip(pieces.counts_LE, result.counts_LE, strict=True):
            assert torch.equal(counts_E, expected_E)
        for (name, p), q in zip(whole.named_parameters(), parts.parameters(), strict=True):
            torch.testing.assert_close(q.grad, p.grad, rtol=1e-3, atol=1e-6, msg=name)

    def test_a_batch_that_does_not_divide_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="a batch of 4 sequences does not divide into 1 processes × 3"):
            quietly(make(), plan(accumulate=3), batch, tmp_path)

    def test_norm_gains_do_not_decay(self):
        optimizer = make_optimizer(make("moe"), plan(weight_decay=0.3))
        for group in optimizer.param_groups:
            assert {p.ndim >= 2 for p in group["params"]} == {group["weight_decay"] == 0.3}
        count = sum(len(group["params"]) for group in optimizer.param_groups)
        assert count == len(list(make("moe").parameters()))

    def test_pieces_balance_the_load_of_the_pieces_so_far(self):
        """By hand: the counts of piece one, then of both."""
        model, pieces = make("moe"), batch(0).chunk(2)
        stats = [model(piece[:, :-1])[1].stats for piece in pieces]
        expected = []
        for layers in zip(*stats, strict=True):
            counts_E = torch.zeros(5)
            for of_piece in layers:
                counts_E += of_piece.counts_E
                expected.append(5 * (counts_E / counts_E.sum() * of_piece.probs_TE.mean(dim=0)).sum().item())
        result = accumulate_gradients(model, pieces, 0.01, 0)
        assert result.lb_loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)
        own = [layer.lb_loss.item() for of_piece in stats for layer in of_piece]
        assert result.lb_loss.item() != pytest.approx(sum(own) / len(own), rel=1e-5)

    @pytest.mark.parametrize("optimizer", ["adamw", "muon"])
    def test_whether_adamw_is_fused_follows_from_the_device_that_goes_on(self, optimizer, monkeypatch):
        schedule = plan(optimizer=optimizer)

        def made(fused):
            monkeypatch.setattr(step_module, "_fused", lambda model: fused)
            model = make("moe")
            return model, make_optimizer(model, schedule)

        model, saved = made(fused=False)
        update(model, saved, batch(0), schedule, 0.01)
        _, resumed = made(fused=True)
        load_optimizer(resumed, saved.state_dict())
        fused = [group["fused"] for group in resumed.param_groups if "fused" in group]
        assert fused
        assert all(fused)

    def test_the_bias_moves_against_the_load_once_a_step(self):
        model = make("everything")
        schedule = plan(accumulate=2)
        _, counts_LE, _ = update(model, make_optimizer(model, schedule), batch(0), schedule, 0.0)
        for layer, counts_E in zip(moe_layers(model), counts_LE, strict=True):
            assert counts_E.sum() == 2 * batch(0)[:, 1:].numel()
            expected_E = 0.01 * torch.sign(counts_E.float().mean() - counts_E)
            assert torch.equal(layer.balance_bias, expected_E)
            assert layer.balance_bias.abs().sum() > 0


def test_the_clock_counts_training_only_and_speed_since_the_last_reading(monkeypatch):
    now, cpu = [0.0], [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: cpu[0])
    clock = Clock(seconds=100.0, cpu_seconds=50.0)  # of the run before it was interrupted

    def train_for(seconds, tokens):
        clock.start()
        now[0] += seconds
        cpu[0] += 2 * seconds
        clock.stop(tokens)
        now[0] += 1000  # evaluation
        cpu[0] += 1000

    train_for(2.0, 60)
    train_for(2.0, 20)
    assert clock.read() == {"seconds": 104.0, "cpu_seconds": 58.0, "tokens_per_second": 20.0}
    train_for(5.0, 10)
    assert clock.read() == {"seconds": 109.0, "cpu_seconds": 68.0, "tokens_per_second": 2.0}
    assert clock.spent == (109.0, 68.0)


@pytest.mark.parametrize("ffn", ["dense", "everything"])
def test_one_batch_is_learnt_by_heart(ffn, tmp_path):
    model, tokens_BS1 = make(ffn), batch(0)
    quietly(model, plan(steps=120, peak=0.02, weight_decay=0.0), lambda step: tokens_BS1, tmp_path)
    # The first token of a sequence stands after nothing that tells sequences apart, if two begin alike.
    assert evaluate(model, [tokens_BS1]) < 0.05 < math.log(V)


def test_a_run_is_recorded(tmp_path):
    run = tmp_path / "deep" / "run"
    schedule = plan(steps=7, log_every=3, eval_every=2)
    model = quietly(make("everything"), schedule, batch, run, held_out=[batch(50), batch(51)])
    lines = records(run)
    assert [line["step"] for line in lines] == [1, 2, 3, 5, 6], "every third to log, every second to evaluate"
    assert [line["step"] for line in lines if "held_out_ce" in line] == [1, 3, 5, 6]
    last = lines[-1]
    expected = evaluate(model, [batch(50), batch(51)])
    assert last["held_out_ce"] == pytest.approx(expected)
    assert last["learning_rate"] == schedule.floor
    assert len(last["load_LE"]) == 3
    assert all(sum(load_E) == pytest.approx(1, abs=1e-4) for load_E in last["load_LE"])
    assert last["tokens_per_second"] > 0
    assert {"ce", "lb_loss", "z_loss", "drop_rate", "grad_norm", "seconds"} <= last.keys()
    assert lines[1]["ce"] == pytest.approx(math.log(V), abs=0.5), "cross-entropy alone"


class TestEvaluation:
    def test_every_token_counts_alike(self):
        model, tokens_BS1 = make("dense"), batch(0)
        pieces = [tokens_BS1[:1], tokens_BS1[1:]]
        assert evaluate(model, pieces) == pytest.approx(evaluate(model, [tokens_BS1]), rel=1e-6)
        assert evaluate(model, pieces[:1]) != pytest.approx(evaluate(model, [tokens_BS1]), rel=1e-4)

    def test_changes_nothing(self):
        model = make("everything").train()
        model.blocks[1].eval()
        before, modes = weights(model), [module.training for module in model.modules()]
        state = torch.get_rng_state()
        assert evaluate(model, [batch(0)]) == evaluate(model, [batch(0)]), "and draws no noise"
        assert_identical(weights(model), before)
        assert [module.training for module in model.modules()] == modes
        assert torch.equal(torch.get_rng_state(), state)
        assert all(p.grad is None for p in model.parameters())

    def test_a_run_with_it_ends_where_one_without_does(self, tmp_path):
        often = quietly(
            make("everything"), plan(eval_every=1), batch, tmp_path / "often", held_out=[batch(50)]
        )
        never = quietly(make("everything"), plan(), batch, tmp_path / "never")
        assert_identical(weights(often), weights(never))


class TestNotFinite:
    def test_stops_and_names_the_step_and_the_checkpoint(self, tmp_path):
        model = make("moe")
        seen = {}

        def poisoned(step):
            if step == 4:
                seen.update(weights(model))
                with torch.no_grad():
                    model.norm.weight[0] = seen["norm.weight"][0] = math.inf
            return batch(step)

        with pytest.raises(
            FloatingPointError, match=r"step 4: ce is (nan|inf).*last good checkpoint is .*checkpoint\.pt"
        ):
            quietly(model, plan(save_every=3), poisoned, tmp_path)
        assert_identical(weights(model), seen)
        state = checkpoint.load(tmp_path / "checkpoint.pt")
        assert state["step"] == 3
        assert all(value.isfinite().all() for value in state["model"].values())

    def test_says_where_nothing_is_saved(self, tmp_path):
        model = make("dense")
        with torch.no_grad():
            model.norm.weight[0] = math.nan
        with pytest.raises(FloatingPointError, match=r"step 0: ce is nan.* nothing is saved"):
            quietly(model, plan(), batch, tmp_path)


class TestResume:
    SCRIPT = """
        import os, signal, sys
        from pathlib import Path
        import torch
        torch.set_num_threads(1)
        from lm.small import batch, make, plan
        from moe_course.lm import train

        def killed(step):
            if step == int(sys.argv[2]):
                os.kill(os.getpid(), signal.SIGKILL)
            return batch(step)

        if sys.argv[3] == "in the middle of a save":
            usual = os.replace
            def replace(source, target):
                if Path(target).name == "checkpoint.previous.pt":
                    os.kill(os.getpid(), signal.SIGKILL)
                usual(source, target)
            os.replace = replace
        train(make("everything"), plan(log_every=1), killed, Path(sys.argv[1]), progress=False)
    """

    @pytest.mark.parametrize("when", ["in the middle of a step", "in the middle of a save"])
    def test_after_kill_9_the_weights_are_those_of_an_uninterrupted_run(self, tmp_path, when):
        step = "5" if when == "in the middle of a step" else "never"
        step = "99" if step == "never" else step
        command = [sys.executable, "-c", textwrap.dedent(self.SCRIPT), str(tmp_path / "killed"), step, when]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
        killed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert killed.returncode == -signal.SIGKILL, killed.stderr

        path = tmp_path / "killed" / "checkpoint.pt"
        assert checkpoint.load(path)["step"] == 4, "the save was interrupted after its file was written"
        torch.manual_seed(12345)  # the random state of the process that resumes does not matter
        resumed = quietly(make("everything", seed=9), plan(log_every=1), batch, path.parent, resume=True)
        whole = quietly(make("everything"), plan(log_every=1), batch, tmp_path / "whole")
        assert_identical(weights(resumed), weights(whole))
        times = ("seconds", "cpu_seconds", "tokens_per_second", "flops_per_second")
        assert [{k: v for k, v in r.items() if k not in times} for r in records(path.parent)] == [
            {k: v for k, v in r.items() if k not in times} for r in records(tmp_path / "whole")
        ]

    def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(self, tmp_path):
        whole = quietly(make("moe"), plan(), batch, tmp_path)
        os.truncate(tmp_path / "checkpoint.pt", 1000)
        with pytest.warns(UserWarning, match="is damaged"):
            resumed = quietly(make("moe", seed=9), plan(), batch, tmp_path, resume=True)
        assert_identical(weights(resumed), weights(whole))

    def test_the_model_of_a_run_comes_back_by_itself(self, tmp_path):
        trained = quietly(make("everything", tied=False), plan(), batch, tmp_path)
        loaded = load_model(tmp_path)
        assert loaded.config == trained.config
        assert not loaded.training
        assert_identical(weights(loaded), weights(trained))

    def test_a_finished_run_resumes_to_itself(self, tmp_path):
        whole = quietly(make("moe"), plan(), batch, tmp_path)
        written = records(tmp_path)
        resumed = quietly(make("moe", seed=9), plan(), batch, tmp_path, resume=True)
        assert_identical(weights(resumed), weights(whole))
        assert records(tmp_path) == written

    def test_another_run_is_not_overwritten(self, tmp_path):
        quietly(make("moe"), plan(), batch, tmp_path)
        with pytest.raises(FileExistsError, match="holds a run: resume it, or choose another folder"):
            quietly(make("moe"), plan(), batch, tmp_path)

    def test_a_result_without_its_checkpoint_is_not_mixed_with_a_new_run(self, tmp_path):
        (tmp_path / "result.json").write_text("{}")
        for resume in (False, True):
            with pytest.raises(FileExistsError, match="the result of a run without its checkpoint"):
                quietly(make("moe"), plan(), batch, tmp_path, resume=resume)

    def test_two_processes_do_not_train_in_one_folder(self, tmp_path):
        def second(step):
            quietly(make("dense"), plan(), batch, tmp_path)

        with pytest.raises(ValueError, match=f"another process is training in {tmp_path}"):
            quietly(make("moe"), plan(), second, tmp_path)
        quietly(make("moe"), plan(), batch, tmp_path)

    def test_papers_are_written_when_the_first_step_is_done_and_belong_to_the_checkpoint(self, tmp_path):
        papers = {"recipe.json": '{"name": "größer"}', "tokenizer.json": "{}"}

        def look(step):
            assert (tmp_path / "recipe.json").exists() == (step > 0)
            return batch(step)

        quietly(make("moe"), plan(), look, tmp_path, papers=papers)
        assert {name: (tmp_path / name).read_text(encoding="utf-8") for name in papers} == papers
        quietly(
            make("moe"), plan(save_every=1), batch, tmp_path, resume=True, papers={"recipe.json": "later"}
        )
        assert (tmp_path / "recipe.json").read_text(encoding="utf-8") == papers["recipe.json"]
        load_model(tmp_path)

        (tmp_path / "tokenizer.json").write_text("{ }")
        with pytest.raises(ValueError, match=r"tokenizer\.json does not belong to the checkpoint"):
            load_model(tmp_path)
        (tmp_path / "tokenizer.json").unlink()
        with pytest.raises(ValueError, match=r"tokenizer\.json is missing"):
            quietly(make("moe"), plan(), batch, tmp_path, resume=True)

    def test_a_resumed_run_still_knows_its_papers(self, tmp_path):
        def stop(step):
            if step == 3:
                raise RuntimeError
            return batch(step)

        with pytest.raises(RuntimeError):
            quietly(make("moe"), plan(), stop, tmp_path, papers={"recipe.json": "one"})
        quietly(make("moe"), plan(), batch, tmp_path, resume=True, papers={"recipe.json": "one"})
        (tmp_path / "recipe.json").write_text("another")
        with pytest.raises(ValueError, match=r"recipe\.json does not belong"):
            load_model(tmp_path)

    def test_a_failed_start_leaves_no_papers(self, tmp_path):
        with pytest.raises(ValueError, match="does not divide"):
            quietly(make("moe"), plan(accumulate=3), batch, tmp_path, papers={"recipe.json": "{}"})
        assert not (tmp_path / "recipe.json").exists()
        quietly(make("moe"), plan(), batch, tmp_path, papers={"recipe.json": "{}"})

    def test_another_plan_or_model_is_refused(self, tmp_path):
        quietly(make("moe"), plan(), batch, tmp_path)
        with pytest.raises(ValueError, match=r"the run's plan has peak = 0\.01, this one has 0\.02"):
            quietly(make("moe"), plan(peak=0.02), batch, tmp_path, resume=True)
        with pytest.raises(ValueError, match="the run's config has ffn = "):
            quietly(make("dense"), plan(), batch, tmp_path, resume=True)
        quietly(make("moe"), plan(log_every=1, save_every=1), batch, tmp_path, resume=True)

    def test_a_full_disk_does_not_end_the_run(self, tmp_path, monkeypatch):
        """A save in the middle is skipped with a warning; one at the end raises."""
        usual, full = os.fsync, False

        def fsync(descriptor):
            if full:
                raise OSError(28, "No space left on device")
            usual(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)

        def freed(step):
            nonlocal full
            full = step in (2, 3)  # the second save of three
            return batch(step)

        with pytest.warns(UserWarning, match="no checkpoint at step 4: .*No space left"):
            quietly(make("moe"), plan(), freed, tmp_path / "a")
        assert checkpoint.load(tmp_path / "a" / "checkpoint.pt")["step"] == 6
        full = True
        with pytest.raises(OSError, match="No space left"):
            quietly(make("moe"), plan(save_every=6), batch, tmp_path / "b")


PARALLEL = """
    import sys
    from pathlib import Path
    import torch, torch.distributed as dist
    torch.set_num_threads(1)
    from lm.small import batch, make, plan
    from moe_course.lm import train
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    model = make(sys.argv[2], seed=rank)  # other weights in each process: the first one's count
    seeds = []

    def noting(step):
        seeds.append(torch.initial_seed())  # that of the step before
        return batch(step)

    train(model, plan(clip=1e6, log_every=1), noting, Path(sys.argv[1]), progress=False)
    torch.save((model.state_dict(), seeds[-5:]), f"{sys.argv[1]}/{rank}.pt")
    dist.destroy_process_group()
"""


def test_two_processes_do_what_one_does(tmp_path):
    """Each takes half of every batch, and the load that is balanced is that of the whole batch."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(PARALLEL), encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    command = [*torchrun, str(script), str(tmp_path / "two"), "biased"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    (two, seeds), (also, other_seeds) = (torch.load(tmp_path / "two" / f"{rank}.pt") for rank in (0, 1))
    assert_identical(two, also)
    assert len({*seeds, *other_seeds}) == 2 * 5, "a router's noise differs between steps and processes"
    schedule = plan(clip=1e6, log_every=1)
    one = quietly(make("biased"), schedule, batch, tmp_path / "one")
    for name, value in weights(one).items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6, msg=name)
    for twice, once in zip(records(tmp_path / "two"), records(tmp_path / "one"), strict=True):
        assert twice["load_LE"] == once["load_LE"]
        assert twice["lb_loss"] == pytest.approx(once["lb_loss"], rel=1e-5)
        assert twice["ce"] == pytest.approx(once["ce"], rel=1e-5)
        # AdamW hides a gradient that is too large by a factor, and so does clipping: its norm shows it.
        assert twice["grad_norm"] == pytest.approx(once["grad_norm"], rel=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("ffn", ["dense", "moe"])
@pytest.mark.parametrize("compiled", [False, True])
def test_on_a_gpu_in_bfloat16(ffn, compiled, tmp_path):
    tokens_BS1 = batch(0)
    model = make(ffn).cuda()
    schedule = TrainConfig(steps=120, warmup=5, peak=0.02, compile=compiled)
    quietly(model, schedule, lambda step: tokens_BS1, tmp_path)
    assert evaluate(model, [tokens_BS1]) < 0.2
    assert {p.dtype for p in model.parameters()} == {torch.float32}
