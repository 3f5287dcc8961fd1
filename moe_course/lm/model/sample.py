"""From logits to text: one token at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from moe_course.lm.model.transformer import KVCache, Transformer, evaluating


def sample_next(logits_V: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> int:
    """Draw a token from the nucleus: the smallest set of likeliest tokens whose probability reaches top_p.

    Probabilities are softmax(logits / temperature); temperature 0 takes the likeliest token and draws nothing.
    All randomness comes from `generator`. Raises ValueError for a negative temperature or top_p outside 0..1.
    Source: Holtzman et al. 2020, arXiv 1904.09751, section 3.1.
    """
    if not temperature >= 0:
        raise ValueError(f"temperature must not be negative, got {temperature}")
    if not 0 <= top_p <= 1:
        raise ValueError(f"top_p must be in 0..1, got {top_p}")
    if temperature == 0:
        return int(logits_V.argmax())
    logits_V = logits_V.detach().to(generator.device, torch.float64)
    probs_V = ((logits_V - logits_V.max()) / temperature).softmax(dim=-1)
    sorted_V, order_V = probs_V.sort(descending=True, stable=True)
    before_V = sorted_V.cumsum(dim=0) - sorted_V  # the probability of all likelier tokens
    outside_V = before_V >= top_p
    outside_V[0] = False  # the likeliest token is always in the nucleus
    chosen = torch.multinomial(sorted_V.masked_fill(outside_V, 0), 1, generator=generator)
    return int(order_V[chosen])


def generate(
    model: Transformer,
    prompt: Sequence[int],
    num_tokens: int,
    temperature: float = 0.8,
    top_p: float = 0.95,
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """Continue a prompt: yields num_tokens tokens as they come.

    When the text is longer than the model's context, only the last half of the context is kept and the model goes on
    from there, so it never attends further than it was trained to. generator: torch's default one unless given.
    Raises ValueError for an empty prompt.
    """
    if not len(prompt):
        raise ValueError("the prompt is empty; give at least one token")
    generator = generator or torch.default_generator
    device = model.embedding.weight.device
    context = model.config.context
    text = list(prompt)
    cache, unseen = KVCache(model.config.num_layers), text[-context:]
    for _ in range(num_tokens):
        if cache.length + len(unseen) > context:
            cache, unseen = KVCache(model.config.num_layers), text[-max(context // 2, 1) :]
        with evaluating(model):
            logits_BSV, _ = model(torch.tensor([unseen], device=device), cache)
        token = sample_next(logits_BSV[0, -1], temperature, top_p, generator)
        unseen = [token]
        text.append(token)
        yield token
