"""The texts of notebook 08: passages of held-out documents, and other labels than the domain."""

from __future__ import annotations

import keyword
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moe_course.analysis.routes import Routes, Sample, windows
from moe_course.lesson.language import Study
from moe_course.lm.corpus.build import AnyDocument
from moe_course.lm.corpus.tokenizer import Tokenizer
from moe_course.viz.tokens import Passage

LENGTH = 64
KINDS = ("space", "keyword", "name", "number", "operator", "other")


@dataclass(frozen=True, eq=False)
class Material:
    """`sample`: up to four passages of each document. `few`: one of each. `documents`: all documents."""

    sample: Sample
    few: Sample
    documents: Sequence[AnyDocument]


def material(study: Study) -> Material:
    """Passages of 64 tokens from the validation documents, up to 100 documents of a domain.

    A tiny corpus may hold out no document of some domain; then all are taken from training, and a note is printed.
    With MOE_COURSE_SMALL in the environment there are few: enough to test that a notebook runs, too few for its
    figures to be right.
    """
    split, most = "validation", 12 if "MOE_COURSE_SMALL" in os.environ else 100
    if any(documents == 0 for documents, _ in study.corpus.counts(split).values()):
        split = "train"
        print(
            "Not every domain has held-out documents here, so these are documents that the model was trained on."
        )
    line = study.text.line(split)
    sample, few = windows(line, LENGTH, 4, most), windows(line, LENGTH, 1, min(most, 40))
    return Material(sample, few, study.corpus.split(split))


def token_kinds(tokenizer: Tokenizer) -> Tensor:
    """kind_V: what each token of the vocabulary is in Python, as an index into KINDS. Only its text decides."""
    return torch.tensor([KINDS.index(_kind(piece)) for piece in tokenizer.pieces])


def languages(documents: Sequence[AnyDocument]) -> tuple[Tensor, tuple[str, ...]]:
    """The language of each document of names (−1 for other documents), and the languages' codes."""
    spoken = [d.id.split("/")[1] if d.domain == "names" else "" for d in documents]
    known = tuple(sorted({*spoken} - {""}))
    return torch.tensor([known.index(code) if code else -1 for code in spoken]), known


def passage(seen: Routes, window: int, tokenizer: Tokenizer) -> Passage:
    """One window of a sample, for `viz.token_explorer`."""
    mine_T = seen.window_T == window
    pieces = [tokenizer.pieces[token] for token in seen.token_T[mine_T].tolist()]
    return Passage(pieces, seen.idx_LTK[:, mine_T], seen.weights_LTK[:, mine_T])


def _kind(piece: bytes) -> str:
    text = piece.decode("utf-8", errors="replace").strip()
    if not text:
        return "space"
    if keyword.iskeyword(text):
        return "keyword"
    if text.isascii() and any(c.isalpha() or c == "_" for c in text):
        return "name"
    if text.isascii() and any(c.isdigit() for c in text):
        return "number"
    return "operator" if text.isascii() else "other"
