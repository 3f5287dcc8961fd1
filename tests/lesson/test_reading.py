"""The labels beside the domain, and the passages that notebook 08 reads."""

from types import SimpleNamespace

import pytest
import torch

from moe_course.analysis.routes import record_routes
from moe_course.config import MoEConfig
from moe_course.lesson import reading
from moe_course.lm.corpus.document import Document
from moe_course.lm.corpus.tokenizer import Characters
from moe_course.lm.model.lm_config import LMConfig
from moe_course.lm.model.transformer import Transformer

DOMAINS = ("code", "names")


def study(held_out=DOMAINS):
    """A study of two domains, the validation split of which has documents of `held_out` only."""
    splits = {
        "train": [
            ("code/a.py", "code", "def f(x):\n    return x\n"),
            ("names/fr/cities/0", "names", "Orléans\nLyon\n"),
        ],
        "validation": [
            (id, domain, text)
            for id, domain, text in (
                ("code/b.py", "code", "if 1:\n\tpass\n" * 30),
                ("names/de/cities/1", "names", "Köln\n"),
            )
            if domain in held_out
        ],
    }
    documents = {split: tuple(Document(*row) for row in rows) for split, rows in splits.items()}
    tokenizer = Characters("".join(sorted({c for rows in documents.values() for d in rows for c in d.text})))

    def line(split):
        lines = [torch.tensor([*tokenizer.encode(d.text), tokenizer.end]) for d in documents[split]]
        lengths = torch.tensor([len(ids) for ids in lines])
        labels = torch.tensor([DOMAINS.index(d.domain) for d in documents[split]])
        return SimpleNamespace(
            ids_T=torch.cat(lines),
            domain_T=labels.repeat_interleave(lengths),
            starts=lengths.cumsum(0) - lengths,
            domains=DOMAINS,
        )

    def counts(split):
        return {name: (sum(d.domain == name for d in documents[split]), 0) for name in DOMAINS}

    return SimpleNamespace(
        corpus=SimpleNamespace(counts=counts, split=documents.__getitem__),
        text=SimpleNamespace(line=line),
        tokenizer=tokenizer,
    )


def test_held_out_documents_are_read(capsys):
    material = reading.material(study())
    assert [d.id for d in material.documents] == ["code/b.py", "names/de/cities/1"]
    assert material.sample.real_BS.shape[1] == reading.LENGTH
    assert len(material.sample.document_B) == 5, "four passages of the code, one of the names"
    assert len(material.few.document_B) == 2
    assert capsys.readouterr().out == ""


def test_where_a_domain_has_none_training_documents_are_read_and_it_says_so(capsys):
    material = reading.material(study(held_out=("code",)))
    assert [d.id for d in material.documents] == ["code/a.py", "names/fr/cities/0"]
    assert "trained on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("piece", "kind"),
    [
        (b"\n    ", "space"),
        (b"", "space"),
        (b" return", "keyword"),
        (b"None", "keyword"),
        (b"_x", "name"),
        (b"self", "name"),
        (b"x1", "name"),
        (b"42", "number"),
        (b"):", "operator"),
        (b" ==", "operator"),
        ("é".encode(), "other"),
        (b"\xc3", "other"),
    ],
)
def test_kinds_of_tokens(piece, kind):
    (index,) = reading.token_kinds(SimpleNamespace(pieces=[piece])).tolist()
    assert reading.KINDS[index] == kind


def test_languages_of_documents():
    names = [f"names/{code}/cities/0" for code in ("fr", "ar", "fr")]
    documents = [Document("code/fr/a.py", "code", ""), *(Document(name, "names", "") for name in names)]
    language_D, spoken = reading.languages(documents)
    assert spoken == ("ar", "fr")
    assert language_D.tolist() == [-1, 1, 0, 1]


def test_a_passage_is_one_window_of_the_sample():
    source = study()
    material = reading.material(source)
    moe = MoEConfig(d_model=16, d_ff=8, num_experts=5, top_k=2)
    config = LMConfig(
        vocab_size=source.tokenizer.vocab_size, d_model=16, num_layers=3, num_heads=2, context=64, ffn=moe
    )
    seen = record_routes(Transformer(config, torch.Generator().manual_seed(0)), material.sample)
    passage = reading.passage(seen, 4, source.tokenizer)
    assert b"".join(passage.pieces).decode() == "Köln\n"
    assert torch.equal(passage.idx_LTK, seen.idx_LTK[:, seen.window_T == 4])
    assert torch.equal(passage.weights_LTK, seen.weights_LTK[:, seen.window_T == 4])


@pytest.mark.parametrize(
    ("token", "context", "repeats", "needed", "expected"),
    [
        (
            (0.7, 0.5),
            (9.0, 4.0, 2.0),
            (0.3, 0.1),
            (15, 16),
            ("closer", "learned to use", "more alike", "beyond"),
        ),
        (
            (0.4, 0.5),
            (4.0, 4.0, 2.0),
            (0.1, 0.3),
            (1, 16),
            ("less closely", "no evidence", "less alike", "less than"),
        ),
        (
            (0.5, 0.5),
            (9.0, 4.0, 8.0),
            (0.1, 0.1),
            (8, 16),
            ("little", "no evidence", "little", "explains it"),
        ),
        ((0.5, 0.5), (9.0, 4.0, 8.0), (0.1, 0.1), (0, 0), ("little", "no evidence", "little", "explains it")),
    ],
)
def test_the_answer_follows_the_numbers(token, context, repeats, needed, expected):
    _, *said = reading.answer(
        token, context, tuple((rate + 0.2, 0.2) for rate in repeats), needed
    ).splitlines()
    for line, word in zip(said, expected, strict=True):
        assert word in line
