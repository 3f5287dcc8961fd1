"""Tokenizers: byte-level BPE (Sennrich et al., arXiv:1508.07909; bytes as in GPT-2), or one token a character.

Both encode any text, and decoding gives it back exactly. The last id, `end`, closes a document; it stands for no
bytes, and no text contains it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice

import numpy as np
import tokenizers
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from moe_course.lm.corpus.build import Corpus
from moe_course.lm.corpus.cache import cached
from moe_course.lm.corpus.document import Document
from moe_course.lm.corpus.text_file import FilePart, parts

BYTES = 256
LONGEST = 1 << 13
"""Text is encoded in parts of so many characters: a longer run without white space is cut."""
AT_ONCE = 128
"""So many parts are encoded at a time: a megabyte of Latin text."""
SHARED_FROM = 50_000
"""From so many characters on, threads share the work: to start them takes as long as to encode a few words."""
MOST_KNOWN, WORD_COSTS = 20_000_000, 20
"""About so many characters of words are kept in memory with their ids; each word counts as WORD_COSTS more."""
LEARNT_BYTES, LONGEST_LEARNT, WORDLESS_LEARNT = 20_000_000, 1000, 1_000_000
"""Of a text file: the bytes that byte pairs are learnt from, the characters of a part, and of parts without space."""

_SPACE = re.compile(r"[ \t\n\r]")
_WORD = re.compile(r"[ \t\n\r]*[^ \t\n\r]+|[ \t\n\r]+")
_ODD_SPACE = re.compile(r"[^\S \t\n\r]")
"""Other white space, which may belong to the same token as the blank after it: no place to cut."""

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not outlive a fork, and it warns


class Tokenizer(ABC):
    """Text to ids and back. `pieces` holds the bytes of each id; `end`, the last id, has none."""

    pieces: tuple[bytes, ...]

    @abstractmethod
    def encode_parts(self, parts: list[str]) -> np.ndarray:
        """The ids, int32, of texts of at most LONGEST characters, one after the other and without `end`."""

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        """The ids of a text that comes in pieces, in arrays int32: as those of `encode`, whatever the pieces."""
        cut = parts(pieces, LONGEST)
        while group := list(islice(cut, AT_ONCE)):
            yield self.encode_parts(group)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without `end`. Raises ValueError for half of a surrogate pair, which is not text."""
        _check_text(text)
        return [i for ids in self.encode_pieces([text]) for i in ids.tolist()]

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
        self._known: dict[str, bytes] = {}  # the ids of words, int32
        self._known_size = 0
        byte_of = {character: byte for byte, character in _byte_characters().items()}
        names = {i: name for name, i in model.get_vocab().items()}
        self.pieces = (*(bytes(byte_of[c] for c in names[i]) for i in range(len(names))), b"")

    def encode_parts(self, parts: list[str]) -> np.ndarray:
        """A word is encoded once and then looked up: texts repeat their words, and encoding takes far longer."""
        words = [
            word for part in parts for word in ([part] if _ODD_SPACE.search(part) else _WORD.findall(part))
        ]
        if self._known_size > MOST_KNOWN:
            self._known, self._known_size = {}, 0
        new = [*set(words).difference(self._known)]
        self._known |= zip(new, self._encoded(new), strict=True)
        self._known_size += sum(map(len, new)) + WORD_COSTS * len(new)
        return np.frombuffer(b"".join(map(self._known.__getitem__, words)), np.int32)

    def _encoded(self, words: list[str]) -> Iterator[bytes]:
        """The ids of each word, int32. Long work is shared by threads: `tokenizers` lets them run side by side."""
        threads = os.cpu_count() or 1
        each = -(-len(words) // threads) or 1
        shares = [words[first : first + each] for first in range(0, len(words), each)]
        encode = self._model.encode_batch_fast  # "fast" leaves out where each token stands in the text
        if sum(map(len, words)) < SHARED_FROM:
            found = [encode(words)]
        else:
            with ThreadPoolExecutor(threads) as pool:
                found = list(pool.map(encode, shares))
        return (np.array(encoding.ids, np.int32).tobytes() for share in found for encoding in share)

    def to_json(self) -> str:
        return json.dumps({"level": "bpe", "model": self._model.to_str()})


class Characters(Tokenizer):
    """A token for each character of the alphabet; any other character becomes a token for each of its bytes."""

    def __init__(self, alphabet: str) -> None:
        self.alphabet = alphabet
        self._id_of = np.full(sys.maxunicode + 1, -1, np.int32)
        self._id_of[[ord(character) for character in alphabet]] = range(len(alphabet))
        self.pieces = (*(c.encode("utf-8") for c in alphabet), *(bytes([b]) for b in range(BYTES)), b"")

    def encode_parts(self, parts: list[str]) -> np.ndarray:
        points = np.frombuffer("".join(parts).encode("utf-32-le"), np.uint32)
        ids = self._id_of[points]
        unknown = np.flatnonzero(ids < 0)
        if not len(unknown):
            return ids
        first_byte = len(self.alphabet)
        pieces, done = [], 0
        for place in unknown.tolist():
            as_bytes = np.frombuffer(chr(points[place]).encode("utf-8"), np.uint8)
            pieces += [ids[done:place], first_byte + as_bytes.astype(np.int32)]
            done = place + 1
        return np.concatenate([*pieces, ids[done:]])

    def to_json(self) -> str:
        return json.dumps({"level": "char", "alphabet": self.alphabet})


def train_tokenizer(corpus: Corpus, vocab_size: int = 1024, level: str = "bpe") -> Tokenizer:
    """A tokenizer that is trained on the training split, and kept in the cache.

    `level` is "bpe" (vocab_size ids, among them `end` and the 256 bytes; fewer if the text has no more pairs to
    merge) or "char" (the alphabet, 256 bytes and `end`; the argument vocab_size is then ignored).
    """
    if level == "char":
        alphabet: set[str] = set()
        for document in corpus.train:
            for piece in document.pieces():
                alphabet.update(piece)
        return Characters("".join(sorted(alphabet)))
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
    every = (
        -(-sum(document.size for document in corpus.train) // LEARNT_BYTES) if len(corpus.train) > 1 else 1
    )
    learnt = corpus.train[::every]  # of many documents, as of one long one, no more than is needed
    model.train_from_iterator((text for document in learnt for text in _texts(document)), trainer)
    return BytePairs(model).to_json().encode("utf-8")


def _texts(document: Document | FilePart) -> Iterator[str]:
    """What byte pairs are learnt from: a document, or parts of a file, spread over it.

    Text without white space is one word to the trainer, however long, and takes it very long: little of it is used.
    """
    if isinstance(document, Document):
        yield document.text
        return
    every, wordless = -(-document.size // LEARNT_BYTES), 0
    for number, part in enumerate(parts(document.pieces(), LONGEST_LEARNT)):
        if number % every:
            continue
        if len(part) == LONGEST_LEARNT and not _SPACE.search(part, 1):
            wordless += len(part)
            if wordless > WORDLESS_LEARNT:
                continue
        yield part


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
