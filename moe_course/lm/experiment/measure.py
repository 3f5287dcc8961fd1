"""What a trained model can do with text that it has not seen: its loss by domain, and the facts that it recalls."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from moe_course.lm.corpus.batching import Batch, Tokens, windows
from moe_course.lm.corpus.facts import Cloze
from moe_course.lm.corpus.tokenizer import Tokenizer
from moe_course.lm.model.transformer import Transformer, evaluating
from moe_course.lm.training import parallel
from moe_course.lm.training.objective import bits_per_byte


@dataclass(frozen=True)
class Loss:
    """The loss on some text: the nats of all its tokens together, the number of tokens, and the number of bytes."""

    nats: float
    tokens: int
    bytes: int

    @property
    def ce(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def bpb(self) -> float:
        """Bits per byte."""
        return bits_per_byte(self.ce, self.tokens, self.bytes)

    def __add__(self, other: Loss) -> Loss:
        return Loss(self.nats + other.nats, self.tokens + other.tokens, self.bytes + other.bytes)


def loss_by_domain(
    model: Transformer, line: Tokens, tokenizer: Tokenizer, batch_size: int = 16, shared: bool = False
) -> dict[str, Loss]:
    """The loss on a split, for the targets of each domain; domains without a target are left out.

    shared: each process computes its share of the windows; all of them must call this.
    """
    rank, size = parallel.rank_and_size() if shared else (0, 1)
    nats_G = torch.zeros(len(line.domains), dtype=torch.float64)
    tokens_G, bytes_G = (torch.zeros(len(line.domains), dtype=torch.int64) for _ in range(2))
    piece_bytes_V = torch.from_numpy(tokenizer.piece_bytes_V).long()
    device = model.embedding.weight.device
    with evaluating(model):
        for batch in itertools.islice(windows(line, batch_size, model.config.context), rank, None, size):
            ce_BS = token_losses(model, batch, device).cpu()
            domain_T, targets_T = batch.domain_BS.flatten(), batch.targets_BS.flatten()
            nats_G.index_add_(0, domain_T, ce_BS.flatten().double())
            tokens_G.index_add_(0, domain_T, torch.ones_like(targets_T))
            bytes_G.index_add_(0, domain_T, piece_bytes_V[targets_T])
    if size > 1:
        sums = parallel.totals([nats_G.to(device), tokens_G.to(device), bytes_G.to(device)])
        nats_G, tokens_G, bytes_G = (total.cpu() for total in sums)
    found = zip(line.domains, nats_G.tolist(), tokens_G.tolist(), bytes_G.tolist(), strict=True)
    return {domain: Loss(nats, tokens, size) for domain, nats, tokens, size in found if tokens}


def token_losses(model: Transformer, batch: Batch, device: torch.device) -> Tensor:
    """ce_BS: the loss of each target, in nats."""
    logits_BSV, _ = model(batch.inputs_BS.to(device))
    return F.cross_entropy(logits_BSV.float().mT, batch.targets_BS.to(device), reduction="none")


def recall(model: Transformer, tokenizer: Tokenizer, questions: Sequence[Cloze], at_once: int = 32) -> float:
    """The share of questions whose right answer gets the highest probability of the four; guessing gives a quarter.

    The probability is that of the whole answer and the full stop after it: an answer that is the beginning of another
    one would win too often otherwise. Raises ValueError if there is no question.
    """
    if not questions:
        raise ValueError("there are no questions to ask")
    right = 0
    for first in range(0, len(questions), at_once):
        asked = questions[first : first + at_once]
        texts = [(q.prompt, option) for q in asked for option in q.options]
        scores = iter(log_probs(model, tokenizer, texts))
        for question in asked:
            by_option = {option: next(scores) for option in question.options}
            right += max(by_option, key=by_option.__getitem__) == question.answer
    return right / len(questions)


def log_probs(model: Transformer, tokenizer: Tokenizer, texts: Sequence[tuple[str, str]]) -> list[float]:
    """log p(answer and full stop | prompt) of each (prompt, answer), in nats. An end token comes first."""
    rows = []
    for prompt, answer in texts:
        before = [tokenizer.end, *tokenizer.encode(prompt)]
        after = tokenizer.encode(f"{answer}.")
        rows.append((before + after, len(before)))
    longest = max(len(ids) for ids, _ in rows)
    padded = torch.tensor(
        [ids + [tokenizer.end] * (longest - len(ids)) for ids, _ in rows]
    )  # a causal model never attends to padding on the right
    device = model.embedding.weight.device
    with evaluating(model):
        logits_BSV, _ = model(padded[:, :-1].to(device))
        log_p_BS = (
            logits_BSV.float().log_softmax(-1).gather(2, padded[:, 1:, None].to(device)).squeeze(2).cpu()
        )
    return [log_p_BS[row, start - 1 : len(ids) - 1].sum().item() for row, (ids, start) in enumerate(rows)]
