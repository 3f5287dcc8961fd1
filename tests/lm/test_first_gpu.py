"""The first half hour on a GPU, rehearsed on a CPU."""

import json
import subprocess
import types
from pathlib import Path

import pytest
import torch

from moe_course.command.cli import main
from moe_course.lm.experiment import first_gpu, recipe
from moe_course.lm.experiment.first_gpu import PARTS

torch.set_num_threads(1)


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.setenv("MOE_COURSE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "poem.txt"
    path.write_text("the router sends each token to an expert, and the queue waits\n" * 300, encoding="utf-8")
    return f"text:{path}"


def test_a_rehearsal_does_every_part_and_writes_both_files(text, tmp_path, monkeypatch):
    commands = []

    def run(command, **_):
        commands.append(command)
        return types.SimpleNamespace(returncode=0, stdout="42 tests collected\n")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(torch, "compile", lambda model: model)
    target = tmp_path / "gpu.json"
    assert main(["bench", "gpu", "--device", "cpu", "--data", text, "--json", str(target)]) == 0
    found = json.loads(target.read_text(encoding="utf-8"))
    assert found["rehearsal"]
    errors = {name: found[name]["error"] for name in PARTS if "error" in found[name]}
    assert not errors
    assert not [name for name, row in found["variants"].items() if "error" in row]
    assert "gpu" in commands[0], "the tests that are marked so"
    assert found["resume"]["difference"] == 0, "on a CPU to the bit"
    assert found["grouped"]["zeros"]
    assert 0 <= found["one step"]["idle"] < 1
    arms = found["arms"]
    assert set(arms) == set(recipe.ARMS)
    assert all(row["tokens/s"] == pytest.approx(8 * 16 / row["seconds"]) for row in arms.values())
    steps = recipe.PRESETS["h100"].plan.steps
    assert found["hour"]["training"] == pytest.approx(steps * arms["moe"]["seconds"])
    page = target.with_suffix(".md").read_text(encoding="utf-8")
    assert page.startswith("# A rehearsal without a GPU")
    assert all(f"## {name.capitalize()}" in page for name in PARTS)


def test_without_a_gpu_it_refuses_and_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "gpu"]) != 0
    assert "bench gpu needs a GPU, and PyTorch finds none here; --device cpu" in capsys.readouterr().err


def test_a_part_that_fails_is_recorded_and_the_next_one_begins(text):
    of = first_gpu.session(None, text, torch.device("cpu"))
    parts = {
        "arms": lambda of, found: {}["nothing"],
        "hour": lambda of, found: {"after": list(found)},
    }
    said = []
    found = first_gpu.record(of, said.append, parts)
    assert found["arms"] == {"error": "KeyError: 'nothing'"}
    assert "arms" in found["hour"]["after"]
    assert len(said) == 2
    assert "KeyError" in first_gpu.page(found)


def test_the_page_has_what_is_computed_now():
    page = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text(encoding="utf-8")
    assert first_gpu.computed() in page


@pytest.mark.parametrize(("capability", "preset"), [((7, 5), "t4"), ((8, 0), "h100"), ((9, 0), "h100")])
def test_the_preset_suits_the_gpu(monkeypatch, capability, preset):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(
        first_gpu.trial.Text,
        "of",
        lambda *_: types.SimpleNamespace(tokenizer=types.SimpleNamespace(vocab_size=300)),
    )
    of = first_gpu.session(None, "default", torch.device("cuda"))
    assert of.preset == preset
    assert of.chosen.plan == recipe.recipe(preset, "moe").plan, "nothing is made smaller on a GPU"
