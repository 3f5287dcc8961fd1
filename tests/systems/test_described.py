"""`explain` counts any MoE class of transformers without knowing it, and refuses by name what it cannot count."""

import json
from typing import Any

import pytest
import torch
from systems.test_published_models import PUBLIC

from moe_course.published import MODELS
from moe_course.systems import described
from moe_course.systems.described import describe, read_config
from moe_course.systems.footprint import serving_sizes

transformers = pytest.importorskip("transformers")

LAYERS = 5
E_AND_K = {  # what each class calls the number of its experts, and of those that a token gets
    "num_experts num_experts_per_tok": "afmoe beam cohere2_moe exaone_moe flex_olmo flint hy_v3 jamba laguna olmoe"
    " qwen2_moe qwen3_5_moe qwen3_next zaya",
    "n_routed_experts num_experts_per_tok": "axk1 axk2 deepseek_v3 deepseek_v32 deepseek_v4 glm4_moe glm4_moe_lite"
    " glm_moe_dsa hy_v4 mimo_v2_flash nemotron_h solar_open",
    "num_local_experts num_experts_per_tok": "gpt_oss granitemoe granitemoe_swa granitemoeshared kolibri1 llama4_text"
    " mellum minimax minimax_m2 mixtral phimoe qwen3_moe",
    "num_experts num_experts_per_token": "kimi_linear",
    "moe_num_experts moe_k": "ernie4_5_moe",
}
KINDS = [(kind, *fields.split()) for fields, kinds in E_AND_K.items() for kind in kinds.split()]


def short(kind: str, **changes: Any) -> Any:
    """The class's default configuration with a few layers, so that it is built in a moment."""
    config = transformers.CONFIG_MAPPING[kind](**changes)
    config = getattr(config, "text_config", config)
    before = config.num_hidden_layers
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == before:
            setattr(config, name, value[:LAYERS])
    config.num_hidden_layers = LAYERS
    return config


@pytest.mark.parametrize(("kind", "experts", "choices"), KINDS)
def test_every_class_of_transformers_is_counted_as_its_configuration_says(kind, experts, choices):
    config = short(kind)
    found = described.describe_config(kind, config)
    total, active = found.params
    sizes = found.sizes
    assert (sizes.num_experts, sizes.top_k) == (getattr(config, experts), getattr(config, choices))
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert total == sizes.total_params == sum(parameter.numel() for parameter in model.parameters())
    assert 1 <= sizes.moe_layers <= LAYERS
    idle = sizes.moe_layers * (sizes.num_experts - sizes.top_k) * sizes.expert_params
    assert active == total - idle
    assert sizes.kv_values > 0
    assert found.parts["router"][0] > 0
    assert found.parts.get("other", (0, 0))[0] < 0.01 * total


@pytest.mark.parametrize(
    ("kind", "said"), [("longcat_flash", "LongcatFlashExperts"), ("jetmoe", "meta"), ("deepseek_v2", "k")]
)
def test_what_cannot_be_counted_is_refused_by_its_name(kind, said):
    with pytest.raises(ValueError, match=f"{kind!r} cannot be explained.*{said}"):
        described.describe_config(kind, short(kind))


def test_a_configuration_with_experts_that_are_not_found_is_refused(monkeypatch):
    monkeypatch.setattr(described, "_probe", lambda *_: ({}, 0))
    with pytest.raises(ValueError, match=r"num_local_experts.*no experts were found"):
        described.describe_config("mixtral", short("mixtral"))


def test_a_dense_model_has_no_experts():
    found = described.describe_config("qwen3", short("qwen3"))
    assert found.sizes.moe_layers == 0
    assert found.params[0] == found.params[1]


@pytest.mark.parametrize("name", ["mixtral-8x7b", "olmoe-1b-7b", "qwen3-30b-a3b", "deepseek-v3"])
def test_the_counted_class_and_the_preset_agree(name, tmp_path):
    """In every part, total and active, and in the sizes of serving: two independent ways."""
    (tmp_path / "config.json").write_text(json.dumps(PUBLIC[name].to_dict()))
    counted, preset = describe(str(tmp_path)), describe(name)
    assert counted.params == preset.params
    assert counted.sizes == preset.sizes == serving_sizes(MODELS[name])
    assert counted.parts == preset.parts


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no configuration"),
        ("[]", "is no configuration"),
        ('{"model_type": "no-such-model"}', "no architecture 'no-such-model'"),
        ('{"hidden_size": 8}', "model_type"),
        ('{"model_type": "mixtral", "hidden_size": "big"}', "'hidden_size' expected int, got str"),
        ('{"model_type": "mixtral", "num_local_experts": 0}', "num_local_experts = 0 is no size"),
        (
            '{"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 8}',
            "_tok = 8 of num_local",
        ),
        ('{"model_type": "qwen3_moe", "num_experts_per_tok": 0}', "num_experts_per_tok = 0"),
        ('{"model_type": "deepseek_v3", "n_group": 5}', "no multiple of n_group = 5"),
        (
            '{"model_type": "mixtral", "hidden_size": 100, "num_attention_heads": 7}',
            "num_attention_heads = 7",
        ),
    ],
)
def test_files_that_are_no_configuration(tmp_path, content, said):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        describe(str(tmp_path))


def test_a_setting_of_sampling_is_no_number_of_experts(tmp_path):
    """Files written by transformers 4 may hold it."""
    (tmp_path / "config.json").write_text('{"model_type": "mixtral", "top_k": 50}')
    assert read_config(str(tmp_path)).num_experts_per_tok == 2


def test_a_name_that_is_nothing():
    with pytest.raises(ValueError, match=r"'mixtral-9x9b' is neither .* mixtral-8x7b"):
        describe("mixtral-9x9b")
