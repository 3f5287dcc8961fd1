"""Published parameter counts by an independent route: the `transformers` classes, on the meta device.

The sizes are written out again here from the public config.json files, in the names that those files use, so
that a slip in `moe_course.config` cannot hide behind itself. On the meta device no memory is allocated.
"""

import pytest
import torch

from moe_course.config import PRESETS, ModelConfig
from moe_course.systems import model_params

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
}  # fmt: skip

EXACT = {  # total, active
    "mixtral-8x7b": (46_702_792_704, 12_879_925_248),
    "mixtral-8x22b": (140_620_634_112, 39_152_031_744),
    "olmoe-1b-7b": (6_919_161_856, 1_282_017_280),
    "qwen3-30b-a3b": (30_532_122_624, 3_353_032_704),
}


def count(config, num_experts: int, top_k: int) -> tuple[int, int]:
    """(total, active) parameters of a `transformers` model; of the experts' parameters top_k/E are active."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}  # tied ones come once
    routed = sum(size for name, size in sizes.items() if ".mlp.experts." in name)
    assert bool(routed) == bool(num_experts)
    total = sum(sizes.values())
    return total, total - routed + (routed * top_k // num_experts if num_experts else 0)


@pytest.mark.parametrize("name", PUBLIC)
def test_the_preset_counts_what_transformers_builds(name):
    ours, theirs = PRESETS[name], PUBLIC[name]
    assert model_params(ours) == count(theirs, ours.num_experts, ours.top_k)


@pytest.mark.parametrize("name", EXACT)
def test_the_exact_figures(name):
    assert model_params(PRESETS[name]) == EXACT[name]


def test_deepseek_moe_has_the_published_size():
    """16.4B parameters, 2.8B of them active: DeepSeekMoE, arXiv 2401.06066, section 5."""
    total, active = model_params(PRESETS["deepseek-moe-16b"])
    assert (round(total / 1e9, 1), round(active / 1e9, 1)) == (16.4, 2.8)


@pytest.mark.parametrize("name", PUBLIC)
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
