"""The decoder: what it computes, what it costs, and what it starts from."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from lm.small import CONTEXT, FFNS, HEADS, MOE, B, D, L, S, V, batch, lm_config, make

from moe_course.config import ModelConfig, MoEConfig
from moe_course.lm import KVCache, LMConfig, Transformer, TransformerBlock
from moe_course.lm.model.transformer import evaluating, rotary_angles, rotate
from moe_course.lm.training.objective import bits_per_byte, cross_entropy, moe_objective
from moe_course.moe import MoELayer, MoEStats
from moe_course.systems.accounting import model_params

torch.set_num_threads(1)


class TestConfig:
    def test_survives_a_trip_through_plain_values(self):
        for ffn in FFNS:
            config = lm_config(ffn, tied=False)
            assert LMConfig.from_dict(config.to_dict()) == config

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"vocab_size": 0}, "vocab_size must be an int of at least 1, got 0"),
            ({"context": 2.0}, r"context .* got 2\.0"),
            ({"ffn": 0}, "ffn must be an int of at least 1, got 0"),
            ({"ffn": True}, "ffn .* got True"),
            ({"tied": 1}, "tied must be True or False, got 1"),
            ({"num_heads": 3}, "d_model = 16 must divide into num_heads = 3"),
            ({"num_heads": 16}, "d_model = 16 .* num_heads = 16 heads of even width"),
            ({"ffn": MoEConfig(**{**MOE, "d_model": 8})}, "d_model = 8 is not the model's 16"),
        ],
    )
    def test_an_error_names_the_values(self, options, complaint):
        with pytest.raises(ValueError, match=complaint):
            lm_config(**options)


@pytest.mark.parametrize("ffn", FFNS)
def test_shapes_and_aux(ffn):
    logits_BSV, aux = make(ffn)(batch(0)[:, :-1])
    assert logits_BSV.shape == (B, S, V)
    layers = 0 if ffn == "dense" else L
    assert len(aux.stats) == len(aux.lb_losses) == len(aux.z_losses) == layers
    assert all(isinstance(stats, MoEStats) and stats.counts_E.sum() == 2 * B * S for stats in aux.stats)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("ffn", FFNS)
def test_an_untrained_model_knows_nothing(ffn, tied):
    """Its loss is near ln V, that of equal probabilities."""
    model = make(ffn, tied=tied, vocab_size=211)
    tokens_BS1 = torch.randint(211, (32, CONTEXT + 1), generator=torch.Generator().manual_seed(1))
    logits_BSV, _ = model(tokens_BS1[:, :-1])
    assert cross_entropy(logits_BSV, tokens_BS1[:, 1:]).item() == pytest.approx(math.log(211), abs=0.05)


def test_depth_does_not_make_activations_grow():
    """The residual stream of a deep model has the size of a shallow one's."""

    def size(layers):
        model = make(96, num_layers=layers, d_model=64)
        streams = []
        model.norm.register_forward_pre_hook(lambda _, inputs: streams.append(inputs[0]))
        model(batch(0)[:, :-1])
        return streams[0].square().mean().sqrt().item()

    assert size(16) == pytest.approx(size(2), rel=0.4)


def test_the_generator_alone_decides_the_weights():
    first, again, other = (make("everything", seed=seed).state_dict() for seed in (3, 3, 4))
    for name, value in first.items():
        assert torch.equal(value, again[name]), name
        if value.std() > 0:
            assert not torch.equal(value, other[name]), name


@pytest.mark.parametrize("ffn", ["dense", "moe"])
def test_later_tokens_change_nothing_before_them(ffn):
    model = make(ffn).double()
    tokens_BS = batch(0)
    changed_BS = tokens_BS.clone()
    changed_BS[:, 4] = (changed_BS[:, 4] + 1) % V
    before, after = (model(tokens)[0] for tokens in (tokens_BS, changed_BS))
    torch.testing.assert_close(after[:, :4], before[:, :4], rtol=0, atol=1e-12)
    assert ((after - before)[:, 4:].abs().amax(dim=(0, 2)) > 1e-6).all(), "and something from there on"


def test_the_order_of_earlier_tokens_matters():
    """Without positions, attention would see them as a set."""
    model = make("dense", num_layers=1).double()
    one, other = torch.tensor([[3, 8, 5]]), torch.tensor([[8, 3, 5]])
    assert (model(one)[0] - model(other)[0])[0, -1].abs().max() > 1e-5


def turned(x, start):
    return rotate(x, rotary_angles(x.shape[-2], x.shape[-1], start))


def test_rotation_depends_on_distance_alone():
    q, k = torch.randn(2, 1, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    products = [(turned(q, 5 + shift) * turned(k, 2 + shift)).sum().item() for shift in (0, 1, 9)]
    assert products == pytest.approx([products[0]] * 3, rel=1e-5)
    assert (turned(q, 5) * turned(k, 3)).sum().item() != pytest.approx(products[0], rel=1e-3)
    assert torch.equal(turned(q, 0), q)


def test_rotation_by_hand():
    """Width 4 at position 2: channels 0 and 2 turn by 2, channels 1 and 3 by 2/100."""
    x = torch.tensor([[1.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    expected = [math.cos(2), math.cos(0.02), math.sin(2), math.sin(0.02)]
    assert turned(x, 2)[0].tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("ffn", FFNS)
@pytest.mark.parametrize("cuts", [[1] * S, [3, 1, 3], [S]], ids=str)
def test_with_a_cache_the_logits_are_those_of_the_whole(ffn, cuts):
    model, tokens_BS = make(ffn).double(), batch(0)[:, :S]
    cache = KVCache(L)
    with evaluating(model):
        whole_BSV, _ = model(tokens_BS)
        parts = [model(piece, cache)[0] for piece in tokens_BS.split(cuts, dim=1)]
    assert cache.length == S
    torch.testing.assert_close(torch.cat(parts, dim=1), whole_BSV, rtol=0, atol=1e-6)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("ffn", ["dense", "moe", "shared"])
def test_parameters_are_those_of_the_accounting(ffn, tied):
    config = lm_config(ffn, tied=tied)
    moe = config.ffn if isinstance(config.ffn, MoEConfig) else None
    same = ModelConfig(
        vocab_size=V, d_model=D, num_layers=L, num_heads=HEADS, num_kv_heads=HEADS, head_dim=D // HEADS,
        d_ff_expert=moe.d_ff if moe else 0, num_experts=moe.num_experts if moe else 0,
        top_k=moe.top_k if moe else 0, num_shared=moe.num_shared if moe else 0,
        d_ff_shared=moe.d_ff_shared if moe else 0, num_dense_layers=0 if moe else L,
        d_ff_dense=0 if moe else config.ffn, tied_embeddings=tied,
    )  # fmt: skip
    assert make(ffn, tied=tied).num_params() == model_params(same)


def test_another_layer_takes_the_place_of_ours():
    """The layer a learner has put together, with the same start."""

    class Own(MoELayer):
        pass

    usual = make("everything")
    own = Transformer(lm_config("everything"), torch.Generator().manual_seed(0), moe_layer=Own)
    assert all(isinstance(block.ffn, Own) for block in own.blocks)
    with evaluating(usual), evaluating(own):
        assert torch.equal(own(batch(0))[0], usual(batch(0))[0])


@pytest.mark.slow
def test_compiles():
    model = make("moe", num_layers=1)
    compiled = torch.compile(model, backend="aot_eager")
    logits_BSV, aux = compiled(batch(0)[:, :-1])
    expected_BSV, expected = model(batch(0)[:, :-1])
    torch.testing.assert_close(logits_BSV, expected_BSV, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(aux.lb_losses, expected.lb_losses)


@pytest.mark.parametrize("ffn", [24, MoEConfig(**{**MOE, "top_k": 5})], ids=["dense", "all experts"])
def test_autocast_computes_in_bfloat16_and_keeps_parameters_in_float32(ffn):
    model, tokens_BS = make(ffn), batch(0)[:, :-1]
    with torch.autocast("cpu", torch.bfloat16):
        logits_BSV, _ = model(tokens_BS)
    logits_BSV.float().square().sum().backward()
    assert logits_BSV.dtype == torch.bfloat16
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}
    torch.testing.assert_close(logits_BSV.float(), model(tokens_BS)[0], rtol=0.1, atol=0.03)


class TestBlock:
    def test_calls_any_ffn_once_and_hands_its_aux_on(self):
        calls = []

        def ffn(x_BSD):
            calls.append(x_BSD)
            return 2 * x_BSD, "aux"

        block = TransformerBlock(D, HEADS, ffn)
        x_BSD = torch.randn(B, S, D, generator=torch.Generator().manual_seed(0))
        y_BSD, aux = block(x_BSD)
        assert aux == "aux"
        assert len(calls) == 1
        middle_BSD = y_BSD - 2 * calls[0]
        torch.testing.assert_close(calls[0], F.rms_norm(middle_BSD, (D,), eps=1e-6), rtol=1e-4, atol=1e-5)

    def test_gains_start_at_one_and_modules_are_registered(self):
        block = make("moe").blocks[0]
        assert (block.attention_norm.weight == 1).all()
        assert (block.ffn_norm.weight == 1).all()
        assert any(name.startswith("ffn.") for name, _ in block.named_parameters())


@pytest.mark.parametrize("ffn", FFNS)
def test_nothing_is_read_from_the_device(ffn):
    """Forward, objective and backward on the meta device, where there are no values to read."""
    with torch.device("meta"):
        model = Transformer(lm_config(ffn))
        tokens_BS1 = torch.zeros(B, S + 1, dtype=torch.long)
    logits_BSV, aux = model(tokens_BS1[:, :-1])
    ce = cross_entropy(logits_BSV, tokens_BS1[:, 1:])
    moe_objective(ce, aux.lb_losses, aux.z_losses, 0.01, 0.001).backward()
    assert {p.grad.device.type for p in model.parameters()} == {"meta"}


class TestObjective:
    def test_means_over_layers(self):
        ce, lb, z = torch.tensor(2.0), [torch.tensor(1.0), torch.tensor(4.0)], torch.tensor([3.0, 5.0])
        assert moe_objective(ce, lb, z, 0.1, 0.01).item() == pytest.approx(2 + 0.25 + 0.04)
        assert moe_objective(ce, [], torch.tensor([]), 0.1, 0.01).item() == 2

    def test_bits_per_byte(self):
        """At ln 2 nats a token and 3 tokens in 6 bytes each byte has half a bit."""
        assert bits_per_byte(math.log(2), 3, 6) == pytest.approx(0.5)
        with pytest.raises(ValueError, match="got 3 and 0"):
            bits_per_byte(1.0, 3, 0)


def test_every_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        lm_config().context = 3
