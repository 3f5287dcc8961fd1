"""The decoding bench: what it counts and prints; never how fast it is."""

import pytest
import torch

from moe_course.command.cli import main
from moe_course.lm.experiment import decode_bench
from moe_course.lm.experiment.decode_bench import DecodeSpeed
from moe_course.lm.model.lm_config import LMConfig
from moe_course.lm.model.transformer import Transformer


def tiny():
    config = LMConfig(vocab_size=11, d_model=8, num_layers=2, num_heads=2, context=16, ffn=8)
    return Transformer(config, torch.Generator().manual_seed(0))


def test_every_step_after_the_prompt_is_timed():
    found = decode_bench.bench({"a": tiny(), "b": tiny()}, (1, 3), prompt=4, steps=5, rounds=2)
    assert [(speed.name, speed.batch) for speed in found] == [("a", 1), ("b", 1), ("a", 3), ("b", 3)]
    assert {len(speed.seconds) for speed in found} == {2 * 4}
    assert all(speed.tokens_per_second > 0 for speed in found)


def test_memory_by_hand():
    model = tiny()
    weights = 4 * sum(w.numel() for w in model.parameters())
    assert decode_bench.memory(model, 3, 5) == weights + 3 * 5 * (2 * 2 * 8) * 4


def test_percentiles_and_speed_of_known_times():
    speed = DecodeSpeed("a", 6, (1.0, 3.0, 2.0), 10**6)
    assert speed.tokens_per_second == 3
    assert (speed.percentile(0), speed.percentile(75), speed.percentile(100)) == (1, 2.5, 3)
    assert "6  a" in decode_bench.table([speed])


def test_bad_values():
    for rounds, steps in ((0, 5), (1, 1)):
        with pytest.raises(ValueError, match="at least one round"):
            decode_bench.bench({}, (1,), rounds=rounds, steps=steps)


def test_the_command(monkeypatch, capsys):
    monkeypatch.setattr(decode_bench, "arms", lambda preset, device: {"moe": tiny()})
    assert (
        main(["bench", "decode", "--batches", "2", "--rounds", "1", "--device", "cpu"]) == 2
    )  # 32 positions
    assert "do not fit" in capsys.readouterr().err
    monkeypatch.setattr(
        decode_bench, "bench", lambda models, batches, rounds: [DecodeSpeed("moe", 2, (1.0,), 8)]
    )
    assert main(["bench", "decode", "--batches", "2", "--device", "cpu"]) == 0
    assert "tokens/s" in capsys.readouterr().out
    assert main(["bench", "decode", "--batches", "0"]) == 2
