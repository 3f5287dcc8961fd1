"""Parameters, FLOPs and bytes: by hand, and against what PyTorch itself counts."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from moe_course.config import ModelConfig
from moe_course.moe import init_experts, moe_loop, swiglu_ffn
from moe_course.published import PRESETS
from moe_course.systems import (
    activations_per_token,
    active_matched_d_ff,
    breakdown,
    ffn_flops,
    ffn_params,
    flops_per_token,
    format_table,
    model_params,
    moe_ffn_params,
    training_memory,
    weight_bytes,
)

T, D, F, E, K, S = 6, 5, 3, 7, 4, 2

# Small enough to count by hand: 4 query heads and 2 key-value heads of 3, on a model width of 10.
TINY = ModelConfig(
    vocab_size=100, d_model=10, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=3,
    d_ff_expert=6, num_experts=7, top_k=4, num_shared=2, d_ff_shared=5, num_dense_layers=1, d_ff_dense=20,
)  # fmt: skip


class TestOneLayer:
    def test_ffn_params_are_the_numbers_in_three_matrices(self):
        assert ffn_params(D, F) == sum(w[0].numel() for w in init_experts(1, D, F)) == 45

    def test_ffn_flops_are_what_pytorch_counts(self):
        weights = [w[0] for w in init_experts(1, D, F)]
        with FlopCounterMode(display=False) as counter:
            swiglu_ffn(torch.zeros(T, D), *weights)
        assert ffn_flops(T, D, F) == counter.get_total_flops() == 540

    def test_an_expert_without_tokens_costs_nothing(self):
        assert ffn_flops(0, D, F) == 0

    def test_moe_ffn_params_by_hand(self):
        """Router 5·7 = 35, one expert 45: total 35 + 9·45, active 35 + 6·45 with two shared experts."""
        assert moe_ffn_params(D, F, E, K) == (35 + 7 * 45, 35 + 4 * 45)
        assert moe_ffn_params(D, F, E, K, num_shared=S) == (440, 305)

    def test_moe_loop_computes_the_active_parameters(self):
        idx_TK = torch.arange(T * K).reshape(T, K) % E
        with FlopCounterMode(display=False) as counter:
            moe_loop(torch.zeros(T, D), torch.zeros(T, K), idx_TK, *init_experts(E, D, F))
        router = D * E
        assert counter.get_total_flops() == 2 * T * (moe_ffn_params(D, F, E, K)[1] - router)

    def test_all_experts_active_means_active_is_total(self):
        total, active = moe_ffn_params(D, F, E, E, num_shared=S)
        assert total == active

    def test_active_matched_d_ff_by_hand(self):
        assert active_matched_d_ff(14_336, 2) == 7168
        assert active_matched_d_ff(30, K, num_shared=S) == 5

    def test_matched_experts_cost_what_the_dense_layer_costs(self):
        d_ff = active_matched_d_ff(30, K, num_shared=S)
        assert (K + S) * ffn_flops(T, D, d_ff) == ffn_flops(T, D, 30)

    def test_results_are_python_ints(self):
        results = [
            ffn_params(D, F),
            ffn_flops(T, D, F),
            *moe_ffn_params(D, F, E, K),
            active_matched_d_ff(8, 2),
        ]
        assert {type(result) for result in [*results, *model_params(TINY)]} == {int}

    @pytest.mark.parametrize(
        ("function", "arguments", "offending"),
        [
            (ffn_params, (0, F), "d_model .*0"),
            (ffn_params, (D, -3), "d_ff .*-3"),
            (ffn_flops, (-1, D, F), "num_tokens .*-1"),
            (ffn_flops, (T, 0, F), "d_model .*0"),
            (moe_ffn_params, (0, F, E, K), "d_model .*0"),
            (moe_ffn_params, (D, 0, E, K), "d_ff .*0"),
            (moe_ffn_params, (D, F, 0, K), "num_experts .*0"),
            (moe_ffn_params, (D, F, E, 0), "top_k .*0"),
            (moe_ffn_params, (D, F, E, E + 1), "top_k .*8"),
            (moe_ffn_params, (D, F, E, K, -1), "num_shared .*-1"),
            (active_matched_d_ff, (0, K), "d_ff_dense .*0"),
            (active_matched_d_ff, (12, 0), "top_k .*0"),
            (active_matched_d_ff, (12, K, -1), "num_shared .*-1"),
            (active_matched_d_ff, (12, K, 1), r"12 .*4 \+ 1"),
        ],
    )
    def test_bad_values_are_named(self, function, arguments, offending):
        with pytest.raises(ValueError, match=offending):
            function(*arguments)


class TestModelParams:
    def test_every_component_by_hand(self):
        assert breakdown(TINY) == {
            "embeddings": (2 * 100 * 10,) * 2,
            "attention": (3 * (10 * 12 + 10 * 6 + 10 * 6 + 12 * 10),) * 2,  # q, k, v, output
            "biases": (0, 0),
            "norms": (3 * 2 * 10 + 10,) * 2,
            "dense FFN": (3 * 10 * 20,) * 2,
            "router": (2 * 10 * 7,) * 2,
            "shared experts": (2 * 2 * 3 * 10 * 5,) * 2,
            "routed experts": (2 * 7 * 3 * 10 * 6, 2 * 4 * 3 * 10 * 6),
        }
        assert model_params(TINY) == (7010, 5930)

    def test_tied_embeddings_count_once_in_either_number(self):
        tied = model_params(replace(TINY, tied_embeddings=True))
        assert tied == (7010 - 1000, 5930 - 1000)

    def test_norms_of_queries_and_keys(self):
        per_head, full = (model_params(replace(TINY, qk_norm=norm)) for norm in ("head", "full"))
        assert per_head == (7010 + 3 * (3 + 3), 5930 + 3 * (3 + 3))
        assert full == (7010 + 3 * (12 + 6), 5930 + 3 * (12 + 6))

    @pytest.mark.parametrize("name", ["mistral-7b", "qwen3-8b", "qwen3-0.6b"])
    def test_a_dense_model_uses_everything(self, name):
        total, active = model_params(PRESETS[name])
        assert total == active

    def test_mixtral_is_mistral_with_more_ffns(self):
        mixtral, mistral = model_params(PRESETS["mixtral-8x7b"]), model_params(PRESETS["mistral-7b"])
        ffn, router = 32 * ffn_params(4096, 14_336), 32 * 4096 * 8
        assert mixtral == (mistral[0] + 7 * ffn + router, mistral[1] + 1 * ffn + router)

    def test_unused_widths_count_nothing(self):
        unused = replace(TINY, num_shared=0, num_dense_layers=0)
        assert model_params(unused) == model_params(replace(unused, d_ff_shared=0, d_ff_dense=0))


class TestFlops:
    def test_by_hand(self):
        """Without norms and input embedding 5930 − 70 − 1000 weights; attention 3·4·12 for each position."""
        assert flops_per_token(TINY) == 2 * 4860
        assert flops_per_token(TINY, context=9) == 2 * 4860 + 9 * 3 * 4 * 12

    def test_tying_the_embeddings_saves_no_compute(self):
        assert flops_per_token(replace(TINY, tied_embeddings=True)) == flops_per_token(TINY)

    @pytest.mark.parametrize("num_experts", [0, 7])
    def test_a_forward_pass_of_transformers_costs_as_much(self, num_experts):
        """PyTorch counts the matrix products of a whole model. Its eager attention computes all S² scores."""
        transformers = pytest.importorskip("transformers")
        theirs = transformers.MixtralConfig if num_experts else transformers.MistralConfig
        routed = {"num_local_experts": num_experts, "num_experts_per_tok": K} if num_experts else {}
        network_config = theirs(
            vocab_size=50, hidden_size=10, intermediate_size=8, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, head_dim=6, **routed,
        )  # fmt: skip
        network_config._attn_implementation = network_config._experts_implementation = "eager"
        network = transformers.AutoModelForCausalLM.from_config(network_config).eval()
        num_tokens = 9
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.arange(num_tokens)[None], use_cache=False)

        ours = ModelConfig(
            vocab_size=50, d_model=10, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=6,
            d_ff_expert=8, num_experts=num_experts, top_k=K if num_experts else 0,
            num_dense_layers=0 if num_experts else 3, d_ff_dense=8,
        )  # fmt: skip
        more = counter.get_total_flops() - num_tokens * flops_per_token(ours, context=num_tokens)
        rotations = 2 * num_tokens * 6 // 2  # position times frequency; some versions do it as a product
        assert more in (0, rotations)

    def test_bad_values_are_named(self):
        with pytest.raises(ValueError, match=r"context .*-1"):
            flops_per_token(TINY, context=-1)


class TestMemory:
    def test_weights_are_total_parameters(self):
        assert weight_bytes(TINY) == 2 * 7010
        assert weight_bytes(TINY, bytes_per_value=4) == 4 * 7010

    def test_training_holds_sixteen_bytes_a_parameter_and_the_activations(self):
        memory = training_memory(TINY, num_tokens=11)
        activations = memory.pop("activations")
        assert sum(memory.values()) == 16 * 7010
        assert activations == 11 * 4 * activations_per_token(TINY)

    def test_activations_by_hand(self):
        attention = 4 * 10 + (2 * 4 + 2 * 2) * 3  # two norms in and out; q, k, v and the output
        dense = 4 * 20
        moe = 7 + 4 * (4 * 6 + 3 * 10 + 1) + 2 * 4 * 5
        assert activations_per_token(TINY) == 3 * attention + dense + 2 * moe + 2 * 10 + 100

    def test_more_experts_cost_memory_but_hardly_an_activation(self):
        more = replace(TINY, num_experts=70)
        assert weight_bytes(more) > 3 * weight_bytes(TINY)
        assert (
            activations_per_token(more) == activations_per_token(TINY) + 2 * 63
        )  # the router's probabilities

    def saved_values(self, function, x_TD, weights):
        """Floating-point values that autograd saves for the backward pass, weights and x itself left out."""
        saved = {}

        def pack(tensor):
            if tensor.is_floating_point():
                saved[tensor.untyped_storage().data_ptr()] = tensor  # kept alive, so an address is not reused
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            result = function()
        for known in (x_TD, *weights):
            saved.pop(known.untyped_storage().data_ptr(), None)
        assert result.requires_grad
        return sum(tensor.numel() for tensor in saved.values())

    def test_a_dense_layer_saves_four_values_per_hidden_unit(self):
        x_TD = torch.randn(T, D).requires_grad_()
        weights = [w[0].clone().requires_grad_() for w in init_experts(1, D, F)]
        assert self.saved_values(lambda: swiglu_ffn(x_TD, *weights), x_TD, weights) == T * 4 * F

    def test_moe_loop_saves_what_is_counted_for_its_assignments(self):
        x_TD, weights_TK = torch.randn(T, D).requires_grad_(), torch.rand(T, K).requires_grad_()
        idx_TK = torch.arange(T * K).reshape(T, K) % E
        experts = [w.requires_grad_() for w in init_experts(E, D, F)]
        saved = self.saved_values(lambda: moe_loop(x_TD, weights_TK, idx_TK, *experts), x_TD, experts)
        assert saved == T * K * (4 * F + 3 * D + 1)

    @pytest.mark.parametrize(
        ("call", "offending"),
        [
            (lambda: weight_bytes(TINY, 0), "bytes_per_value .*0"),
            (lambda: training_memory(TINY, 0), "num_tokens .*0"),
            (lambda: training_memory(TINY, 1, -4), "bytes_per_value .*-4"),
        ],
    )
    def test_bad_values_are_named(self, call, offending):
        with pytest.raises(ValueError, match=offending):
            call()


class TestTable:
    def test_mixtral(self):
        table = format_table(PRESETS["mixtral-8x7b"], "mixtral-8x7b")
        lines = [" ".join(line.split()) for line in table.splitlines()]
        assert lines[0] == "mixtral-8x7b: 32 layers, 2 of 8 experts per token"
        for line in [
            "embeddings 262,144,000 262,144,000 100.0%",
            "routed experts 45,097,156,608 11,274,289,152 25.0%",
            "sum 46,702,792,704 12,879,925,248 27.6%",
            "weights 93.4 GB in bf16, 186.8 GB in fp32",
            "training state 747.2 GB: weights, gradients and Adam's two moments in fp32",
            "forward pass 25.50 GFLOPs per token, and 2.15 to attend to 4,096 positions",
        ]:
            assert line in lines
        assert "shared experts" not in table
        assert "dense FFN" not in table

    def test_shared_and_dense_parts_are_named(self):
        table = format_table(PRESETS["deepseek-moe-16b"], "deepseek-moe-16b")
        assert "28 layers, 1 of them dense, 6 of 64 experts per token, and 2 shared" in table
        assert "shared experts" in table
        assert "dense FFN" in table

    @pytest.mark.parametrize("name", PRESETS)
    def test_every_preset_prints_within_a_screen(self, name):
        table = format_table(PRESETS[name], name)
        assert table.startswith(f"{name}: ")
        assert max(len(line) for line in table.splitlines()) <= 100
        assert f"{model_params(PRESETS[name])[0]:,}" in table
