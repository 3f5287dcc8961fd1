"""benchmarks/shakespeare.py on a made-up text: the split, the budget, the schedule, and what is printed."""

import importlib.util
import json
import math
import random
import sys
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).resolve().parents[1] / "benchmarks" / "shakespeare.py"


@pytest.fixture(scope="module")
def shakespeare():
    spec = importlib.util.spec_from_file_location("shakespeare_benchmark", FILE)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look it up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def text():
    words = ["to be", "or not", "the question", "a king", "my lord", "O", "speak"]
    draw = random.Random(0)
    return ", ".join(draw.choice(words) for _ in range(1200))


def test_the_split_is_nanogpts_and_loses_no_character(shakespeare, text):
    first, rest = shakespeare.split(text)
    assert (len(first), len(first) + len(rest)) == (int(0.9 * len(text)), len(text))
    alphabet = sorted(set(text))
    ids_T = torch.cat([first.ids_T, rest.ids_T])
    assert "".join(alphabet[i] for i in ids_T.tolist()) == text


def test_no_arm_has_more_active_parameters_than_nanogpt(shakespeare):
    for arm, ffn in shakespeare.FFNS.items():
        config = shakespeare.config_of(ffn, vocab_size=65, context=64)
        total, active = shakespeare.Transformer(config).num_params()
        assert active <= shakespeare.NANOGPT.active, arm
        assert (total > active) == (arm == "moe")


def test_training_ends_with_its_time_and_the_schedule_with_it(shakespeare, text, monkeypatch):
    """Each update takes a second of a clock that the test moves."""
    now, rates = [0.0], []

    def update(model, optimizer, tokens_BS1, plan, rate):
        now[0] += 1.0
        rates.append(rate)

    monkeypatch.setattr("time.process_time", lambda: now[0])
    monkeypatch.setattr(shakespeare, "update", update)
    first, _ = shakespeare.split(text)
    model = shakespeare.Transformer(shakespeare.config_of(16, vocab_size=len(set(text)), context=8))
    characters, spent = shakespeare.train(model, first, shakespeare.PLAN, 4, seconds=100.0)
    assert (characters, spent, len(rates)) == (100 * 4 * 8, 100.0, 100)
    peak = shakespeare.PLAN.peak
    assert max(rates) == pytest.approx(peak, rel=0.01)
    assert rates.index(max(rates)) <= 4
    assert rates[-1] < 0.001 * peak


def test_the_command_prints_both_and_writes_json(shakespeare, text, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shakespeare, "BATCH_SIZE", 2)
    file, figures = tmp_path / "text.txt", tmp_path / "figures.json"
    file.write_text(text, encoding="utf-8")
    threads = torch.get_num_threads()
    shakespeare.main([str(file), "--seconds", "0.3", "--json", str(figures)])
    torch.set_num_threads(threads)
    names = ["nanoGPT, CPU configuration", "ours, dense", "ours, moe"]
    said = capsys.readouterr().out.splitlines()
    assert [next(name for name in names if line.startswith(name)) for line in said[1:]] == names
    _, *ours = json.loads(figures.read_text())
    for row in ours:
        assert row["processor_seconds"] >= 0.3
        assert row["characters"] > 0
        assert row["characters"] % (2 * 64) == 0
        assert 0 < row["nats"] < math.log(len(set(text))) + 1
