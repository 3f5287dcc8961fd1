"""Large text files: read, learnt from and encoded piece by piece, with the results of the whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_course.lm import encode_split, load, train_tokenizer
from moe_course.lm.corpus import batching, cache, text_file, tokenizer
from moe_course.lm.corpus.text_file import FilePart, parts

PROSE = (
    "It's the router's gate; we'll see größer numbers: 1,234.5 \t\n\n  東京 and   Ελλάδα,\xa0 don't\x0b stop!\r\n"
    "x\xa0   y\xa0   z\xa0   x\xa0   y\n"
)
LINE = "RouterGate東京größer2026expert_token"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOE_COURSE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=[PROSE * 40, LINE * 90], ids=["prose", "one line without spaces"])
def spec(request, tmp_path):
    path = tmp_path / "a text.txt"
    path.write_bytes(request.param.encode("utf-8"))
    return f"text:{path}"


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of 61 bytes, which cut characters; parts of 32 characters, two at a time."""
    monkeypatch.setattr(text_file, "PIECE_BYTES", 61)
    monkeypatch.setattr(tokenizer, "LONGEST", 32)
    monkeypatch.setattr(tokenizer, "AT_ONCE", 2)


@settings(deadline=None)
@given(pieces=st.lists(st.text(alphabet="ab \n\t\xa0é") | st.text(max_size=5)), longest=st.integers(1, 9))
def test_parts_are_the_text_however_it_comes(pieces, longest):
    found = list(parts(pieces, longest))
    text = "".join(pieces)
    assert "".join(found) == text
    assert all(0 < len(part) <= longest for part in found)
    assert found == list(parts([text], longest))


def test_a_part_ends_before_white_space_if_it_can():
    assert list(parts(["ab cd  ef\n", "gh ijklmnopq"], 8)) == ["ab cd", "  ef\ngh", " ijklmno", "pq"]


@pytest.mark.parametrize("longest", [30, 60, 1000])
def test_the_parts_of_a_text_have_the_tokens_of_the_whole(monkeypatch, tmp_path, longest):
    path = tmp_path / "prose.txt"
    path.write_bytes((PROSE * 40).encode("utf-8"))
    pairs = train_tokenizer(load(f"text:{path}"), 330)
    whole = pairs._model.encode_batch_fast([PROSE * 9])[0].ids
    monkeypatch.setattr(tokenizer, "LONGEST", longest)
    assert pairs.encode(PROSE * 9) == whole


@pytest.mark.parametrize("most", [0, 200, 10**9])
def test_what_is_remembered_of_words_makes_no_difference(monkeypatch, spec, most):
    pairs = train_tokenizer(load(spec), 330)
    text = load(spec).train[0].text
    whole = pairs._model.encode_batch_fast([text])[0].ids
    monkeypatch.setattr(tokenizer, "MOST_KNOWN", most)
    monkeypatch.setattr(tokenizer, "AT_ONCE", 1)
    assert pairs.encode(text) == pairs.encode(text) == whole


@pytest.mark.parametrize("level", ["bpe", "char"])
def test_a_file_in_small_pieces_gives_what_the_whole_gives(spec, level, monkeypatch, tmp_path, request):
    def result():
        corpus = load(spec)
        tokens = train_tokenizer(corpus, 330, level)
        return corpus, tokens, [encode_split(corpus, tokens, split) for split in ("train", "validation")]

    monkeypatch.setattr(
        tokenizer, "LONGEST", 32
    )  # where there is no white space, this decides where a word ends
    corpus, tokens, lines = result()
    texts = [corpus.train[0].text, corpus.validation[0].text]
    monkeypatch.setenv("MOE_COURSE_CACHE", str(tmp_path / "another cache"))
    request.getfixturevalue("small_pieces")
    again, tokens_again, lines_again = result()
    assert again == corpus
    assert tokens_again.to_json() == tokens.to_json()
    for line, other, text in zip(lines, lines_again, texts, strict=True):
        assert other.ids_T.tolist() == line.ids_T.tolist() == [*tokens.encode(text), tokens.end]
        assert other.domain_T.tolist() == [0] * len(other)
        assert other.starts.tolist() == [0]


@pytest.mark.parametrize("level", ["bpe", "char"])
def test_nothing_larger_than_a_few_pieces_is_in_memory(spec, level, small_pieces, monkeypatch):
    """Every piece that is read, learnt from, encoded or written is bounded by the sizes that are set."""
    seen = {"read": [], "learnt": [], "encoded": [], "written": []}

    def noting(kind, size, owner, name):
        usual = getattr(owner, name)

        def noted(*args):
            for piece in usual(*args):
                seen[kind].append(size(piece))
                yield piece

        monkeypatch.setattr(owner, name, noted)

    noting("read", lambda piece: len(piece[1].encode("utf-8")), text_file, "_decoded")
    noting("learnt", len, tokenizer, "_texts")
    noting("encoded", len, tokenizer.Tokenizer, "encode_pieces")
    fill = cache._fill

    def filled(file, pieces):
        fill(file, (seen["written"].append(len(piece)) or piece for piece in pieces))

    monkeypatch.setattr(cache, "_fill", filled)
    monkeypatch.setattr(FilePart, "text", property(lambda part: pytest.fail("the whole text is read")))
    corpus = load(spec)
    encode_split(corpus, train_tokenizer(corpus, 330, level), "train")
    assert max(seen["read"]) <= 61 + 3, "bytes; a character of the piece before may be completed"
    assert max(seen["encoded"]) <= 2 * 32 * 4, "ids; a character has at most four bytes"
    assert max(seen["written"]) <= 4 * max(seen["encoded"])
    assert len(seen["encoded"]) > 20
    if level == "bpe":
        assert max(seen["learnt"]) <= tokenizer.LONGEST_LEARNT


def test_byte_pairs_are_learnt_from_parts_that_are_spread_over_a_large_file(tmp_path, monkeypatch):
    path = tmp_path / "numbers.txt"
    path.write_text(" ".join(map(str, range(4000))), encoding="utf-8")
    monkeypatch.setattr(tokenizer, "LONGEST_LEARNT", 50)
    (document,) = load(f"text:{path}").train
    every = list(tokenizer._texts(document))
    assert "".join(every) == document.text
    monkeypatch.setattr(tokenizer, "LEARNT_BYTES", document.size / 3.5)
    some = list(tokenizer._texts(document))
    assert some == every[::4]


def test_little_is_learnt_from_text_without_spaces(tmp_path, monkeypatch):
    path = tmp_path / "line.txt"
    path.write_text(LINE * 90 + " and some words" * 90, encoding="utf-8")
    monkeypatch.setattr(tokenizer, "LONGEST_LEARNT", 50)
    monkeypatch.setattr(tokenizer, "WORDLESS_LEARNT", 200)
    (document,) = load(f"text:{path}").train
    learnt = list(tokenizer._texts(document))
    assert sum(len(part) for part in learnt if " " not in part) <= 200
    assert sum(" and some words" in part for part in learnt) > 5


def test_a_file_that_changes_meanwhile_is_noticed(spec, tmp_path):
    corpus = load(spec)
    tokens = train_tokenizer(corpus, 330)
    path = corpus.train[0].path
    path.write_bytes(path.read_bytes() + b" more")
    with pytest.raises(ValueError, match=r"a text\.txt has changed since it was loaded"):
        encode_split(corpus, tokens, "train")


def test_a_byte_that_is_not_utf8_is_named_in_any_piece(tmp_path, small_pieces):
    path = tmp_path / "latin.txt"
    path.write_bytes("東京 é ".encode() * 20 + b"\xe9t\xe9")
    with pytest.raises(ValueError, match=f"not UTF-8: byte {20 * 10} is 0xe9"):
        load(f"text:{path}")
    path.write_bytes("東京 é ".encode() * 20 + "東".encode()[:2])
    with pytest.raises(ValueError, match=f"not UTF-8: byte {20 * 10} is 0xe6, unexpected end"):
        load(f"text:{path}")


def test_a_long_encoding_says_how_far_it_is(spec, small_pieces, monkeypatch, capsys):
    corpus = load(spec)
    tokens = train_tokenizer(corpus, 330)
    encode_split(corpus, tokens, "validation")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(batching, "SHOWN_BYTES", 100)
    encode_split(corpus, tokens, "train")
    size = corpus.train[0].size
    assert f"train split encoded: {size:,} of {size:,} bytes" in capsys.readouterr().err


class TestMapped:
    def pieces(self):
        yield np.arange(1000, dtype=np.int32).tobytes()
        yield b"end."

    def check(self, found):
        assert found[:4000].view(np.int32).tolist() == list(range(1000))
        assert found[4000:].tobytes() == b"end."

    def test_it_is_built_once(self):
        self.check(cache.mapped("x", self.pieces))
        self.check(cache.mapped("x", lambda: pytest.fail("built again")))

    @pytest.mark.parametrize("place", [0, 127, 128, -1])
    def test_damage_is_noticed(self, place):
        self.check(cache.mapped("x", self.pieces))
        path = cache.cache_folder() / "x"
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)
        with pytest.warns(UserWarning, match="damaged"):
            self.check(cache.mapped("x", self.pieces))

    def test_a_change_in_memory_is_none_on_the_disk(self):
        found = cache.mapped("x", self.pieces)
        found[:] = 0
        self.check(cache.mapped("x", lambda: pytest.fail("built again")))

    def test_without_a_usable_folder_it_lies_elsewhere(self, tmp_path, monkeypatch):
        (tmp_path / "a file").touch()
        monkeypatch.setenv("MOE_COURSE_CACHE", str(tmp_path / "a file" / "below"))
        with pytest.warns(UserWarning, match="cannot be used as a cache"):
            self.check(cache.mapped("x", self.pieces))

    def test_a_full_disk_leaves_nothing_half_written(self, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(cache.os, "fsync", full)
        with pytest.warns(UserWarning, match="could not be kept"):
            self.check(cache.mapped("x", self.pieces))
        assert [path.name for path in cache.cache_folder().iterdir()] in ([], ["x.lock"])
