"""Tokenizers: any text comes back exactly, and training is repeatable. Batches: every token, its label, its turn."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_course.lm import batches, encode_split, tokenizer_from_json, train_tokenizer, windows
from moe_course.lm.corpus.batching import Tokens, spread
from moe_course.lm.corpus.build import Corpus
from moe_course.lm.corpus.document import Document

WORDS = "router expert token gate load balance capacity dispatch größer 東京 Ελλάδα שלום"


def made_up_corpus(fingerprint="made-up"):
    def document(n, domain):
        words = WORDS.split()
        text = " ".join(words[(n * k + k * k) % len(words)] for k in range(n % 13 + 5)) + "\n"
        return Document(f"{domain}/{n}", domain, text)

    domains = ("code", "facts")
    train = tuple(document(n, domains[n % 3 == 0]) for n in range(60))
    validation = tuple(document(n, domains[n % 2]) for n in range(60, 71))
    return Corpus("made up", domains, fingerprint, train, validation, ())


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOE_COURSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", params=["bpe", "char"])
def tokenizer(request, _own_cache):
    return train_tokenizer(made_up_corpus(), vocab_size=301, level=request.param)


@settings(max_examples=150, deadline=None)
@given(text=st.text() | st.text(alphabet=WORDS + " \n\t<|endoftext|>\x00Ġ"))
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.end not in ids
    assert sum(tokenizer.piece_bytes_V[ids]) == len(text.encode("utf-8"))


def test_the_end_stands_for_no_bytes(tokenizer):
    assert tokenizer.end == tokenizer.vocab_size - 1
    assert tokenizer.piece_bytes_V[tokenizer.end] == 0
    assert tokenizer.piece_bytes_V.shape == (tokenizer.vocab_size,)
    assert (tokenizer.piece_bytes_V[:-1] > 0).all()
    assert tokenizer.decode([tokenizer.end, *tokenizer.encode("gate"), tokenizer.end]) == "gate"


def test_a_tokenizer_is_written_and_read(tokenizer):
    again = tokenizer_from_json(tokenizer.to_json())
    assert again.pieces == tokenizer.pieces
    assert again.to_json() == tokenizer.to_json()
    for text in (WORDS, "unseen: ß€😀"):
        assert again.encode(text) == tokenizer.encode(text)


def test_half_a_character_is_shown_as_such(tokenizer):
    ids = tokenizer.encode("😀")
    assert len(ids) > 1
    assert tokenizer.decode(ids[:1]) == "\ufffd"


def test_bad_input_is_named(tokenizer):
    with pytest.raises(ValueError, match=f"id {tokenizer.vocab_size} is outside"):
        tokenizer.decode([0, tokenizer.vocab_size])
    with pytest.raises(ValueError, match="id -1 is outside"):
        tokenizer.decode(np.array([-1]))
    with pytest.raises(ValueError, match="character 2 is half a surrogate pair"):
        tokenizer.encode("ab\ud800")


def test_byte_pairs_shorten_what_they_were_trained_on(tokenizer):
    text = made_up_corpus().train[7].text
    assert len(tokenizer.encode(text)) <= len(text) < len(text.encode())
    longest = max(tokenizer.pieces, key=len)
    assert longest.decode() in WORDS or longest.decode().strip() in WORDS


def test_the_vocabulary_has_the_size_asked_for():
    corpus = made_up_corpus()
    assert train_tokenizer(corpus, vocab_size=257).vocab_size == 257
    assert train_tokenizer(corpus, vocab_size=280).vocab_size == 280
    assert train_tokenizer(corpus, vocab_size=9_999).vocab_size < 9_999  # the text has no more pairs
    alphabet = {c for document in corpus.train for c in document.text}
    assert train_tokenizer(corpus, level="char").vocab_size == len(alphabet) + 256 + 1


def test_training_anew_gives_the_same_tokenizer(monkeypatch, tmp_path):
    first = train_tokenizer(made_up_corpus("a"), vocab_size=330).to_json()
    monkeypatch.setenv("MOE_COURSE_CACHE", str(tmp_path))
    assert train_tokenizer(made_up_corpus("a"), vocab_size=330).to_json() == first


def test_tokenizers_of_other_corpora_and_sizes_are_kept_apart():
    sizes = [
        train_tokenizer(made_up_corpus(name), vocab_size=v).vocab_size for name in "xy" for v in (260, 270)
    ]
    assert sizes == [260, 270, 260, 270]
    other = Corpus("other", ("code",), "z", (Document("code/0", "code", "ababababab " * 50),), (), ())
    assert b"abab" in train_tokenizer(other, vocab_size=260).pieces


@pytest.mark.parametrize(
    ("settings_", "says"),
    [({"vocab_size": 256}, "at least 257.*got 256"), ({"level": "word"}, "no level 'word'")],
)
def test_settings_that_will_not_do_are_named(settings_, says):
    with pytest.raises(ValueError, match=says):
        train_tokenizer(made_up_corpus(), **settings_)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"level": "bpe", "model": "{}"}', '{"level": "char"}'])
def test_what_is_no_tokenizer_is_refused(text):
    with pytest.raises(ValueError, match="not a tokenizer"):
        tokenizer_from_json(text)


# Batches


def line_of(count, domains=("code", "facts", "names")):
    """Tokens numbered as they stand, so that a window tells where it was cut."""
    ids = torch.arange(count, dtype=torch.int32)
    return Tokens(ids, (ids % len(domains)).to(torch.int8), torch.tensor([0]), domains)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_line_holds_every_document_its_end_and_its_label(tokenizer, split):
    corpus = made_up_corpus()
    line = encode_split(corpus, tokenizer, split)
    assert (line.ids_T.dtype, line.domain_T.dtype, line.starts.dtype) == (
        torch.int32,
        torch.int8,
        torch.int64,
    )
    bounds = [*line.starts.tolist(), len(line)]
    assert len(bounds) == len(corpus.split(split)) + 1
    for document, first, last in zip(corpus.split(split), bounds, bounds[1:], strict=False):
        *text, end = line.ids_T[first:last].tolist()
        assert tokenizer.decode(text) == document.text
        assert end == tokenizer.end
        assert {line.domains[d] for d in line.domain_T[first:last]} == {document.domain}
    again = encode_split(corpus, tokenizer, split)
    assert torch.equal(again.ids_T, line.ids_T)


def test_an_epoch_meets_every_window_once():
    S, B = 5, 3
    line = line_of(124)
    count = (124 - S) // S
    drawn = batches(line, B, S, seed=7)
    seen = torch.cat([next(drawn).inputs_BS for _ in range(math.ceil(count / B))])[:count]
    offset = int(seen[:, 0].min())
    assert 0 <= offset < S
    assert sorted(seen[:, 0].tolist()) == [offset + S * n for n in range(count)]
    assert seen[:, 0].tolist() != sorted(seen[:, 0].tolist())


def test_targets_are_the_next_tokens_with_their_own_domain():
    line = line_of(200)
    for batch in [next(batches(line, 4, 6, seed=1)), *windows(line, 4, 6)]:
        assert torch.equal(batch.targets_BS, batch.inputs_BS + 1)
        assert torch.equal(batch.domain_BS, batch.targets_BS % 3)
        assert batch.inputs_BS.dtype == batch.targets_BS.dtype == batch.domain_BS.dtype == torch.int64


def test_batches_depend_on_seed_and_step_only():
    line = line_of(203)
    torch.manual_seed(1)
    first = batches(line, 4, 6, seed=3)
    drawn = [next(first).inputs_BS for _ in range(20)]  # more than two epochs
    torch.manual_seed(2)
    second = batches(line, 4, 6, seed=3)
    for n, expected in enumerate(drawn):
        torch.rand(n)  # a model that draws
        assert torch.equal(next(second).inputs_BS, expected)
        assert torch.equal(next(batches(line, 4, 6, seed=3, first_step=n)).inputs_BS, expected)
    other = batches(line, 4, 6, seed=4)
    assert not torch.equal(next(other).inputs_BS, drawn[0])
    assert len({tuple(batch.flatten().tolist()) for batch in drawn}) == len(drawn)


def test_drawing_batches_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    next(batches(line_of(99), 2, 7, seed=0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("count", [37, 41, 42, 43])
def test_windows_meet_each_target_once(count):
    targets = torch.cat([batch.targets_BS.flatten() for batch in windows(line_of(count), 4, 6)])
    assert targets.tolist() == list(range(1, 1 + (count - 1) // 6 * 6))


@pytest.mark.parametrize("most", [1, 4, 9, 100])
def test_a_spread_is_windows_at_equal_distances(most):
    line = line_of(95)
    each = [window.inputs_BS for window in windows(line, 1, 9)]
    chosen = spread(line, 9, most).inputs_BS
    distance = max(1, len(each) // most)
    assert chosen.tolist() == torch.cat(each)[::distance][:most].tolist()
    assert len(chosen) == min(most, len(each))


def test_the_last_token_can_be_a_target_of_training():
    line = line_of(2 * 5)  # one window, at any offset
    reached = {int(next(batches(line, 1, 5, seed=s)).targets_BS.max()) for s in range(60)}
    assert reached == {5, 6, 7, 8, 9}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda line: next(batches(line, 0, 5, seed=0)), "at least 1, got 0 and 5"),
        (lambda line: next(windows(line, 2, 0)), "at least 1, got 2 and 0"),
        (lambda line: next(batches(line, 2, 6, seed=0)), "11 tokens are too few for windows of 6"),
        (lambda line: next(windows(line, 2, 11)), "11 tokens are too few for windows of 11"),
        (
            lambda line: next(batches(line, 2, 5, seed=0, first_step=-1)),
            "first_step must be at least 0, got -1",
        ),
    ],
)
def test_batches_that_cannot_be_cut_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call(line_of(11))
