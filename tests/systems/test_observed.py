"""What `explain --text` sees of a checkpoint's routers: real files, saved and loaded."""

import pytest
import torch

from moe_course.systems import observed
from moe_course.systems.observed import observe, observe_routes, watched

transformers = pytest.importorskip("transformers")

SMALL = dict(vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
CONFIGS = {
    "Mixtral": dict(intermediate_size=24, num_local_experts=6, num_experts_per_tok=2),
    "Olmoe": dict(intermediate_size=24, num_experts=7, num_experts_per_tok=3),
    "Qwen3Moe": dict(moe_intermediate_size=24, num_experts=5, num_experts_per_tok=2, head_dim=8),
    "DeepseekV3": dict(
        num_key_value_heads=4,
        moe_intermediate_size=24, n_routed_experts=8, num_experts_per_tok=2, first_k_dense_replace=1, n_group=2,
        topk_group=1, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8,
    ),
}  # fmt: skip
TEXT = "the expert of the token before " * 20


def model(name: str):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**(SMALL | CONFIGS[name]))
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_checkpoint_is_loaded_and_its_routing_seen(name, tmp_path):
    model(name).save_pretrained(tmp_path)
    found = observe(str(tmp_path), TEXT)
    moe_layers = 1 if name == "DeepseekV3" else 2
    assert (found.tokens, len(found.layers)) == (len(TEXT), moe_layers)
    assert not found.future
    assert not found.batch
    for layer in found.layers:
        assert sum(layer.load_E) == pytest.approx(1)
        assert layer.max_violation == pytest.approx(max(layer.load_E) * len(layer.load_E) - 1)
        assert layer.dead == sum(load == 0 for load in layer.load_E)
        assert 0 < layer.entropy <= 1


def test_the_load_is_that_of_the_router_logits():
    mixtral = model("Mixtral")
    ids = [byte % 97 for byte in TEXT.encode()][: observed.WINDOW]
    logits = mixtral(input_ids=torch.tensor([ids]), output_router_logits=True, use_cache=False).router_logits
    found = observe_routes(*watched(mixtral), ids)
    for layer, logits_TE in zip(found.layers, logits, strict=True):
        counts_E = torch.bincount(logits_TE.topk(2).indices.flatten(), minlength=6)
        assert torch.tensor(layer.load_E) * len(ids) * 2 == pytest.approx(counts_E.float())


def test_a_dead_expert_and_a_repeat_are_seen():
    mixtral = model("Mixtral")
    gate = mixtral.model.layers[0].mlp.gate
    with torch.no_grad():
        gate.weight.zero_()  # all logits equal: every token gets the same two experts
    first = observe_routes(*watched(mixtral), [byte % 97 for byte in TEXT.encode()]).layers[0]
    assert first.dead == 4
    assert first.max_violation == pytest.approx(2)  # two experts share everything: 1/2 against a mean of 1/6
    assert first.repeat == first.even_repeat == 1


def test_a_router_that_reads_later_tokens_is_found_out():
    mixtral = model("Mixtral")
    block = mixtral.model.layers[1].mlp
    own = block.gate.forward
    block.gate.forward = lambda x_TD: own(x_TD + 5 * x_TD.mean(dim=0))  # of all tokens, later ones too
    found = observe_routes(*watched(mixtral), [byte % 97 for byte in TEXT.encode()])
    assert found.future
    assert found.batch


def test_the_first_expert_is_the_one_with_the_largest_weight():
    """Whatever order a router has them in: DeepSeek's asks topk for none."""

    class ThreeExperts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.down = torch.nn.Parameter(torch.zeros(3, 2, 2))

        def forward(self, x_TD, idx_TK, top_k_weights):
            return x_TD

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = ThreeExperts()

        def forward(self, input_ids, use_cache):
            weights_TK = torch.tensor([[0.2, 0.8], [0.6, 0.4]])
            return self.experts(torch.zeros(2, 5), torch.tensor([[0, 2], [1, 0]]), top_k_weights=weights_TK)

    routes, num_experts = watched(Model())
    assert routes(torch.zeros(1, 2).long())["experts"].tolist() == [[2, 0], [1, 0]]
    assert num_experts == {"experts": 3}


def test_what_cannot_be_observed(tmp_path):
    model("Mixtral").config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds no weights"):
        observe(str(tmp_path), TEXT)
    model("Mixtral").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="the text has 1 tokens"):
        observe(str(tmp_path), "a")
    with pytest.raises(ValueError, match="Linear has no experts"):
        observe_routes(*watched(torch.nn.Linear(2, 2)), [1, 2])
