"""From a recipe to a result: costs, measures, runs, records, and the commands around them."""

import json
import math
import signal
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lm.small import D, batch, lm_config, make, plan, weights
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from moe_course.command.cli import main
from moe_course.config import MoEConfig
from moe_course.hardware import DEVICES, Device
from moe_course.jsonl import Log
from moe_course.lm.corpus.batching import windows
from moe_course.lm.corpus.facts import Cloze
from moe_course.lm.experiment import bench, forecast, measure, recipe, study, trial
from moe_course.lm.experiment.recipe import ARMS, PRESETS, Preset, Recipe
from moe_course.lm.model.lm_config import TrainConfig
from moe_course.lm.model.transformer import Transformer
from moe_course.lm.training import costs
from moe_course.lm.training.interrupt import interrupts_wait
from moe_course.lm.training.run_folder import load_model
from moe_course.lm.training.step import accumulate_gradients
from moe_course.lm.training.trainer import train

VOCABULARY = 280
TINY = Preset(
    measured=True,
    vocab_size=VOCABULARY,
    d_model=16,
    num_layers=2,
    num_heads=2,
    context=16,
    d_ff=24,
    num_experts=4,
    top_k=2,
    batch_size=4,
    plan=TrainConfig(steps=8, warmup=2, eval_every=4, save_every=4, log_every=2, bf16=False),
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path_factory):
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    monkeypatch.setenv("MOE_COURSE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def poem(tmp_path):
    """A text of a few kilobytes with some order in it."""
    path = tmp_path / "poem.txt"
    words = ("router", "expert", "token", "load", "gate", "the", "a", "queue")
    draw = torch.Generator().manual_seed(3)
    picks = torch.randint(len(words), (1500,), generator=draw).tolist()
    path.write_text(" ".join(words[i] + ("\n" if i == 3 else "") for i in picks), encoding="utf-8")
    return f"text:{path}"


class TestCosts:
    @pytest.mark.parametrize("ffn", ["dense", "moe", "shared"])
    @pytest.mark.parametrize("tied", [True, False])
    def test_parameters_are_counted_without_making_them(self, ffn, tied):
        config = lm_config(ffn, tied=tied)
        assert costs.num_params(config) == make(ffn, tied=tied).num_params()

    @pytest.mark.parametrize("tied", [True, False])
    def test_flops_are_those_that_torch_counts(self, tied):
        """PyTorch counts attention as if every position saw every other; ours sees the earlier ones."""
        config = lm_config("dense", tied=tied)
        tokens_BS = torch.zeros(2, config.context, dtype=torch.long)
        model = make("dense", tied=tied)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            model(tokens_BS)[0].sum().backward()
        S, L = config.context, config.num_layers
        everyone, seen = 4 * S * D * L, 2 * (S + 1) * D * L  # of one token, forward
        counted = counter.get_total_flops() / tokens_BS.numel()
        assert costs.flops_per_token(config) + 3 * (everyone - seen) == counted

    def test_a_token_pays_for_the_experts_it_uses(self):
        few, many = (lm_config(MoEConfig(d_model=D, d_ff=8, num_experts=e, top_k=2)) for e in (4, 40))
        router = 6 * 36 * D * few.num_layers
        assert costs.flops_per_token(many) - costs.flops_per_token(few) == router

    def test_an_expert_costs_memory_used_or_not(self):
        few, many = (lm_config(MoEConfig(d_model=D, d_ff=8, num_experts=e, top_k=2)) for e in (4, 40))
        more = costs.num_params(many)[0] - costs.num_params(few)[0]
        a, b = costs.training_bytes(few, 2, pieces=2), costs.training_bytes(many, 2, pieces=2)
        assert b["state"] + b["gradients"] - a["state"] - a["gradients"] == 16 * more
        assert costs.training_bytes(few, 2)["gradients"] == 0, "the piece has them"

    def test_more_sequences_need_more_memory_and_time(self):
        config = lm_config("moe")
        once, twice = (costs.count_piece(config, n) for n in (8, 16))
        assert 1.6 < twice.peak_bytes / once.peak_bytes < 2
        schedule, slow = plan(bf16=False), Device(1e3, None, 1e3)
        seconds = [costs.step_seconds(config, schedule, n, slow) for n in (8, 16)]
        assert 1.6 < seconds[1] / seconds[0] < 2
        half = Device(2e3, None, 2e3)
        assert costs.step_seconds(config, schedule, 8, half) == pytest.approx(seconds[0] / 2)
        fast = Device(1e15, None, 1e15)
        assert costs.step_seconds(config, schedule, 8, fast) == pytest.approx(once.kernels * costs.LAUNCH)

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
    @pytest.mark.parametrize("bf16", [False, True])
    def test_the_memory_is_that_of_a_gpu(self, bf16):
        model = recipe.recipe("t4", "moe").model
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        on_gpu = Transformer(model).cuda()
        weights = torch.cuda.memory_allocated() - before
        torch.cuda.reset_peak_memory_stats()
        autocast = torch.autocast("cuda", torch.bfloat16, enabled=bf16)
        tokens_BS1 = torch.zeros(8, model.context + 1, dtype=torch.long, device="cuda")
        accumulate_gradients(on_gpu, [tokens_BS1], 0.01, 0.001, autocast)
        used = torch.cuda.max_memory_allocated() - before - weights
        assert costs.count_piece(model, 8, bf16).peak_bytes == pytest.approx(used, rel=0.1)

    def test_a_cpu_has_no_known_peak(self):
        assert costs.peak_flops(torch.device("cpu"), bf16=True) is None

    @pytest.mark.parametrize(
        ("name", "bf16", "peak"),
        [
            ("Tesla T4", False, 8.1e12),
            ("Tesla T4", True, None),
            ("NVIDIA A100-SXM4-80GB", True, 312e12),
            ("NVIDIA H100 80GB HBM3", True, 989e12),
            ("NVIDIA H100 PCIe", True, 756e12),
            ("NVIDIA H100 NVL", False, 60e12),
            ("NVIDIA GH200 480GB", True, 989e12),
            ("NVIDIA H200", True, 989e12),
            ("NVIDIA T400", False, None),
        ],
    )
    def test_known_gpus_have_one(self, monkeypatch, name, bf16, peak):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
        assert costs.peak_flops(torch.device("cuda"), bf16) == peak


class TestMeasure:
    @pytest.fixture
    def run(self, poem):
        text = trial.Text.of(poem, vocab_size=VOCABULARY)
        chosen = recipe.recipe("tiny", "moe", data=poem, vocab_size=text.tokenizer.vocab_size)
        return make_model(chosen), chosen, text

    def test_loss_by_domain_is_the_loss_of_every_token(self, run):
        model, chosen, text = run
        line = text.line("validation")
        loss = measure.loss_by_domain(model, line, text.tokenizer)["text"]
        size = chosen.model.context
        targets = line.ids_T[1 : (len(line) - 1) // size * size + 1].long()
        with torch.no_grad():
            each = [measure.token_losses(model, b, torch.device("cpu")) for b in windows(line, 3, size)]
        assert loss.tokens == len(targets)
        assert loss.bytes == sum(len(text.tokenizer.pieces[i]) for i in targets.tolist())
        assert loss.nats == pytest.approx(torch.cat(each).double().sum().item(), rel=1e-5)
        assert loss.bpb == pytest.approx(loss.nats / math.log(2) / loss.bytes)

    def test_domains_are_told_apart(self, run):
        model, _, text = run
        line = text.line("validation")
        half = len(line) // 2
        split = replace(
            line, domain_T=(torch.arange(len(line)) >= half).to(torch.int8), domains=("a", "b", "c")
        )
        both = measure.loss_by_domain(model, split, text.tokenizer)
        assert list(both) == ["a", "b"]
        whole = measure.loss_by_domain(model, line, text.tokenizer)["text"]
        assert (both["a"] + both["b"]).nats == pytest.approx(whole.nats)

    def test_the_probability_of_an_answer_is_that_of_its_tokens_one_by_one(self, run):
        model, _, text = run
        texts = [("the gate", " token"), ("a", " queue router")]
        for (prompt, answer), found in zip(
            texts, measure.log_probs(model, text.tokenizer, texts), strict=True
        ):
            ids = [text.tokenizer.end, *text.tokenizer.encode(prompt)]
            expected = 0.0
            for token in text.tokenizer.encode(f"{answer}."):
                with torch.no_grad():
                    logits_BSV, _ = model(torch.tensor([ids]))
                expected += logits_BSV[0, -1].log_softmax(0)[token].item()
                ids.append(token)
            assert found == pytest.approx(expected, abs=1e-4)

    def test_recall_counts_the_questions_answered_rightly(self, run, monkeypatch):
        model, _, text = run
        options = (" one", " two", " three", " four")
        questions = [Cloze("r", f"prompt {n}", options[n], options) for n in range(4)]
        monkeypatch.setattr(
            measure, "log_probs", lambda m, t, texts: [-1.0 if a == " two" else -2.0 for _, a in texts]
        )
        assert measure.recall(model, text.tokenizer, questions, at_once=3) == 0.25

    def test_no_questions_no_recall(self, run):
        with pytest.raises(ValueError, match="no questions"):
            measure.recall(run[0], run[2].tokenizer, [])


class TestRecipe:
    @pytest.mark.parametrize("preset", [*PRESETS])
    def test_the_arms_match_as_their_names_say(self, preset):
        moe, active, total = (recipe.recipe(preset, arm).model for arm in ARMS)
        router = moe.num_layers * moe.d_model * moe.ffn.num_experts
        assert costs.num_params(moe)[1] - router == costs.num_params(active)[1]
        assert costs.num_params(moe)[0] - router == costs.num_params(total)[1]

    @pytest.mark.parametrize("arm", ARMS)
    def test_it_survives_json(self, arm):
        there = recipe.recipe("cpu", arm, seed=4)
        assert Recipe.from_dict(json.loads(json.dumps(there.to_dict()))) == there

    def test_wrong_names_are_named(self):
        with pytest.raises(ValueError, match="'tpu'"):
            recipe.recipe("tpu", "moe")
        with pytest.raises(ValueError, match="'sparse'"):
            recipe.recipe("cpu", "sparse")
        with pytest.raises(ValueError, match="batch_size must be an int of at least 1, got 0"):
            replace(recipe.recipe("cpu", "moe"), batch_size=0)


MEMORY = {"cpu": 8e9, "t4": 15e9, "h100": 80e9}


class TestPresets:
    def test_every_one_is_known_here(self):
        assert set(PRESETS) - {"tiny"} == set(MEMORY)
        assert [name for name, preset in PRESETS.items() if preset.measured] == ["cpu", "tiny"]

    @pytest.mark.parametrize("arm", ARMS)
    @pytest.mark.parametrize("preset", [*MEMORY])
    def test_it_fits_into_the_memory_it_was_made_for(self, preset, arm):
        r = recipe.recipe(preset, arm)
        pieces = r.plan.accumulate
        needed = costs.training_bytes(r.model, r.batch_size // pieces, r.plan.bf16, pieces)
        assert sum(needed.values()) < 0.75 * MEMORY[preset], needed

    @pytest.mark.parametrize("preset", ["t4", "h100"])
    def test_the_mixture_is_trained_within_the_hour_by_what_it_computes(self, preset):
        """Every kernel counted, padded rows and traffic included: see `costs.ARITHMETIC` for what is assumed."""
        r = recipe.recipe(preset, "moe")
        step = costs.step_seconds(r.model, r.plan, r.batch_size, DEVICES[preset.upper()])
        assert r.plan.steps * step < 3600

    @pytest.mark.parametrize("arm", ARMS)
    @pytest.mark.parametrize("preset", [*MEMORY])
    def test_a_step_asks_the_device_for_no_value(self, preset, arm):
        """On the meta device anything that needs a value raises, and nothing takes memory."""
        r = recipe.recipe(preset, arm)
        with torch.device("meta"):
            model = Transformer(r.model)
            tokens_BS1 = torch.empty(2, r.model.context + 1, dtype=torch.long)
        gradients = accumulate_gradients(model, [tokens_BS1], r.plan.lb_weight, r.plan.z_weight)
        assert gradients.ce.is_meta
        assert all(p.grad is not None for p in model.parameters())

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
    @pytest.mark.parametrize("arm", ARMS)
    @pytest.mark.parametrize("preset", ["t4", "h100"])
    def test_some_steps_on_a_gpu(self, preset, arm, tmp_path):
        r = recipe.recipe(preset, arm)
        plan = replace(r.plan, steps=6, warmup=2, log_every=1)
        model = Transformer(r.model).cuda()
        draw = torch.Generator().manual_seed(0)
        shape = (max(1, r.batch_size // 8), r.model.context + 1)
        tokens_BS1 = torch.randint(r.model.vocab_size, shape, generator=draw)
        seen = []
        train(
            model,
            plan,
            lambda step: tokens_BS1,
            tmp_path,
            progress=False,
            watch=lambda r, m: seen.append(r["ce"]),
        )
        assert seen[-1] < seen[0]


class TestRun:
    def test_set_changes_any_field_of_the_recipe(self):
        base = recipe.recipe("tiny", "moe")
        settings = [
            "optimizer=muon",
            "peak=0.02",
            "top_k=1",
            "renormalize=False",
            "d_model=24",
            "batch_size=3",
        ]
        changed = recipe.with_settings(base, [*settings, "betas=(0.8, 0.9)", "capacity_factor=1.5"])
        assert (changed.plan.optimizer, changed.plan.peak, changed.plan.betas) == ("muon", 0.02, (0.8, 0.9))
        assert (changed.model.d_model, changed.model.ffn.d_model, changed.batch_size) == (24, 24, 3)
        assert (changed.model.ffn.top_k, changed.model.ffn.capacity_factor) == (1, 1.5)
        assert recipe.with_settings(base, []) == base

    @pytest.mark.parametrize(
        ("setting", "said"),
        [
            ("peak", "'peak' sets nothing: write NAME=VALUE"),
            ("speed=3", "'speed=3' sets nothing"),
            ("data=hf:x", "'data=hf:x' sets nothing"),
            ("top_k=99", "top_k"),
            ("peak=fast", "peak=fast"),
            ("optimizer=sgd", "optimizer must be one of"),
            ("d_model=7", "d_model"),
        ],
    )
    def test_a_setting_that_makes_no_sense_is_named(self, setting, said):
        with pytest.raises(ValueError, match=said):
            recipe.with_settings(recipe.recipe("tiny", "moe"), [setting])

    def test_a_dense_model_has_no_experts_to_set(self):
        with pytest.raises(ValueError, match="top_k=1"):
            recipe.with_settings(recipe.recipe("tiny", "dense-active"), ["top_k=1"])

    def test_train_sample_compare(self, poem, tmp_path, capsys):
        runs = []
        for arm in ("moe", "dense-active"):
            runs.append(str(tmp_path / arm))
            command = ["train", "--preset", "tiny", "--model", arm, "--data", poem, "--level", "char"]
            assert main([*command, "--steps", "6", "--device", "cpu", "--out", runs[-1]]) == 0
        assert main(["sample", runs[0], "--prompt", "the gate", "--tokens", "5"]) == 0
        assert main(["compare", *runs, "--figure", str(tmp_path / "curves.svg")]) == 0
        out = capsys.readouterr().out
        assert "\nthe gate" in out
        assert "dense-active" in out.splitlines()[-2]
        assert (tmp_path / "curves.svg").read_text(encoding="utf-8").count("<svg") == 1
        result = trial.read_result(tmp_path / "moe")
        assert [point["step"] for point in result["curve"]] == [3, 5]
        assert 0 < result["ce"] < 10
        assert result["recall"] is None

    def test_a_sample_repeats_with_its_seed(self, poem, tmp_path, capsys):
        chosen = recipe.recipe("tiny", "moe", data=poem, vocab_size=VOCABULARY)
        trial.run_recipe(chosen, tmp_path / "run", progress=False)
        texts = []
        for seed in ("1", "1", "2"):
            main(["sample", str(tmp_path / "run"), "--seed", seed, "--tokens", "30"])
            texts.append(capsys.readouterr().out)
        assert texts[0] == texts[1] != texts[2]

    def test_a_run_is_not_overwritten_and_goes_on_when_asked(self, poem, tmp_path):
        chosen = recipe.recipe("tiny", "dense-active", data=poem, vocab_size=VOCABULARY)
        first = trial.run_recipe(chosen, tmp_path / "run", progress=False)
        with pytest.raises(FileExistsError, match="resume it"):
            trial.run_recipe(chosen, tmp_path / "run", progress=False)
        again = trial.run_recipe(chosen, tmp_path / "run", resume=True, progress=False)
        assert again["ce"] == first["ce"]

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"name": "another"}, "name = 'dense-active', this one 'another'"),
            ({"level": "char"}, "level = 'bpe', this one 'char'"),
            ({"batch_size": 2}, "batch_size = 4, this one 2"),
            ({"frozen": ("router",)}, r"frozen = \(\), this one \('router',\)"),
        ],
    )
    def test_another_recipe_does_not_go_on(self, poem, tmp_path, change, said):
        chosen = recipe.recipe("tiny", "dense-active", data=poem, vocab_size=VOCABULARY)
        text = trial.Text.of(poem, vocab_size=VOCABULARY)
        trial.run_recipe(chosen, tmp_path / "run", progress=False, text=text)
        before = contents(tmp_path / "run")
        changed = replace(chosen, **change)
        with pytest.raises(ValueError, match=said):
            trial.run_recipe(changed, tmp_path / "run", resume=True, progress=False, text=text)
        assert contents(tmp_path / "run") == before

    def test_another_text_does_not_go_on_even_with_the_same_tokens(self, poem, tmp_path):
        """The file is written anew with its words in another order: the same alphabet, so the same tokenizer."""
        text = trial.Text.of(poem, level="char")
        sizes = {"data": poem, "level": "char", "vocab_size": text.tokenizer.vocab_size}
        chosen = recipe.recipe("tiny", "dense-active", **sizes)
        trial.run_recipe(chosen, tmp_path / "run", progress=False, text=text)
        path = Path(poem.removeprefix("text:"))
        path.write_text(path.read_text(encoding="utf-8")[::-1], encoding="utf-8")
        assert trial.Text.of(poem, level="char").tokenizer.to_json() == text.tokenizer.to_json()
        with pytest.raises(ValueError, match="begun on another text"):
            trial.run_recipe(chosen, tmp_path / "run", resume=True, progress=False)

    def test_a_folder_holds_one_run(self, poem, tmp_path, capsys):
        """Whatever is mistyped, what is in the folder stays as it was."""
        out = tmp_path / "run"
        command = ["train", "--preset", "tiny", "--data", poem, "--steps", "6", "--device", "cpu", "--out"]
        assert main([*command, str(tmp_path / "typo"), "--resume"]) == 2
        assert "holds no checkpoint to go on from" in capsys.readouterr().err
        assert not (tmp_path / "typo").exists()
        assert main([*command, str(out)]) == 0
        before = contents(out)
        for mistake in (
            [],
            ["--resume", "--model", "dense-active"],
            ["--resume", "--set", "peak=0.5"],
            ["--resume", "--set", "peek=0.5"],
            ["--resume", "--seed", "1"],
            ["--resume", "--level", "char"],
        ):
            assert main([*command, str(out), *mistake]) == 2, mistake
            assert contents(out) == before, mistake
        assert main([*command, str(out), "--resume"]) == 0

    def test_a_tokenizer_of_another_run_is_noticed(self, poem, tmp_path, capsys):
        for level in ("char", "bpe"):
            command = ["train", "--preset", "tiny", "--data", poem, "--steps", "6", "--level", level]
            assert main([*command, "--device", "cpu", "--out", str(tmp_path / level)]) == 0
        (tmp_path / "char" / "tokenizer.json").write_bytes((tmp_path / "bpe" / "tokenizer.json").read_bytes())
        assert main(["sample", str(tmp_path / "char")]) == 2
        assert "tokenizer.json does not belong to the checkpoint" in capsys.readouterr().err

    def test_the_wrong_vocabulary_is_named(self, poem, tmp_path):
        text = trial.Text.of(poem, vocab_size=270)
        with pytest.raises(ValueError, match="280, the tokenizer one of 270"):
            trial.run_recipe(recipe.recipe("tiny", "moe", data=poem), tmp_path / "run", text=text)

    def test_frozen_parameters_stay(self, poem, tmp_path):
        chosen = replace(recipe.recipe("tiny", "moe", data=poem, vocab_size=VOCABULARY), frozen=("router",))
        kept = {}
        trial.run_recipe(
            chosen, tmp_path / "run", progress=False, watch=lambda record, model: kept.update(weights(model))
        )
        start = weights(make_model(chosen))
        moved = {name for name in start if not torch.equal(start[name], kept[name])}
        assert {name for name in start if name not in moved} == {n for n in start if n.endswith("router")}

    def test_batches_of_a_resumed_run_are_the_same(self, poem):
        text = trial.Text.of(poem, vocab_size=VOCABULARY)
        chosen = recipe.recipe("tiny", "moe", data=poem)
        through, jump = text.batch(chosen), text.batch(chosen)
        steps = [through(step) for step in range(5)]
        assert torch.equal(jump(3), steps[3])
        assert torch.equal(jump(4), steps[4])
        assert torch.equal(jump(0), steps[0])

    def test_a_folder_without_a_run_is_named(self, tmp_path, capsys):
        for command in ("sample", "compare"):
            assert main([command, str(tmp_path)]) == 2
            assert str(tmp_path) in capsys.readouterr().err


class TestForecast:
    EXPECTED = forecast.Forecast(step=0.5, evaluation=2.0, measurement=10.0)

    def test_the_time_of_a_run_is_that_of_its_parts(self):
        assert self.EXPECTED.seconds(plan(steps=100, eval_every=30)) == 100 * 0.5 + 4 * 2.0 + 10.0

    @pytest.mark.parametrize("minutes", [1, 7.5, 600])
    def test_so_many_steps_fit_and_hardly_more_would(self, minutes):
        schedule = plan(eval_every=30)
        steps = self.EXPECTED.steps(minutes, schedule)
        allowed = 60 * minutes * (1 - forecast.RESERVE)
        taken = self.EXPECTED.seconds(replace(schedule, steps=steps))
        assert allowed - 2.0 - 2 * 0.5 < taken <= allowed

    def test_too_few_minutes_say_how_many_are_needed(self):
        with pytest.raises(ValueError, match=r"0\.1 minutes are left, and .* at least 0\.26"):
            self.EXPECTED.steps(0.1, plan(eval_every=30))
        assert self.EXPECTED.steps(0.27, plan(eval_every=30)) >= 2

    def test_the_schedule_has_the_length_of_the_run(self):
        base = recipe.recipe("cpu", "moe")
        short = forecast.within(2, base, self.EXPECTED)
        assert short.plan.steps == self.EXPECTED.steps(2, base.plan)
        assert short.plan.warmup == short.plan.steps // 10
        assert forecast.within(600, base, self.EXPECTED).plan.warmup == base.plan.warmup
        assert replace(short, plan=base.plan) == base

    def test_evaluation_is_counted_in_tokens_that_cost_a_third(self, poem, monkeypatch):
        monkeypatch.setattr(bench, "step_seconds", lambda *_: 6.4)  # 64 tokens a step
        text = trial.Text.of(poem, vocab_size=VOCABULARY)
        chosen = recipe.recipe("tiny", "moe", data=poem, vocab_size=text.tokenizer.vocab_size)
        found = forecast.forecast(chosen, text, torch.device("cpu"))
        assert found.step == pytest.approx(6.4)
        assert found.evaluation == pytest.approx(128 * 16 * 0.1 / 3)
        assert found.measurement == pytest.approx(len(text.line("validation")) * 0.1 / 3)

    def test_a_text_that_is_seen_too_often_is_told_of(self, poem, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(forecast, "forecast", lambda *_: self.EXPECTED)
        command = ["train", "--preset", "tiny", "--data", poem, "--device", "cpu", "--out"]
        told = []
        for steps in (8, 400):
            monkeypatch.setattr(trial, "run_recipe", lambda *_, **__: pytest.fail("not to be trained"))
            with pytest.raises(BaseException, match="not to be trained"):
                main([*command, str(tmp_path / "run"), "--steps", str(steps)])
            told.append(capsys.readouterr())
        size = len(trial.Text.of(poem, vocab_size=VOCABULARY).line("train"))
        for steps, one in zip((8, 400), told, strict=True):
            assert f"{size:,} tokens, each seen {steps * 4 * 16 / size:,.1f} times" in one.out
        assert "teaches little" not in told[0].err
        assert "This run sees its text " in told[1].err

    def test_as_much_of_a_data_set_is_read_as_the_run_needs(self, tmp_path, monkeypatch):
        asked = []

        def load(data, size):
            asked.append(size)
            raise ValueError("enough")

        monkeypatch.setattr(trial, "load", load)
        command = [
            "train",
            "--preset",
            "tiny",
            "--data",
            "hf:x",
            "--device",
            "cpu",
            "--out",
            str(tmp_path / "run"),
        ]
        for more in (["--steps", "90"], ["--steps", "180"], ["--steps", "90", "--set", "context=32"]):
            assert main([*command, *more]) != 0
        assert asked == [90 * 4 * 16 * 5 / 0.9, 180 * 4 * 16 * 5 / 0.9, 90 * 4 * 32 * 5 / 0.9]

    def test_train_says_what_it_will_do_and_ends_in_time(self, poem, tmp_path, capsys, monkeypatch):
        now = [100.0]

        def timed(*_):
            now[0] += 3  # the time until here is part of what was promised
            return self.EXPECTED

        monkeypatch.setattr(forecast, "forecast", timed)
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        command = ["train", "--preset", "tiny", "--data", poem, "--device", "cpu"]
        command += ["--minutes", "0.5", "--out", str(tmp_path / "run")]
        assert main(command) == 0
        told = capsys.readouterr().out
        steps = trial.read_recipe(tmp_path / "run").plan.steps
        assert steps == self.EXPECTED.steps(0.5 - 3 / 60, TINY.plan)
        total, active = costs.num_params(trial.read_recipe(tmp_path / "run").model)
        assert f"{total:,} in all, {active:,} active" in told
        assert f"{steps} steps of 64" in told
        assert "0.5 s a step" in told
        slower = replace(self.EXPECTED, step=1.0)  # when it is resumed, the run keeps its length
        monkeypatch.setattr(forecast, "forecast", lambda *_: slower)
        assert main([*command, "--resume"]) == 0
        assert trial.read_result(tmp_path / "run")["recipe"]["plan"]["steps"] == steps

    def test_steps_and_minutes_exclude_each_other(self, capsys):
        with pytest.raises(SystemExit):
            main(["train", "--out", "x", "--steps", "3", "--minutes", "1"])
        assert "not allowed with" in capsys.readouterr().err


class TestWatching:
    @pytest.fixture
    def command(self, poem, tmp_path):
        command = ["train", "--preset", "tiny", "--data", poem, "--steps", "8", "--device", "cpu"]
        return [*command, "--out", str(tmp_path / "run")]

    def test_samples_come_in_time_and_change_nothing(self, command, poem, tmp_path, capsys):
        assert main([*command, "--samples", "3"]) == 0
        told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("after ")]
        assert [line.partition(":")[0] for line in told] == ["after 4 steps", "after 6 steps"]
        assert main([*command[:-1], str(tmp_path / "silent")]) == 0
        for name, value in load_model(tmp_path / "run").state_dict().items():
            assert torch.equal(value, load_model(tmp_path / "silent").state_dict()[name]), name

    def test_samples_of_no_steps(self, command, tmp_path, capsys):
        assert main([*command, "--samples", "0"]) == 2
        assert "--samples takes a number of steps from 1, got 0" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()

    def test_tensorboard_gets_the_numbers_of_the_log(self, command, tmp_path, monkeypatch):
        said = []

        class SummaryWriter:
            def __init__(self, folder, purge_step):
                said.append((folder, purge_step))

            def add_scalar(self, name, value, step):
                said.append((name, value, step))

            def flush(self):
                said.append("flush")

        stand_in = types.SimpleNamespace(SummaryWriter=SummaryWriter)
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
        assert main([*command, "--tensorboard"]) == 0
        log = Log(tmp_path / "run" / "log.jsonl").records()
        assert said[0] == (str(tmp_path / "run" / "tensorboard"), log[0]["step"])
        assert said.count("flush") == len(log)
        for record in log:
            assert ("ce", record["ce"], record["step"]) in said
            assert ("largest_load/1", max(record["load_LE"][1]), record["step"]) in said
        assert not any(name == "step" for name, *_ in said)

    def test_wandb_gets_them_with_the_recipe(self, command, tmp_path, monkeypatch):
        begun, logged = [], []

        def init(**options):
            begun.append(options)
            return types.SimpleNamespace(log=lambda numbers, step: logged.append((step, numbers)))

        monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
        assert main([*command, "--wandb"]) == 0
        (options,) = begun
        assert (options["group"], options["name"], options["dir"]) == ("run", "moe", str(tmp_path / "run"))
        assert Recipe.from_dict(options["config"]) == trial.read_recipe(tmp_path / "run")
        log = Log(tmp_path / "run" / "log.jsonl").records()
        assert [(step, numbers["ce"]) for step, numbers in logged] == [(r["step"], r["ce"]) for r in log]

    @pytest.mark.parametrize(
        ("extra", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")]
    )
    def test_what_is_not_installed_is_named_before_anything_is_written(
        self, command, tmp_path, capsys, monkeypatch, extra, module
    ):
        monkeypatch.setitem(sys.modules, module, None)
        assert main([*command, f"--{extra}"]) == 2
        error = capsys.readouterr().err
        assert f"--{extra} needs the package `{extra}`" in error
        assert f"pip install -e '.[{extra}]'" in error
        assert not (tmp_path / "run").exists()

    def test_a_run_that_has_not_ended_can_be_compared(self, command, poem, tmp_path, capsys):
        assert main(command) == 0
        (tmp_path / "run" / "result.json").unlink()
        log = Log(tmp_path / "run" / "log.jsonl")
        log.replace(log.records()[:2])  # up to step 3
        capsys.readouterr()
        assert main(["compare", str(tmp_path / "run"), "--figure", str(tmp_path / "curves.png")]) == 0
        cells = capsys.readouterr().out.splitlines()[1].split()
        assert cells[:2] == ["moe", "0"]
        assert cells[4] == f"{4 * 64:,}"
        assert (tmp_path / "curves.png").stat().st_size > 0
        log.replace([])
        assert main(["compare", str(tmp_path / "run")]) == 2
        assert "has not been evaluated yet" in capsys.readouterr().err


class TestInterrupt:
    def test_it_waits_for_the_step_saves_and_the_resumed_run_is_the_whole_one(self, tmp_path):
        def stop_at_two(step):
            if step == 2:
                signal.raise_signal(signal.SIGINT)
            return batch(step)

        before = signal.getsignal(signal.SIGINT)
        stopped = plan(save_every=100)
        with pytest.raises(KeyboardInterrupt, match="after step 2"):
            train(make("moe"), stopped, stop_at_two, tmp_path / "stopped", progress=False)
        assert signal.getsignal(signal.SIGINT) == before
        resumed, whole = make("moe", seed=5), make("moe")
        train(resumed, stopped, batch, tmp_path / "stopped", resume=True, progress=False)
        train(whole, stopped, batch, tmp_path / "whole", progress=False)
        for name, value in weights(resumed).items():
            assert torch.equal(value, weights(whole)[name]), name

    def test_the_second_one_does_not_wait(self):
        with interrupts_wait() as interrupted:
            signal.raise_signal(signal.SIGINT)
            assert interrupted()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)


class TestOnAGpu:
    """What the command says and does about GPUs, where there is none."""

    @pytest.mark.parametrize("command", [["train", "--out", "nowhere"], ["bench", "train"]])
    def test_a_gpus_preset_is_not_silently_trained_on_a_cpu(self, command, monkeypatch, capsys):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(trial.Text, "of", lambda *_: pytest.fail("it has begun"))
        assert main([*command, "--preset", "h100"]) != 0
        assert "the preset h100 is made for a GPU" in capsys.readouterr().err

    def test_it_is_when_one_asks_for_it(self, poem, tmp_path, monkeypatch, capsys):
        monkeypatch.setitem(PRESETS, "tiny", replace(TINY, measured=False))
        command = ["train", "--preset", "tiny", "--data", poem, "--device", "cpu", "--accumulate", "2"]
        assert main([*command, "--out", str(tmp_path / "run")]) == 0
        assert "tiny is computed, not measured" in capsys.readouterr().err
        assert trial.read_recipe(tmp_path / "run").plan.accumulate == 2

    def test_compile_reaches_what_trains_and_what_is_timed(self, poem, tmp_path, monkeypatch):
        compiled = []
        monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)
        command = ["--preset", "tiny", "--compile"]
        assert main(["train", *command, "--data", poem, "--steps", "4", "--out", str(tmp_path / "run")]) == 0
        assert len(compiled) == 2, "the run and its forecast"
        assert main(["bench", "train", *command, "--rounds", "1"]) == 0
        assert len(compiled) == 2 + len(ARMS)


class TestBench:
    def test_every_arm_is_timed(self):
        speeds = bench.train("tiny", rounds=1, steps=1)
        assert [s.name for s in speeds] == list(ARMS)
        lines = bench.table(speeds).splitlines()
        assert lines[2].split()[-1] == "1.00"  # dense-active beside itself

    def test_no_rounds(self):
        with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
            bench.train("tiny", rounds=0)


class TestStudy:
    def test_the_runs_differ_in_what_their_names_say(self):
        runs = study.recipes()
        assert runs["arm-moe-1"].plan.seed == 1
        assert len({run.tokens for name, run in runs.items() if name.startswith("arm")}) == 1
        for name, run in runs.items():
            if name.startswith("change"):
                changed = replace(run, name="moe", plan=replace(run.plan, seed=0))
                assert (changed == runs["change-moe 0"]) == name.startswith("change-moe")

    def test_the_preset_is_that_of_the_compared_runs(self):
        """What a learner trains in notebook 07 is one of them."""
        runs = study.recipes()
        for arm in ARMS:
            assert recipe.recipe("cpu", arm, seed=3) == runs[f"arm-{arm}-3"]

    def test_records_are_of_the_runs_as_they_are_now(self):
        runs = study.recipes()
        for kind in {name.partition("-")[0] for name in runs}:
            for name, record in study.recorded(kind).items():
                assert Recipe.from_dict(record["recipe"]) == runs[name], name

    def test_what_is_recorded_is_not_done_again_and_a_wrong_name_is_named(self, tmp_path, monkeypatch):
        done = []

        def run(chosen, folder, **options):
            done.append(folder.name)
            return {"ce": 1.0}

        monkeypatch.setattr(trial, "run_recipe", run)
        names = ["arm-moe-0", "change-top-1 2"]
        study.run_missing(names[:1], tmp_path / "runs", tmp_path / "records", say=lambda line: None)
        study.run_missing(names, tmp_path / "runs", tmp_path / "records", say=lambda line: None)
        assert done == names
        assert json.loads((tmp_path / "records" / "arm-moe-0.json").read_text()) == {"ce": 1.0}
        with pytest.raises(ValueError, match="'arm-moe-9'"):
            study.run_missing(["arm-moe-9"], tmp_path / "runs", tmp_path / "records")


def contents(folder):
    """Every file of a folder, without the lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def make_model(chosen):
    return Transformer(chosen.model, torch.Generator().manual_seed(chosen.plan.seed)).eval()
