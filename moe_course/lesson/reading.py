"""The texts of notebook 08: passages of held-out documents, and other labels than the domain."""

from __future__ import annotations

import keyword
import math
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


def answer(
    token: tuple[float, float],
    context: tuple[float, float, float],
    repeats: tuple[tuple[float, float], tuple[float, float]],
    needed: tuple[int, int],
) -> str:
    """What the last section of notebook 08 may say about a model's last layer; each claim follows its number.

    token: the part of the first choice that the token tells, trained and untrained. context: percentage points
    between domains that the token does not explain, trained, untrained, and with shuffled labels. repeats: rate and
    chance, trained and untrained. needed: in how many cases a favourite costs more than sets of equal share, of all.
    """
    (told, told_before), (left, left_before, left_by_chance) = token, context
    over, over_before = (rate - chance for rate, chance in repeats)
    more, cases = needed
    half = math.sqrt(cases) if cases else 0.0  # twice the standard error of a fair coin's count
    lines = [
        f"Tokens: the token tells {told:.0%} of the choice, untrained {told_before:.0%}. "
        + _compare(
            told, told_before, 0.05, "Training tied the choice {} to the token.", "closer", "less closely"
        ),
        f"Context: {left:.1f} points between domains are left with the token taken off, untrained {left_before:.1f}, "
        f"with shuffled labels {left_by_chance:.1f}. "
        + (
            "The router learned to use the context of a domain."
            if left > 1.2 * max(left_before, left_by_chance)
            else "That is no evidence of learned topics."
        ),
        f"Neighbours: they share their expert {100 * over:.0f} points more often than by load, "
        f"untrained {100 * over_before:.0f}. "
        + _compare(over, over_before, 0.05, "Training made neighbours {} alike.", "more", "less"),
        f"Need: a favourite costs its domain more than other experts of the same share in {more} of {cases} cases. "
        + (
            "Favourites are needed beyond their share."
            if more - cases / 2 > half
            else "Favourites are needed less than their share says."
            if cases / 2 - more > half
            else "Their share explains it, as far as these cases can tell."
        ),
    ]
    return "\n".join(["In the last layer of this model:", *(f"- {line}" for line in lines)])


def _compare(now: float, before: float, margin: float, claim: str, up: str, down: str) -> str:
    """The claim with `up` or `down`, or that nothing changed by more than the margin."""
    if abs(now - before) <= margin:
        return "Training changed this little."
    return claim.format(up if now > before else down)


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
