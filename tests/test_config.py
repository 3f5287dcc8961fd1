"""What describes a model: which sizes belong together."""

from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import pytest

import moe_course
from moe_course.config import LatentAttention, ModelConfig
from moe_course.published import MODELS, PRESETS, model

BEYOND = ("latent", "qkv_bias", "shared_gate")  # what notebook 06's models need; exercise 1.6 does without
SIZES = [f.name for f in fields(ModelConfig) if f.name not in ("tied_embeddings", "qk_norm", *BEYOND)]
LATENT = LatentAttention(q_rank=6, kv_rank=5, nope_dim=3, rope_dim=1, value_dim=2)
ALWAYS_POSITIVE = ["vocab_size", "d_model", "num_layers", "num_heads", "num_kv_heads", "head_dim"]
MOE = ModelConfig(
    vocab_size=97, d_model=20, num_layers=5, num_heads=6, num_kv_heads=3, head_dim=4,
    d_ff_expert=11, num_experts=7, top_k=4, num_shared=2, d_ff_shared=13, num_dense_layers=1, d_ff_dense=17,
)  # fmt: skip
DENSE = replace(MOE, num_dense_layers=5, d_ff_expert=0, num_experts=0, top_k=0, num_shared=0, d_ff_shared=0)


def test_the_fields_are_the_contract():
    assert {f.name: f.default for f in fields(ModelConfig) if f.name in SIZES[9:]} == {
        "num_shared": 0, "d_ff_shared": 0, "num_dense_layers": 0, "d_ff_dense": 0,
    }  # fmt: skip
    assert [f.name for f in fields(ModelConfig)] == [
        "vocab_size", "d_model", "num_layers", "num_heads", "num_kv_heads", "head_dim", "d_ff_expert",
        "num_experts", "top_k", "num_shared", "d_ff_shared", "num_dense_layers", "d_ff_dense",
        "tied_embeddings", "qk_norm", *BEYOND,
    ]  # fmt: skip
    plain = PRESETS["mixtral-8x7b"]
    assert (plain.tied_embeddings, plain.qk_norm) == (False, "none")
    assert all(not getattr(config, name) for config in PRESETS.values() for name in BEYOND)
    assert not any(name in repr(plain) for name in BEYOND)


def test_a_config_cannot_be_edited_and_takes_keywords_only():
    with pytest.raises(FrozenInstanceError):
        MOE.top_k = 1
    with pytest.raises(TypeError):
        ModelConfig(97, 20, 5, 6, 3, 4, 11, 7, 4)


@pytest.mark.parametrize("field", SIZES)
@pytest.mark.parametrize("value", [-1, 2.0, True, "8", None])
def test_every_size_is_an_int_and_not_negative(field, value):
    with pytest.raises(ValueError, match=rf"{field} .*{value!r}"):
        replace(MOE, **{field: value})


@pytest.mark.parametrize("field", ALWAYS_POSITIVE)
@pytest.mark.parametrize("config", [MOE, DENSE], ids=["moe", "dense"])
def test_some_sizes_are_never_zero(config, field):
    with pytest.raises(ValueError, match=rf"{field} must be positive, got 0"):
        replace(config, **{field: 0})


@pytest.mark.parametrize("field", ["d_ff_expert", "num_experts", "top_k", "d_ff_shared", "d_ff_dense"])
def test_what_the_layers_use_is_not_zero(field):
    with pytest.raises(ValueError, match=rf"{field} must be positive, got 0"):
        replace(MOE, **{field: 0})


def test_without_moe_layers_the_expert_sizes_may_be_zero_or_unused():
    assert DENSE.num_moe_layers == 0
    assert replace(MOE, num_dense_layers=5).num_moe_layers == 0
    with pytest.raises(ValueError, match="num_experts must be positive, got 0"):
        replace(DENSE, num_dense_layers=4)


def test_a_width_that_no_layer_uses_is_allowed():  # Qwen3-30B-A3B's config.json has one
    assert replace(MOE, num_dense_layers=0).d_ff_dense == 17
    assert replace(MOE, num_shared=0).d_ff_shared == 13


@pytest.mark.parametrize("top_k", [1, 7])
def test_any_top_k_up_to_the_number_of_experts(top_k):
    assert replace(MOE, top_k=top_k).top_k == top_k


def test_more_experts_than_there_are_cannot_be_chosen():
    with pytest.raises(ValueError, match=r"top_k = 8.*7"):
        replace(MOE, top_k=8)


def test_key_value_heads_are_shared_evenly():
    with pytest.raises(ValueError, match=r"6 heads.*4 key-value heads"):
        replace(MOE, num_kv_heads=4)


def test_dense_layers_are_among_the_layers():
    with pytest.raises(ValueError, match=r"6 dense layers.*5 layers"):
        replace(MOE, num_dense_layers=6)


def test_other_values_are_named():
    with pytest.raises(ValueError, match="'layer'"):
        replace(MOE, qk_norm="layer")
    with pytest.raises(ValueError, match=r"tied_embeddings .*1"):
        replace(MOE, tied_embeddings=1)


def test_latent_attention_has_sizes_that_fit():
    assert replace(MOE, latent=LATENT).latent is LATENT
    assert replace(LATENT, q_rank=0).q_rank == 0
    with pytest.raises(ValueError, match=r"head_dim = 5 .*nope_dim=3, rope_dim=1"):
        replace(MOE, head_dim=5, latent=LATENT)
    for name, value in (
        ("q_rank", -1),
        ("kv_rank", 0),
        ("value_dim", 2.0),
        ("rope_dim", 0),
        ("nope_dim", True),
    ):
        with pytest.raises(ValueError, match=rf"{name} .*{value!r}"):
            replace(LATENT, **{name: value})
    with pytest.raises(ValueError, match=r"qkv_bias .*1"):
        replace(MOE, qkv_bias=1)


def test_an_unknown_model_lists_the_known_ones():
    assert model("olmoe-1b-7b") is PRESETS["olmoe-1b-7b"]
    with pytest.raises(ValueError, match="'mixtral'.*" + ", ".join(MODELS)):
        model("mixtral")


def test_dense_presets_have_no_experts():
    dense = {name for name, config in PRESETS.items() if not config.num_moe_layers}
    assert dense == {"mistral-7b", "qwen3-8b", "qwen3-0.6b"}
    assert all(PRESETS[name].num_experts == PRESETS[name].top_k == 0 for name in dense)


def test_the_sizes_of_published_models_have_one_home():
    package = Path(moe_course.__file__).parent
    sources = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    assert [path.name for path, source in sources.items() if "ModelConfig(\n" in source] == ["published.py"]
