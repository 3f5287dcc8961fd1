"""`moe-course explain` of a run's folder: the counts of the model itself, and the routing of its checkpoint."""

import json
from dataclasses import replace

import pytest
import torch

from moe_course.command.cli import main
from moe_course.config import MoEConfig
from moe_course.lm.experiment import explained, recipe, trial
from moe_course.lm.model.lm_config import LMConfig
from moe_course.lm.model.transformer import Transformer
from moe_course.lm.training.run_folder import load_model

L, K, E = 2, 2, 8
FFN = MoEConfig(d_model=16, d_ff=12, num_experts=E, top_k=K)


def small(ffn=FFN, tied=True, seed=0):
    config = LMConfig(vocab_size=24, d_model=16, num_layers=L, num_heads=2, context=32, ffn=ffn, tied=tied)
    return Transformer(config, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tied", [True, False])
def test_sizes_of_a_mixture(tied):
    model, sizes = small(tied=tied), explained.sizes_of(small(tied=tied))
    look_up = 0 if tied else 24 * 16
    assert sizes.expert_params == 3 * 16 * 12
    assert (sizes.moe_layers, sizes.num_experts, sizes.top_k, sizes.kv_values) == (L, E, K, L * 2 * 16)
    assert sizes.total_params == sizes.fixed_params + look_up + L * E * sizes.expert_params
    assert (sizes.total_params, sizes.active_params + look_up) == model.num_params()


def test_sizes_of_a_dense_model():
    model = small(ffn=20)
    sizes = explained.sizes_of(model)
    assert sizes.step_bytes(1) == sizes.step_bytes(9) == 2 * sizes.total_params == 2 * model.num_params()[0]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of the mixture and one of dense-active, both of three steps."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "poem.txt").write_text(
        "The owl and the pussycat went to sea in a beautiful pea-green boat.\n" * 20
    )
    data = f"text:{folder / 'poem.txt'}"
    letters = trial.Text.of(data, "char").tokenizer.vocab_size
    for arm in ("moe", "dense-active"):
        chosen = recipe.recipe("cpu", arm, data=data, level="char", vocab_size=letters)
        sizes, plan = replace(chosen.model, context=16), replace(chosen.plan, steps=3, warmup=1)
        chosen = replace(chosen, batch_size=2, model=sizes, plan=plan)
        trial.run_recipe(chosen, folder / arm, progress=False)
    return folder


def asked(capsys, *arguments):
    assert main(["explain", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("arm", ["moe", "dense-active"])
def test_the_parts_add_up_to_the_model(runs, capsys, arm):
    model, said = load_model(runs / arm), asked(capsys, runs / arm, "--gpu", "h100")["parameters"]
    assert (said["total"], said["active"]) == model.num_params()
    assert ("experts" in said["parts"]) == (arm == "moe")


def test_the_routing_is_that_of_the_checkpoint(runs, capsys):
    said = asked(capsys, runs / "moe", "--text", runs / "poem.txt")["routing"]
    model = load_model(runs / "moe")
    ids = trial.read_tokenizer(runs / "moe").encode((runs / "poem.txt").read_text())
    assert said["tokens"] == len(ids)
    counts = 0
    with torch.no_grad():
        for window in torch.tensor(ids).split(model.config.context):
            counts = counts + model(window[None])[1].stats[1].idx_TK.flatten().bincount(minlength=8)
    assert said["layers"][1]["load_E"] == pytest.approx((counts / counts.sum()).tolist())
    assert not said["future"]
    assert not said["batch"]


def test_what_cannot_be_observed_is_said(runs, capsys):
    assert main(["explain", str(runs / "dense-active"), "--text", str(runs / "poem.txt")]) != 0
    assert "is dense: it has no routing" in capsys.readouterr().err
