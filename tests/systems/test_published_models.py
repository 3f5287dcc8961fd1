"""Published parameter counts by an independent route: the `transformers` classes, on the meta device.

The sizes are written out again here from the public config.json files, in the names that those files use, so
that a slip in `moe_course.published` cannot hide behind itself. On the meta device no memory is allocated.
"""

import json
from pathlib import Path

import pytest

from moe_course.config import LatentAttention, ModelConfig
from moe_course.published import MODELS, PRESETS
from moe_course.systems import activations_per_token, breakdown, flops_per_token, model_params
from moe_course.systems.timeline import RECORDED, TIMELINE, count, record, timeline_table

transformers = pytest.importorskip("transformers")

QWEN3 = {"vocab_size": 151_936, "head_dim": 128, "attention_bias": False}
PUBLIC = {
    "mixtral-8x7b": transformers.MixtralConfig(
        vocab_size=32_000, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8, num_local_experts=8, num_experts_per_tok=2,
        tie_word_embeddings=False,
    ),
    "mixtral-8x22b": transformers.MixtralConfig(
        vocab_size=32_000, hidden_size=6144, intermediate_size=16_384, num_hidden_layers=56,
        num_attention_heads=48, num_key_value_heads=8, num_local_experts=8, num_experts_per_tok=2,
        tie_word_embeddings=False,
    ),
    "olmoe-1b-7b": transformers.OlmoeConfig(
        vocab_size=50_304, hidden_size=2048, intermediate_size=1024, num_hidden_layers=16,
        num_attention_heads=16, num_key_value_heads=16, num_experts=64, num_experts_per_tok=8,
        attention_bias=False, tie_word_embeddings=False,
    ),
    "qwen3-30b-a3b": transformers.Qwen3MoeConfig(
        **QWEN3, hidden_size=2048, intermediate_size=6144, moe_intermediate_size=768, num_hidden_layers=48,
        num_attention_heads=32, num_key_value_heads=4, num_experts=128, num_experts_per_tok=8,
        decoder_sparse_step=1, mlp_only_layers=[], tie_word_embeddings=False,
    ),
    "qwen3-235b-a22b": transformers.Qwen3MoeConfig(
        **QWEN3, hidden_size=4096, intermediate_size=12_288, moe_intermediate_size=1536, num_hidden_layers=94,
        num_attention_heads=64, num_key_value_heads=4, num_experts=128, num_experts_per_tok=8,
        decoder_sparse_step=1, mlp_only_layers=[], tie_word_embeddings=False,
    ),
    "mistral-7b": transformers.MistralConfig(
        vocab_size=32_000, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8, tie_word_embeddings=False,
    ),
    "qwen3-8b": transformers.Qwen3Config(
        **QWEN3, hidden_size=4096, intermediate_size=12_288, num_hidden_layers=36,
        num_attention_heads=32, num_key_value_heads=8, tie_word_embeddings=False,
    ),
    "qwen3-0.6b": transformers.Qwen3Config(
        **QWEN3, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28,
        num_attention_heads=16, num_key_value_heads=8, tie_word_embeddings=True,
    ),
    "qwen1.5-moe-a2.7b": transformers.Qwen2MoeConfig(
        vocab_size=151_936, hidden_size=2048, moe_intermediate_size=1408, shared_expert_intermediate_size=5632,
        num_hidden_layers=24, num_attention_heads=16, num_key_value_heads=16, num_experts=60,
        num_experts_per_tok=4, tie_word_embeddings=False,
    ),
    "qwen2-57b-a14b": transformers.Qwen2MoeConfig(
        vocab_size=151_936, hidden_size=3584, moe_intermediate_size=2560, shared_expert_intermediate_size=20_480,
        num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4, num_experts=64,
        num_experts_per_tok=8, tie_word_embeddings=False,
    ),
    "dbrx": transformers.DbrxConfig(
        vocab_size=100_352, d_model=6144, n_heads=48, n_layers=40,
        attn_config={"kv_n_heads": 8, "clip_qkv": 8.0, "rope_theta": 500_000},
        ffn_config={"hidden_size": 6144, "ffn_hidden_size": 10_752, "moe_num_experts": 16, "moe_top_k": 4},
        tie_word_embeddings=False,
    ),
    "deepseek-v2": transformers.DeepseekV2Config(
        vocab_size=102_400, hidden_size=5120, intermediate_size=12_288, moe_intermediate_size=1536,
        num_hidden_layers=60, first_k_dense_replace=1, num_attention_heads=128, num_key_value_heads=128,
        n_routed_experts=160, num_experts_per_tok=6, n_shared_experts=2, q_lora_rank=1536, kv_lora_rank=512,
        qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, tie_word_embeddings=False,
    ),
    "deepseek-v3": transformers.DeepseekV3Config(
        vocab_size=129_280, hidden_size=7168, intermediate_size=18_432, moe_intermediate_size=2048,
        num_hidden_layers=61, first_k_dense_replace=3, num_attention_heads=128, num_key_value_heads=128,
        n_routed_experts=256, num_experts_per_tok=8, n_shared_experts=1, q_lora_rank=1536, kv_lora_rank=512,
        qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, tie_word_embeddings=False,
    ),
    "llama-4-scout": transformers.Llama4TextConfig(
        vocab_size=202_048, hidden_size=5120, intermediate_size=8192, intermediate_size_mlp=16_384,
        num_hidden_layers=48, num_attention_heads=40, num_key_value_heads=8, head_dim=128, num_local_experts=16,
        num_experts_per_tok=1, interleave_moe_layer_step=1, tie_word_embeddings=False,
    ),
    "llama-4-maverick": transformers.Llama4TextConfig(
        vocab_size=202_048, hidden_size=5120, intermediate_size=8192, intermediate_size_mlp=16_384,
        num_hidden_layers=48, num_attention_heads=40, num_key_value_heads=8, head_dim=128, num_local_experts=128,
        num_experts_per_tok=1, interleave_moe_layer_step=2, tie_word_embeddings=False,
    ),
    "kimi-k2": transformers.DeepseekV3Config(
        vocab_size=163_840, hidden_size=7168, intermediate_size=18_432, moe_intermediate_size=2048,
        num_hidden_layers=61, first_k_dense_replace=1, num_attention_heads=64, num_key_value_heads=64,
        n_routed_experts=384, num_experts_per_tok=8, n_shared_experts=1, q_lora_rank=1536, kv_lora_rank=512,
        qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, n_group=1, topk_group=1,
        tie_word_embeddings=False,
    ),
}  # fmt: skip

EXACT = {  # total, active
    "mixtral-8x7b": (46_702_792_704, 12_879_925_248),
    "mixtral-8x22b": (140_620_634_112, 39_152_031_744),
    "olmoe-1b-7b": (6_919_161_856, 1_282_017_280),
    "qwen3-30b-a3b": (30_532_122_624, 3_353_032_704),
    "deepseek-v3": (671_026_404_352, 37_552_282_624),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_the_preset_counts_what_transformers_builds(name):
    ours, theirs = MODELS[name], PUBLIC[name]
    assert model_params(ours) == count(theirs, ours.num_experts, ours.top_k)


@pytest.mark.parametrize("name", EXACT)
def test_the_exact_figures(name):
    assert model_params(MODELS[name]) == EXACT[name]


def test_deepseek_moe_has_the_published_size():
    """16.4B parameters, 2.8B of them active: DeepSeekMoE, arXiv 2401.06066, section 5."""
    total, active = model_params(PRESETS["deepseek-moe-16b"])
    assert (round(total / 1e9, 1), round(active / 1e9, 1)) == (16.4, 2.8)


@pytest.mark.parametrize("name", sorted(PUBLIC.keys() & PRESETS.keys()))
def test_the_sizes_agree_one_by_one(name):
    """A total can hide two errors that cancel; FLOPs and key-value caches depend on the sizes themselves."""
    ours, theirs = PRESETS[name], PUBLIC[name]
    assert {
        "vocab_size": ours.vocab_size,
        "hidden_size": ours.d_model,
        "num_hidden_layers": ours.num_layers,
        "num_attention_heads": ours.num_heads,
        "num_key_value_heads": ours.num_kv_heads,
        "num_experts_per_tok": ours.top_k,
        "tie_word_embeddings": ours.tied_embeddings,
        "head_dim": ours.head_dim,
    } == {
        "vocab_size": theirs.vocab_size,
        "hidden_size": theirs.hidden_size,
        "num_hidden_layers": theirs.num_hidden_layers,
        "num_attention_heads": theirs.num_attention_heads,
        "num_key_value_heads": theirs.num_key_value_heads,
        "num_experts_per_tok": getattr(theirs, "num_experts_per_tok", 0),
        "tie_word_embeddings": theirs.tie_word_embeddings,
        "head_dim": getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads,
    }


def test_dense_first_layers_and_shared_experts():
    """No preset above has both; dots.llm1 is built so, and its class serves at any size."""
    theirs = transformers.Dots1Config(
        vocab_size=101, hidden_size=24, intermediate_size=50, moe_intermediate_size=14, num_hidden_layers=5,
        first_k_dense_replace=2, num_attention_heads=6, num_key_value_heads=3, head_dim=8, n_routed_experts=7,
        num_experts_per_tok=4, n_shared_experts=3, n_group=1, topk_group=1, tie_word_embeddings=False,
    )  # fmt: skip
    ours = ModelConfig(
        vocab_size=101, d_model=24, d_ff_dense=50, d_ff_expert=14, num_layers=5, num_dense_layers=2,
        num_heads=6, num_kv_heads=3, head_dim=8, num_experts=7, top_k=4, num_shared=3, d_ff_shared=14,
        qk_norm="head",
    )  # fmt: skip
    assert model_params(ours) == count(theirs, num_experts=7, top_k=4)


@pytest.mark.parametrize(("q_rank", "num_shared"), [(10, 2), (0, 1)])
def test_latent_attention_with_odd_sizes(q_rank, num_shared):
    """Sizes that all differ, and queries without a latent of their own (DeepSeek-V2-Lite)."""
    theirs = transformers.DeepseekV3Config(
        vocab_size=101, hidden_size=24, intermediate_size=50, moe_intermediate_size=14, num_hidden_layers=5,
        first_k_dense_replace=2, num_attention_heads=6, num_key_value_heads=6, q_lora_rank=q_rank or None,
        kv_lora_rank=7, qk_nope_head_dim=9, qk_rope_head_dim=4, v_head_dim=5, n_routed_experts=8,
        num_experts_per_tok=3, n_shared_experts=num_shared, n_group=1, topk_group=1, tie_word_embeddings=False,
    )  # fmt: skip
    ours = ModelConfig(
        vocab_size=101, d_model=24, d_ff_dense=50, d_ff_expert=14, num_layers=5, num_dense_layers=2,
        num_heads=6, num_kv_heads=6, head_dim=13, num_experts=8, top_k=3, num_shared=num_shared, d_ff_shared=14,
        latent=LatentAttention(q_rank=q_rank, kv_rank=7, nope_dim=9, rope_dim=4, value_dim=5),
    )  # fmt: skip
    assert model_params(ours) == count(theirs, num_experts=8, top_k=3)


def test_every_model_of_the_timeline_is_counted_by_a_second_route():
    """DeepSeekMoE has no class in `transformers`; its published size is checked above. The others are recorded."""
    assert {release.model for release in TIMELINE} & MODELS.keys() <= PUBLIC.keys() | {"deepseek-moe-16b"}
    months = [release.month for release in TIMELINE]
    assert months == sorted(months)


def test_the_table_has_a_row_for_each_release():
    rows = [row.split() for row in timeline_table().splitlines()[2:]]
    assert len(rows) == len(TIMELINE)
    assert max(map(len, timeline_table().splitlines())) <= 100
    (v3,) = (row for row in rows if row[0] == "DeepSeek-V3")
    assert v3[1:9] == ["2024-12", "8", "of", "256", "1", "0.29", "671.0B", "37.6B"]


def test_the_recorded_models_are_what_the_pinned_classes_build():
    """`python -m moe_course.systems.timeline` records them."""
    old, new = json.loads(RECORDED.read_text(encoding="utf-8")), json.loads(record())
    lock = (Path(__file__).parents[2] / "requirements.lock").read_text(encoding="utf-8")
    assert f"transformers=={old['transformers']}\n" in lock  # a new pin needs a new record
    if old["transformers"] != new["transformers"]:
        pytest.skip(f"recorded with transformers {old['transformers']}, here is {new['transformers']}")
    assert new == old


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("gpt-oss-120b", 117, 5.1),
        ("Qwen3-Next-80B", 80, 3),
        ("GLM-5", 744, 40),
        ("DeepSeek-V4-Flash", 284, 13),
    ],
)
def test_the_recorded_models_have_the_size_that_was_announced(name, total, active):
    """gpt-oss: arXiv 2508.10925, which does not count the input embedding as active, as the others may not."""
    (release,) = (release for release in TIMELINE if release.name == name)
    assert round(release.sizes.total / 1e9) == total
    assert active <= release.sizes.active / 1e9 < 1.35 * active


def test_balancing_follows_one_rule():
    """A coefficient that stands in the default configuration of a class is not "not stated"."""
    for release in TIMELINE:
        family = (
            release.model if release.model not in MODELS else type(PUBLIC.get(release.model)).__name__[:-6]
        )
        config = getattr(transformers, f"{family}Config", None)
        if config is not None and getattr(config(), "router_aux_loss_coef", None):
            assert release.balancing != "not stated", release.name


def test_latent_attention_costs_what_its_products_cost():
    """FLOPs of a short model by hand: every matrix once, and per position a score and a sum of each head."""
    config = ModelConfig(
        vocab_size=101, d_model=24, d_ff_expert=14, num_layers=2, num_heads=6, num_kv_heads=6, head_dim=13,
        num_experts=8, top_k=3, latent=LatentAttention(q_rank=10, kv_rank=7, nope_dim=9, rope_dim=4, value_dim=5),
    )  # fmt: skip
    attention = 24 * 10 + 10 * 6 * 13 + 24 * (7 + 4) + 7 * 6 * (9 + 5) + 6 * 5 * 24
    layer = attention + 24 * 8 + 3 * 3 * 24 * 14
    assert breakdown(config)["attention"] == (2 * attention, 2 * attention)
    assert flops_per_token(config) == 2 * (2 * layer + 101 * 24)
    assert flops_per_token(config, context=9) == flops_per_token(config) + 2 * 2 * 9 * 6 * (13 + 5)
    values = 4 * 24 + 2 * 6 * (13 + 5) + 2 * (10 + 7) + 8 + 3 * (4 * 14 + 3 * 24 + 1)
    assert activations_per_token(config) == 2 * values + 2 * 24 + 101
