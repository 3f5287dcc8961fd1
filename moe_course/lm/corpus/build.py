"""The corpus: documents with a domain, split by document, the same for everyone who has the same environment.

    corpus = load("default")                     # built from what is installed, kept in the cache; no download
    corpus = load("text:shakespeare.txt")        # any UTF-8 text
    corpus = load("hf:roneneldan/TinyStories")   # a data set of Hugging Face, where `datasets` is installed
    print(corpus.describe())

The default has four domains: "code" (the Python standard library), "technical" (docstrings of Matplotlib, NumPy and
PyTorch), "names" (of countries, languages and money in twenty languages) and "facts" (sentences about them).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path

from moe_course.lm.corpus import facts, hub, names, source_files, text_file
from moe_course.lm.corpus.cache import cached
from moe_course.lm.corpus.document import SPLITS, Document, split_of, take
from moe_course.lm.corpus.facts import Cloze
from moe_course.lm.corpus.text_file import FilePart
from moe_course.tables import text_table

DEFAULT_LIMITS = {"code": 6_000_000, "technical": 6_000_000, "names": 1_000_000, "facts": 1_000_000}
"""The most bytes of each domain of the default corpus. There are fewer bytes of names and facts than this."""

DOWNLOAD_LIMIT = 20_000_000
"""How many bytes of a data set are read, if nobody says how many are needed."""

RECIPE = 1
"""The version of the way in which the default corpus is built: a cached corpus of an older version is not used."""


AnyDocument = Document | FilePart


@dataclass(frozen=True)
class Corpus:
    """Documents by split, in a fixed order, and the versions of what they were built from.

    `fingerprint` is the SHA-256 of documents, questions and versions, or of a text file: two runs with the same
    fingerprint have seen the same text. `cloze` holds questions about the facts in the training documents.
    """

    name: str
    domains: tuple[str, ...]
    fingerprint: str
    train: Sequence[AnyDocument]
    validation: Sequence[AnyDocument]
    test: Sequence[AnyDocument]
    versions: Mapping[str, str] = field(default_factory=dict)
    cloze: tuple[Cloze, ...] = ()

    def split(self, name: str) -> Sequence[AnyDocument]:
        """The documents of "train", "validation" or "test"."""
        if name not in SPLITS:
            raise ValueError(f"no split {name!r}; there are {', '.join(SPLITS)}")
        documents: Sequence[AnyDocument] = getattr(self, name)
        return documents

    def counts(self, split: str) -> dict[str, tuple[int, int]]:
        """{domain: (documents, bytes)} of a split."""
        counts = dict.fromkeys(self.domains, (0, 0))
        for document in self.split(split):
            documents, size = counts[document.domain]
            counts[document.domain] = documents + 1, size + document.size
        return counts

    def describe(self) -> str:
        """A table of documents and kilobytes by domain and split, the versions, and the fingerprint."""
        columns = [self.counts(split) for split in SPLITS]
        rows: list[tuple[str, ...]] = [("domain", *SPLITS)]
        for domain in self.domains:
            cells = [f"{column[domain][0]:,} docs {column[domain][1] / 1e3:>8,.0f} kB" for column in columns]
            rows.append((domain, *cells))
        lines = [text_table(rows)]
        made_of = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        lines += [f"made of {made_of}"] if made_of else []
        lines += [f"{len(self.cloze)} questions about facts"] if self.cloze else []
        return "\n".join([*lines, f"{self.name}, fingerprint {self.fingerprint[:16]}"])


def load(spec: str = "default", limits: Mapping[str, int] | None = None, size: int | None = None) -> Corpus:
    """The corpus that `spec` names: "default", "text:PATH" or "hf:NAME" ("hf:NAME:CONFIGURATION").

    `limits` gives other sizes to domains of the default corpus, in bytes (see DEFAULT_LIMITS). Documents are never
    cut, and they are taken in a shuffled but fixed order, so a smaller corpus is a part of a larger one. `size`: how
    many bytes of a data set are read; default DOWNLOAD_LIMIT.

    Raises ValueError for an unknown spec, a file or data set that cannot be read, and a wrong limit.
    """
    kind, _, rest = spec.partition(":")
    if limits is not None and spec != "default":
        raise ValueError(f"limits are for the default corpus, not for {spec!r}")
    if spec == "default":
        return _default(_checked({**DEFAULT_LIMITS, **(limits or {})}))
    if kind == "text" and rest:
        return _from_file(spec, Path(rest).expanduser())
    if kind == "hf" and rest:
        return _from_hub(spec, size or DOWNLOAD_LIMIT, *rest.split(":", 1))
    raise ValueError(f"no corpus {spec!r}: give 'default', 'text:PATH' or 'hf:NAME'")


def _checked(limits: dict[str, int]) -> dict[str, int]:
    for domain, limit in limits.items():
        if domain not in DEFAULT_LIMITS:
            raise ValueError(f"no domain {domain!r} to limit; there are {', '.join(DEFAULT_LIMITS)}")
        if limit < 1:
            raise ValueError(f"the limit of {domain!r} must be at least 1 byte, got {limit}")
    return limits


def _default(limits: dict[str, int]) -> Corpus:
    made_of = source_files.versions()
    key = json.dumps([RECIPE, limits, made_of, source_files.folders()], sort_keys=True)
    name = f"corpus-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    return _unpack("default", cached(name, lambda: _build(limits, made_of)))


def _build(limits: Mapping[str, int], made_of: Mapping[str, str]) -> bytes:
    makers = {
        "code": source_files.code,
        "technical": source_files.technical,
        "names": names.names,
        "facts": facts.facts,
    }
    documents: list[Document] = []
    for domain, make in makers.items():
        found = list(take(make(), limits[domain]))
        if not found:
            raise ValueError(f"no text for the domain {domain!r}: this Python has no source files of it")
        documents += found
    told = {document.group for document in documents if split_of(document.group) == "train"}
    return _pack(documents, facts.cloze(told), made_of)


def _pack(
    documents: Iterable[Document], cloze: Iterable[Cloze] = (), made_of: Mapping[str, str] | None = None
) -> bytes:
    """Everything as JSON. Equal content gives equal bytes, and their SHA-256 is the fingerprint."""
    content = {
        "versions": dict(made_of or {}),
        "documents": sorted(astuple(document) for document in documents),
        "cloze": [astuple(question) for question in cloze],
    }
    return json.dumps(content, ensure_ascii=False, sort_keys=True).encode("utf-8")


def _unpack(name: str, packed: bytes) -> Corpus:
    content = json.loads(packed)
    documents = [Document(*row) for row in content["documents"]]
    cloze = tuple(
        Cloze(relation, prompt, answer, tuple(o)) for relation, prompt, answer, o in content["cloze"]
    )
    splits = {split: [d for d in documents if split_of(d.group) == split] for split in SPLITS}
    return _corpus(name, hashlib.sha256(packed).hexdigest(), splits, content["versions"], cloze)


def _corpus(
    name: str,
    fingerprint: str,
    splits: Mapping[str, Iterable[AnyDocument]],
    made_of: Mapping[str, str],
    cloze: tuple[Cloze, ...] = (),
) -> Corpus:
    parts = {split: tuple(documents) for split, documents in splits.items()}
    present = {document.domain for documents in parts.values() for document in documents}
    domains = [
        domain for domain in DEFAULT_LIMITS if domain in present
    ]  # in the order of DEFAULT_LIMITS, not by name
    domains += sorted(present - {*domains})
    return Corpus(name, tuple(domains), fingerprint, **parts, versions=made_of, cloze=cloze)


def _from_file(spec: str, path: Path) -> Corpus:
    """The first nine tenths of the characters for training, the rest for validation, and no test split.

    Each split is one document, cut at int(0.9 · n) as in nanoGPT (data/shakespeare_char/prepare.py), so that losses
    can be compared. Splitting by a hash of each paragraph would put lines of one scene into both splits.
    """
    train, validation, fingerprint = text_file.split(path, 0.9)
    return _corpus(spec, fingerprint, {"train": [train], "validation": [validation], "test": []}, {})


def _from_hub(spec: str, size: int, name: str, configuration: str | None = None) -> Corpus:
    found, fingerprint, made_of = hub.splits(spec, name, configuration, size)
    train, validation, test = (found[split] for split in SPLITS)
    return Corpus(spec, (name,), fingerprint, train, validation, test, made_of)
