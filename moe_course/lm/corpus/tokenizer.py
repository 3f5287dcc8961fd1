"""Tokenizers: byte-level BPE (Sennrich et al., arXiv:1508.07909; bytes as in GPT-2), or one token a character.

Both encode any text, and decoding gives it back exactly. The last id, `end`, closes a document; it stands for no
bytes, and no text contains it.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cached_property

import numpy as np
import tokenizers
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from moe_course.lm.corpus.build import Corpus
from moe_course.lm.corpus.cache import cached

BYTES = 256

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not outlive a fork, and it warns


class Tokenizer(ABC):
    """Text to ids and back. `pieces` holds the bytes of each id; `end`, the last id, has none."""

    pieces: tuple[bytes, ...]

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of a text, without `end`. Raises ValueError for half of a surrogate pair, which is not text."""

    @abstractmethod
    def to_json(self) -> str:
        """The whole tokenizer, to be read by `tokenizer_from_json`."""

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    @property
    def end(self) -> int:
        return len(self.pieces) - 1

    @cached_property
    def piece_bytes_V(self) -> np.ndarray:
        """The number of bytes of each id, (V,). Summed over all targets it is the divisor of bits per byte."""
        return np.array([len(piece) for piece in self.pieces], dtype=np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids. What is not UTF-8, such as half a character of a sample, becomes U+FFFD."""
        return b"".join(self.pieces[self._checked(i)] for i in ids).decode("utf-8", errors="replace")

    def _checked(self, i: int) -> int:
        if not 0 <= i < self.vocab_size:
            raise ValueError(f"id {i} is outside the vocabulary of {self.vocab_size}")
        return int(i)


class BytePairs(Tokenizer):
    """Byte pair encoding of Hugging Face `tokenizers`."""

    def __init__(self, model: HuggingFaceTokenizer) -> None:
        self._model = model
        byte_of = {character: byte for byte, character in _byte_characters().items()}
        names = {i: name for name, i in model.get_vocab().items()}
        self.pieces = (*(bytes(byte_of[c] for c in names[i]) for i in range(len(names))), b"")

    def encode(self, text: str) -> list[int]:
        _check_text(text)
        return list(
            self._model.encode_batch_fast([text])[0].ids
        )  # the fast method leaves out where each token stands in the text

    def to_json(self) -> str:
        return json.dumps({"level": "bpe", "model": self._model.to_str()})


class Characters(Tokenizer):
    """A token for each character of the alphabet; any other character becomes a token for each of its bytes."""

    def __init__(self, alphabet: str) -> None:
        self.alphabet = alphabet
        self._id_of = {character: i for i, character in enumerate(alphabet)}
        self.pieces = (*(c.encode("utf-8") for c in alphabet), *(bytes([b]) for b in range(BYTES)), b"")

    def encode(self, text: str) -> list[int]:
        _check_text(text)
        ids: list[int] = []
        for character in text:
            known = self._id_of.get(character)
            ids += (
                [known] if known is not None else [len(self.alphabet) + b for b in character.encode("utf-8")]
            )
        return ids

    def to_json(self) -> str:
        return json.dumps({"level": "char", "alphabet": self.alphabet})


def train_tokenizer(corpus: Corpus, vocab_size: int = 1024, level: str = "bpe") -> Tokenizer:
    """A tokenizer that is trained on the training split, and kept in the cache.

    `level` is "bpe" (vocab_size ids, among them `end` and the 256 bytes; fewer if the text has no more pairs to
    merge) or "char" (the alphabet, 256 bytes and `end`; the argument vocab_size is then ignored).
    """
    if level == "char":
        return Characters("".join(sorted({c for document in corpus.train for c in document.text})))
    if level != "bpe":
        raise ValueError(f"no level {level!r}; there are 'bpe' and 'char'")
    if vocab_size < BYTES + 1:
        raise ValueError(f"vocab_size must be at least {BYTES + 1}, every byte and the end, got {vocab_size}")
    name = f"bpe-{corpus.fingerprint[:16]}-{vocab_size}-{tokenizers.__version__}.json"
    return tokenizer_from_json(cached(name, lambda: _train(corpus, vocab_size)).decode("utf-8"))


def tokenizer_from_json(text: str) -> Tokenizer:
    """The tokenizer whose `to_json` gave the text. Raises ValueError if the text is something else."""
    try:
        content = json.loads(text)
        if content["level"] == "char":
            return Characters(content["alphabet"])
        return BytePairs(HuggingFaceTokenizer.from_str(content["model"]))
    except Exception as error:  # `tokenizers` raises bare Exception
        raise ValueError(f"not a tokenizer: {text[:60]!r}") from error


def _train(corpus: Corpus, vocab_size: int) -> bytes:
    model = HuggingFaceTokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,  # the end token is not in the BPE model, so that no text can contain it
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model.train_from_iterator((document.text for document in corpus.train), trainer)
    return BytePairs(model).to_json().encode("utf-8")


def _byte_characters() -> dict[int, str]:
    """The character that byte-level BPE writes for each byte: the same one if it is printable (GPT-2, encoder.py)."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = (byte for byte in range(BYTES) if byte not in printable)
    return {byte: chr(byte) for byte in printable} | {byte: chr(BYTES + n) for n, byte in enumerate(others)}


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} is half a surrogate pair, {text[error.start]!r}"
        ) from error
