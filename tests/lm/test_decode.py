"""Batched decoding: the same as without a cache, and each sequence for itself."""

import pytest
import torch

from moe_course.lm.model.decode import decode
from moe_course.lm.model.lm_config import LMConfig
from moe_course.lm.model.transformer import Transformer, evaluating
from moe_course.moe import MoEConfig

B, S, STEPS = 3, 5, 4


def small():
    ffn = MoEConfig(d_model=16, d_ff=12, num_experts=6, top_k=2)
    config = LMConfig(vocab_size=23, d_model=16, num_layers=2, num_heads=2, context=S + STEPS - 1, ffn=ffn)
    return Transformer(config, torch.Generator().manual_seed(0))


def prompts():
    return torch.randint(23, (B, S), generator=torch.Generator().manual_seed(1))


def test_greedy_decoding_equals_the_whole_sequence_at_once():
    model, text_BS = small(), prompts()
    for tokens_B, aux in decode(model, text_BS.clone(), STEPS):
        with evaluating(model):
            logits_BSV, whole = model(text_BS)
        assert torch.equal(tokens_B, logits_BSV[:, -1].argmax(-1))
        step_idx = aux.stats[-1].idx_TK.view(B, -1, 2)[:, -1]
        assert torch.equal(step_idx, whole.stats[-1].idx_TK.view(B, -1, 2)[:, -1])
        text_BS = torch.cat([text_BS, tokens_B[:, None]], dim=1)


def test_the_first_step_reads_the_prompt_and_the_others_one_token():
    sizes = [len(aux.stats[0].idx_TK) for _, aux in decode(small(), prompts(), STEPS)]
    assert sizes == [B * S, B, B, B]


def test_sequences_do_not_see_each_other():
    model, text_BS = small(), prompts()
    together = torch.stack([tokens for tokens, _ in decode(model, text_BS, STEPS)], dim=1)
    for row in range(B):
        alone = torch.stack([tokens for tokens, _ in decode(model, text_BS[row : row + 1], STEPS)], dim=1)
        assert torch.equal(alone[0], together[row])


def test_draws_come_from_the_generator():
    model = small()

    def drawn(seed):
        generator = torch.Generator().manual_seed(seed)
        return torch.stack([tokens for tokens, _ in decode(model, prompts(), STEPS, generator)]).tolist()

    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


def test_no_more_than_the_context():
    with pytest.raises(ValueError, match="do not fit"):
        next(decode(small(), prompts(), STEPS + 1))
