"""What notebook 08 sees of a checkpoint: passages of one document each, each token with its domain and experts."""

import sys

import pytest
import torch

from moe_course.lesson import checkpoint
from moe_course.lm.corpus.document import Document
from moe_course.systems.observed import Checkpoint

S = checkpoint.LENGTH
DOMAINS = ("code", "names")


def spelled(layers=("model.layers.1.mlp.experts", "model.layers.3.mlp.experts")):
    """A model that reads letters as numbers: a token's experts are its letter and the one after it, modulo 5."""

    def routes(ids_BS):
        ids_T = ids_BS.flatten() % 5
        return {name: torch.stack([ids_T, (ids_T + 1) % 5], dim=1) for name in layers}

    return Checkpoint(
        "Spelled", routes, dict.fromkeys(layers, 5), lambda text: [ord(c) - ord("a") for c in text]
    )


def documents(*texts):
    return [Document(id=f"{domain}/{n}", domain=domain, text=text) for n, (domain, text) in enumerate(texts)]


def test_passages_lie_in_one_document_and_keep_its_domain():
    found = documents(
        ("code", "a" * (2 * S + 9)), ("names", "b" * (S + 1)), ("code", "c" * (S + 5)), ("names", "d" * 9)
    )
    seen = checkpoint.read(spelled(), found, DOMAINS)
    assert seen.idx_LTK.shape == (2, 4 * S, 2)
    assert seen.first_LBS.tolist() == [[[letter] * S for letter in (0, 0, 1, 2)]] * 2
    assert seen.domain_T.view(-1, S).tolist() == [[label] * S for label in (0, 0, 1, 0)]
    assert seen.layers == ("layer 1", "layer 3")
    assert seen.num_experts == 5


def test_no_document_dominates():
    found = documents(*[("code", letter * (9 * S)) for letter in "abcdefghijklmnopqrstuvwxyz"])
    seen = checkpoint.read(spelled(), found, DOMAINS)
    assert seen.first_LBS.shape[1] == checkpoint.PER_DOCUMENT * checkpoint.DOCUMENTS


def test_documents_that_are_too_short():
    with pytest.raises(ValueError, match=f"no document has {S} tokens"):
        checkpoint.read(spelled(), documents(("code", "ab")), DOMAINS)


def test_without_a_folder_a_random_one_is_made_and_nothing_else_is_random(capsys):
    pytest.importorskip("transformers")
    state = torch.get_rng_state()
    first, second = checkpoint.open_or_make(), checkpoint.open_or_make("")
    assert torch.equal(torch.get_rng_state(), state)
    assert capsys.readouterr().out.count("random weights") == 2
    seen, again = (
        checkpoint.read(one, documents(("code", "if so, so be it; " * 9)), DOMAINS) for one in (first, second)
    )
    assert torch.equal(seen.idx_LTK, again.idx_LTK)
    assert seen.layers == ("layer 0", "layer 1", "layer 2", "layer 3")
    assert seen.idx_LTK.max() < seen.num_experts == 8


def test_a_folder_is_read(tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    config = transformers.DeepseekV3Config(
        vocab_size=97, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
        moe_intermediate_size=24, n_routed_experts=6, num_experts_per_tok=3, first_k_dense_replace=1, n_group=2,
        topk_group=2, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8,
    )  # fmt: skip
    transformers.DeepseekV3ForCausalLM(config).save_pretrained(tmp_path)
    seen = checkpoint.read(
        checkpoint.open_or_make(str(tmp_path)), documents(("names", "thailand " * 9)), DOMAINS
    )
    assert capsys.readouterr().out == "DeepseekV3ForCausalLM: 2 layers with 6 experts each\n"
    assert seen.layers == ("layer 1", "layer 2")  # layer 0 is dense
    assert seen.idx_LTK.shape == (2, 2 * S, 3)
    with pytest.raises(ValueError, match="holds no weights"):
        checkpoint.open_or_make(str(tmp_path / "elsewhere"))


def test_without_transformers_the_section_is_skipped(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "transformers", None)
    found = checkpoint.open_or_make()
    assert checkpoint.read(found, documents(("code", "a" * S)), DOMAINS) is None
    assert "Skipped: reading a config.json needs transformers: pip install" in capsys.readouterr().out
