"""What notebook 10 takes of the language model: its sizes, its routing as a server sees it, its experts in 8 bits."""

import pytest
import torch

from moe_course.config import MoEConfig
from moe_course.lesson.serving import Texts, with_experts_stored
from moe_course.lm.model.lm_config import LMConfig
from moe_course.lm.model.transformer import Transformer
from moe_course.systems.serving import dequantize_int8, expected_distinct_experts, quantize_int8
from moe_course.systems.traces import distinct_per_step

L, B, S, K, E = 2, 6, 4, 2, 8
FFN = MoEConfig(d_model=16, d_ff=12, num_experts=E, top_k=K)


def small(ffn=FFN, tied=True, seed=0):
    config = LMConfig(vocab_size=24, d_model=16, num_layers=L, num_heads=2, context=32, ffn=ffn, tied=tied)
    return Transformer(config, torch.Generator().manual_seed(seed))


@pytest.fixture
def texts():
    """Window w at position s of layer l chooses the experts 10 l + w and s, so that every place can be recognised."""
    w_B11, s_S1 = torch.arange(B)[:, None, None], torch.arange(S)[:, None]
    layers = [
        torch.cat([(10 * layer + w_B11).expand(B, S, 1), s_S1.expand(B, S, 1)], dim=2) for layer in range(L)
    ]
    return Texts(torch.stack(layers), torch.tensor([0, 0, 0, 0, 1, 1]))


def test_a_batch_of_texts_has_one_position_of_each(texts):
    idx_SBK = texts.side_by_side(1, 3, torch.Generator().manual_seed(0))
    assert idx_SBK.shape == (2 * S, 3, K)
    assert all(len(step[:, 0].unique()) == 3 and len(step[:, 1].unique()) == 1 for step in idx_SBK)


def test_a_batch_of_one_domain_mixes_no_domains(texts):
    idx_SBK = texts.one_domain(0, 2, torch.Generator().manual_seed(0))
    assert len(idx_SBK) == 3 * S
    assert all(len({w < 4 for w in step[:, 0].tolist()}) == 1 for step in idx_SBK)


def test_neighbours_follow_each_other_in_one_text(texts):
    idx_SBK = texts.neighbours(0, 2)
    assert len(idx_SBK) == B * S // 2
    assert all(len(step[:, 0].unique()) == 1 and step[1, 1] - step[0, 1] == 1 for step in idx_SBK)


def test_readers_take_turns(texts):
    one = texts.as_one_stream(1, torch.Generator().manual_seed(0))
    assert one.shape == (L, B * S, K)
    assert one[0, :S, 0].unique().numel() == 1
    three = texts.as_one_stream(3, torch.Generator().manual_seed(0))
    assert len(three[0, :3, 0].unique()) == 3
    assert three[0, :3, 1].tolist() == [0, 0, 0]


def test_shuffling_keeps_the_load(texts):
    idx_SBK = texts.shuffled(1, 4, torch.Generator().manual_seed(0))
    assert idx_SBK.flatten().sort().values.tolist() == texts.idx_LBSK[1].flatten().sort().values.tolist()


def test_a_batch_larger_than_the_texts_is_refused(texts):
    with pytest.raises(ValueError, match="do not make a batch"):
        texts.side_by_side(0, B + 1, torch.Generator())


def test_neighbours_choose_alike_in_untrained_models_with_eight_seeds():
    """The notebook says that neighbours share their past, so fewer experts serve them than shuffled tokens."""
    tokens_BS = torch.randint(24, (16, 32), generator=torch.Generator().manual_seed(1))
    for seed in range(8):
        _, aux = small(seed=seed).eval()(tokens_BS)
        idx_LBSK = torch.stack([stats.idx_TK.unflatten(0, (16, 32)) for stats in aux.stats])
        seen = Texts(idx_LBSK, torch.zeros(16, dtype=torch.int64))
        last = L - 1
        beside = distinct_per_step(seen.neighbours(last, 4), E).double().mean()
        apart = distinct_per_step(seen.shuffled(last, 4, torch.Generator().manual_seed(2)), E).double().mean()
        assert beside < apart - 0.2
        assert apart < expected_distinct_experts(E, K, 4) + 0.1


def test_experts_are_stored_and_nothing_else_changes():
    model = small()
    before = {name: w.clone() for name, w in model.state_dict().items()}
    stored = with_experts_stored(model, quantize_int8, dequantize_int8)
    for name, w in stored.state_dict().items():
        assert torch.equal(model.state_dict()[name], before[name])
        assert torch.equal(w, before[name]) != name.endswith(("w_gate", "w_up", "w_down"))
