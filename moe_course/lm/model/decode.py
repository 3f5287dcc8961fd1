"""Decoding a batch: every sequence grows by one token a step, with a cache of keys and values."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from moe_course.lm.model.transformer import Aux, KVCache, Transformer, evaluating


def decode(
    model: Transformer, prompts_BS: Tensor, steps: int, generator: torch.Generator | None = None
) -> Iterator[tuple[Tensor, Aux]]:
    """Continue B prompts of the same length: yields the tokens of each step, (B,), and what its routers did.

    The first step reads the prompts (prefill), every later one a single token of each sequence. Tokens are drawn at
    temperature 1 with `generator`; without one the likeliest is taken. Raises ValueError where prompt and steps
    exceed the model's context.
    """
    length, context = prompts_BS.shape[1], model.config.context
    if length + steps - 1 > context:
        raise ValueError(f"a prompt of {length} tokens and {steps} steps do not fit into {context} positions")
    cache, unseen_BS = KVCache(model.config.num_layers), prompts_BS
    for _ in range(steps):
        with evaluating(model):
            logits_BSV, aux = model(unseen_BS, cache)
        last_BV = logits_BSV[:, -1]
        if generator is None:
            tokens_B = last_BV.argmax(dim=-1)
        else:
            probs_BV = last_BV.float().softmax(dim=-1).to(generator.device)
            tokens_B = torch.multinomial(probs_BV, 1, generator=generator)[:, 0].to(prompts_BS.device)
        unseen_BS = tokens_B[:, None]
        yield tokens_B, aux
