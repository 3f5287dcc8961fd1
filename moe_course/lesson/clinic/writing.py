"""A router with context in a small model of random text, which nobody can predict."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from moe_course.moe.router import top_k_gate

WORDS = 8  # of the random text
LENGTH = 6  # words that are predicted in one text


@dataclass(frozen=True, eq=False)
class RandomText:
    """A small model that was trained on texts of random words, which nobody can predict.

    loss: cross-entropy of the next word by step, nats. whole: the same on new texts, each given as a whole; by_word:
    when each text is given word by word, as in writing. chance: log V, the least that a forecast can reach.
    """

    loss: list[float]
    whole: float
    by_word: float
    chance: float = math.log(WORDS)


def on_random_text(router: Callable[[Tensor, Tensor], Tensor], seed: int, steps: int = 200) -> RandomText:
    """Train two of eight linear experts, chosen by `router`, to predict the next word of random texts."""
    rng = torch.Generator().manual_seed(seed)
    table_VD = torch.randn(WORDS, 16, generator=rng)
    router_DE = (0.1 * torch.randn(16, 8, generator=rng)).requires_grad_()
    experts_EDV = (0.1 * torch.randn(8, 16, WORDS, generator=rng)).requires_grad_()
    optimizer = torch.optim.Adam([router_DE, experts_EDV], lr=0.03)

    def logits(words_BS: Tensor) -> Tensor:
        x_BSD = table_VD[words_BS]
        probs_TE = router(x_BSD, router_DE).flatten(0, 1)
        weights_TK, idx_TK = top_k_gate(probs_TE, 2)
        out_TEV = torch.einsum("td,edv->tev", x_BSD.flatten(0, 1), experts_EDV)
        chosen_TKV = out_TEV.gather(1, idx_TK[..., None].expand(-1, -1, WORDS))
        return (weights_TK[..., None] * chosen_TKV).sum(dim=1).view(*words_BS.shape, WORDS)

    def loss(words_BS: Tensor) -> Tensor:
        return F.cross_entropy(logits(words_BS[:, :-1]).flatten(0, 1), words_BS[:, 1:].flatten())

    def text(number: int) -> Tensor:
        return torch.randint(WORDS, (number, LENGTH + 1), generator=rng)

    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        ce = loss(text(128))
        ce.backward()
        optimizer.step()
        losses.append(ce.item())
    with torch.no_grad():
        words_BS = text(2048)
        written = torch.stack([logits(words_BS[:, : s + 1])[:, -1] for s in range(LENGTH)], dim=1)
        by_word = F.cross_entropy(written.flatten(0, 1), words_BS[:, 1:].flatten()).item()
        return RandomText(losses, loss(words_BS).item(), by_word)
