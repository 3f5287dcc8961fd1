"""From documents to batches: all tokens of a split in one sequence, and windows cut from it.

Each document is followed by the tokenizer's end token. A window may cross from one document into the next, as is
usual in pre-training; every token is labelled with its domain, so that each loss is counted for the right domain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moe_course.lm.corpus.build import Corpus
from moe_course.lm.corpus.cache import mapped
from moe_course.lm.corpus.tokenizer import Tokenizer
from moe_course.progress import Progress

SHOWN_BYTES = 20_000_000
"""From this size on the encoding of a split shows how far it is."""


@dataclass(frozen=True)
class Tokens:
    """All tokens of a split, in one sequence.

    ids_T: (T,) int32. domain_T: (T,) int8, indices into `domains`. starts: (documents,) int64, the place where each
    document of the split begins. A document ends with the token `end`, and the next one follows.
    """

    ids_T: Tensor
    domain_T: Tensor
    starts: Tensor
    domains: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids_T)


@dataclass(frozen=True)
class Batch:
    """Windows of S + 1 tokens: `inputs_BS` lacks the last token of each, `targets_BS` the first; both are int64.

    domain_BS: the domain of each target, int64.
    """

    inputs_BS: Tensor
    targets_BS: Tensor
    domain_BS: Tensor


def encode_split(corpus: Corpus, tokenizer: Tokenizer, split: str) -> Tokens:
    """The tokens of a split. They are encoded once, piece by piece, and then lie in a file of the cache."""
    documents = corpus.split(split)
    key = hashlib.sha256(tokenizer.to_json().encode("utf-8")).hexdigest()
    name = f"tokens-{corpus.fingerprint[:16]}-{key[:16]}-{split}.bin"

    def encode() -> Iterator[bytes]:
        """The ids of all documents, int32, and then the lengths of the documents, int64."""
        total, lengths = sum(document.size for document in documents), []
        with Progress(f"{split} split encoded", total, "bytes", shown=total > SHOWN_BYTES) as progress:
            for document in documents:
                length = 1
                for ids in tokenizer.encode_pieces(document.pieces()):
                    length += len(ids)
                    yield ids.tobytes()
                    progress.add(int(tokenizer.piece_bytes_V[ids].sum()))
                yield np.int32(tokenizer.end).tobytes()
                lengths.append(length)
        yield np.array(lengths, np.int64).tobytes()

    content = mapped(name, encode) if documents else np.empty(0, np.uint8)
    tail = len(content) - 8 * len(documents)
    lengths = torch.from_numpy(np.array(content[tail:]).view(np.int64))
    labels = torch.tensor([corpus.domains.index(document.domain) for document in documents], dtype=torch.int8)
    one_domain = len(set(labels.tolist())) == 1  # its label need not be stored once for each token
    return Tokens(
        ids_T=torch.from_numpy(content[:tail].view(np.int32)),
        domain_T=labels[:1].expand(tail // 4) if one_domain else labels.repeat_interleave(lengths),
        starts=lengths.cumsum(0) - lengths,
        domains=corpus.domains,
    )


def batches(line: Tokens, batch_size: int, seq_len: int, seed: int, first_step: int = 0) -> Iterator[Batch]:
    """Training batches, without end. Batch number n depends on the seed, the sizes and n, and on nothing else.

    So all models that are trained with one seed see the same batches, and a run that is resumed at step n goes on
    with `first_step=n`. For each epoch the sequence is cut into windows, starting at a random offset; each window is
    used once, in random order.
    """
    count = _count(
        line, batch_size, seq_len, spare=seq_len
    )  # the largest offset leaves this many tokens unused
    if first_step < 0:
        raise ValueError(f"first_step must be at least 0, got {first_step}")
    epoch, order = -1, torch.empty(0, dtype=torch.int64)
    step = first_step
    while True:
        chosen = []
        for n in range(step * batch_size, (step + 1) * batch_size):
            if n // count != epoch:
                epoch = n // count
                order = _epoch(count, seq_len, f"{seed} {epoch}")
            chosen.append(order[n % count])
        yield _cut(line, torch.stack(chosen), seq_len)
        step += 1


def windows(line: Tokens, batch_size: int, seq_len: int) -> Iterator[Batch]:
    """Evaluation batches, in order; no token is a target twice. The last batch may be smaller.

    The first token is no target, since nothing precedes it, nor are the last tokens if fewer than `seq_len` are left.
    """
    count = _count(line, batch_size, seq_len, spare=1)
    for first in range(0, count, batch_size):
        yield _cut(line, torch.arange(first, min(first + batch_size, count)) * seq_len, seq_len)


def spread(line: Tokens, seq_len: int, most: int) -> Batch:
    """At most `most` of the sequences that `windows` gives, at equal distances."""
    count = _count(line, 1, seq_len, spare=1)
    return _cut(line, torch.arange(0, count, max(1, count // most))[:most] * seq_len, seq_len)


def _epoch(count: int, seq_len: int, drawn_from: str) -> Tensor:
    """The places where the windows of an epoch start, in the order in which they are used."""
    seed = int.from_bytes(hashlib.sha256(drawn_from.encode()).digest()[:7], "big")
    draw = torch.Generator().manual_seed(seed)
    offset = torch.randint(seq_len, (1,), generator=draw)
    return torch.randperm(count, generator=draw) * seq_len + offset


def _cut(line: Tokens, starts_B: Tensor, seq_len: int) -> Batch:
    places = starts_B[:, None] + torch.arange(seq_len + 1)
    ids = line.ids_T[places].long()
    return Batch(ids[:, :-1], ids[:, 1:], line.domain_T[places[:, 1:]].long())


def _count(line: Tokens, batch_size: int, seq_len: int, spare: int) -> int:
    """How many windows fit into the sequence when `spare` of its tokens are not used as targets."""
    if batch_size < 1 or seq_len < 1:
        raise ValueError(f"batch_size and seq_len must be at least 1, got {batch_size} and {seq_len}")
    count = (len(line) - spare) // seq_len
    if count < 1:
        raise ValueError(f"{len(line)} tokens are too few for windows of {seq_len} + 1 tokens")
    return count
