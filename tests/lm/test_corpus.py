"""The corpus: the same bytes for everyone, split by document, kept in a cache that notices damage."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from moe_course.lm import load
from moe_course.lm.corpus import build, cache, facts, source_files
from moe_course.lm.corpus import tokenizer as tokenizer_module
from moe_course.lm.corpus.batching import encode_split
from moe_course.lm.corpus.document import SPLITS, Document, split_of, take
from moe_course.lm.corpus.tokenizer import train_tokenizer

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"code": 60_000, "technical": 60_000, "names": 30_000, "facts": 90_000}

BUILD = f"from moe_course.lm import load; print(load(limits={SMALL}).fingerprint)"


def start_build(folder, hash_seed):
    environ = {
        **os.environ,
        "MOE_COURSE_CACHE": str(folder),
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen([sys.executable, "-c", BUILD], env=environ, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The cache of this module."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(folder, monkeypatch):
    monkeypatch.setenv("MOE_COURSE_CACHE", str(folder))


@pytest.fixture(scope="module")
def small(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOE_COURSE_CACHE", str(folder))
        return load(limits=SMALL)


def documents(corpus):
    return [document for split in SPLITS for document in corpus.split(split)]


def test_other_processes_with_other_hash_seeds_build_the_same_even_at_once(small, tmp_path):
    builds = [start_build(tmp_path, hash_seed=str(n)) for n in (1, 2)]
    assert [build.communicate()[0].strip() for build in builds] == [small.fingerprint] * 2
    kept = [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
    assert [path.suffix for path in kept] == [".json"]
    assert kept[0].read_bytes().startswith(small.fingerprint.encode())


def test_every_domain_is_there_and_nothing_else(small):
    assert small.domains == ("code", "technical", "names", "facts")
    assert {document.domain for document in small.train} == {*small.domains}
    for domain, limit in SMALL.items():
        sizes = [len(d.text.encode()) for d in documents(small) if d.domain == domain]
        assert limit <= sum(sizes) < limit + max(sizes)
    assert all(document.text.strip() for document in documents(small))


def test_no_document_and_no_group_is_in_two_splits(small):
    splits = [{d.group for d in small.split(split)} for split in SPLITS]
    assert all(splits)
    assert sum(map(len, splits)) == len(set.union(*splits))
    ids = [document.id for document in documents(small)]
    assert len(ids) == len({*ids})
    texts = [document.text for document in documents(small) if document.domain != "facts"]
    assert len(texts) == len({*texts})


def test_splits_take_ninety_five_and_five_percent():
    names = [split_of(f"code/{n}.py") for n in range(10_000)]
    shares = {split: names.count(split) / len(names) for split in SPLITS}
    assert shares == pytest.approx({"train": 0.9, "validation": 0.05, "test": 0.05}, abs=0.015)


def test_a_smaller_corpus_is_a_part_of_a_larger_one(small, monkeypatch):
    for domain in ("code", "technical"):  # to list their files takes long
        files = [document for document in documents(small) if document.domain == domain]
        monkeypatch.setattr(source_files, domain, lambda files=files: iter(files))
    less = load(limits={**SMALL, "names": 9_000, "code": 1, "technical": 1})
    assert {*documents(less)} < {*documents(small)}
    assert less.fingerprint != small.fingerprint


def test_counts_and_description_are_those_of_the_documents(small):
    counts = small.counts("validation")
    assert sum(n for n, _ in counts.values()) == len(small.validation)
    assert sum(size for _, size in counts.values()) == sum(len(d.text.encode()) for d in small.validation)
    told = small.describe()
    assert small.fingerprint[:16] in told
    assert f"{counts['names'][0]:,} docs" in told
    assert all(domain in told for domain in small.domains)
    assert dataclasses.is_dataclass(small)
    with pytest.raises(dataclasses.FrozenInstanceError):
        small.name = "other"
    with pytest.raises(ValueError, match="no split 'dev'"):
        small.split("dev")


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b"", lambda b: b.replace(b"the", b"teh", 1)])
def test_a_damaged_cache_is_noticed_and_rebuilt(small, tmp_path, monkeypatch, folder, damage):
    (kept,) = [
        path
        for path in folder.glob("corpus-*.json")
        if path.read_bytes().startswith(small.fingerprint.encode())
    ]
    (tmp_path / kept.name).write_bytes(damage(kept.read_bytes()))
    monkeypatch.setenv("MOE_COURSE_CACHE", str(tmp_path))
    _, _, content = kept.read_bytes().partition(b"\n")
    monkeypatch.setattr(build, "_build", lambda *_: content)  # what a build gives is tested above
    with pytest.warns(UserWarning, match="damaged"):
        assert load(limits=SMALL).fingerprint == small.fingerprint
    assert (tmp_path / kept.name).read_bytes() == kept.read_bytes()


def test_what_is_kept_is_not_built_again(small, monkeypatch):
    monkeypatch.setattr(build, "_build", None)
    assert load(limits=SMALL) == small


def test_without_a_writable_cache_the_build_goes_on(tmp_path, monkeypatch):
    (tmp_path / "a file").touch()
    monkeypatch.setenv("MOE_COURSE_CACHE", str(tmp_path / "a file" / "below"))
    with pytest.warns(UserWarning, match="cannot be used as a cache"):
        assert cache.cached("x", lambda: b"built") == b"built"


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("MOE_COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert cache.cached("x", lambda: b"built") == b"built"
    assert [path.name for path in tmp_path.iterdir()] in ([], ["x.lock"])


def test_two_that_ask_at_once_build_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MOE_COURSE_CACHE", str(tmp_path))
    built = []
    both_ask = threading.Barrier(2)

    def build():
        built.append(1)
        time.sleep(0.3)  # the other must be waiting by now
        return b"built"

    def ask():
        both_ask.wait()
        return cache.cached("x", build)

    with ThreadPoolExecutor(2) as pool:
        assert [asked.result() for asked in [pool.submit(ask), pool.submit(ask)]] == [b"built"] * 2
    assert built == [1]


def test_an_error_of_the_build_is_not_swallowed(tmp_path, monkeypatch):
    monkeypatch.setenv("MOE_COURSE_CACHE", str(tmp_path))

    def build():
        raise OSError("a source file that cannot be read")

    with pytest.raises(OSError, match="source file"):
        cache.cached("x", build)
    assert cache.cached("x", lambda: b"now") == b"now"  # the lock was let go


# Facts and the questions about them


def test_every_question_is_about_a_fact_told_in_other_words_only(small):
    told = "\n".join(document.text for document in documents(small))
    train = "\n".join(document.text for document in small.train if document.domain == "facts")
    by_prompt = {f.sentence(f.held_out): f for f in facts.all_facts() if f.held_out is not None}
    assert len(small.cloze) > 20
    for question in small.cloze:
        sentence = f"{question.prompt}{question.answer}."
        assert sentence not in told
        assert by_prompt[sentence].corpus_sentences()
        assert any(other in train for other in by_prompt[sentence].corpus_sentences())


def test_questions_offer_four_different_answers_with_the_right_one_in_any_place(small):
    places = set()
    for question in small.cloze:
        assert len({*question.options}) == len(question.options) == facts.OPTIONS
        assert all(option.startswith(" ") and option.strip() for option in question.options)
        places.add(question.options.index(question.answer))
    assert places == {0, 1, 2, 3}


def test_the_held_out_wordings_are_met_with_other_facts():
    """Else a question would ask for a sentence the model has never seen the like of."""
    for relation, wordings in facts.WORDINGS.items():
        held = [fact.held_out for fact in facts.all_facts() if fact.relation == relation]
        asked = {wording for wording in held if wording is not None}
        assert asked == set(range(len(wordings) - 1))
        assert 0.2 < sum(wording is not None for wording in held) / len(held) < 0.47


def test_some_facts_are_the_worlds():
    told = {(fact.relation, fact.subject): fact.answer for fact in facts.all_facts()}
    assert told["currency", "Japan"] == "Japanese Yen"
    assert told["language", "Iceland"] == "Icelandic"
    assert told["country code", "Germany"] == "DE"
    assert told["place", "Nairobi"] == "Kenya"
    assert told["language code", "Greek"] == "el"
    assert ("language", "Switzerland") not in told  # it has several


# What is read of source files


def test_docstrings_are_found_where_strings_and_comments_mislead():
    long = (
        "Says what it does, at a length that makes it worth while to read, and reads on until it is enough."
    )
    source = f'''x = "not \\"\\"\\" a docstring"  # nor """ this
pattern = """{long}"""
class Router:
    r"""{long}\\d"""
    def forward(self):
        """Short."""
        return f"""{long}"""
    def load(self, a="it's"):
        """Of experts.

        {long}
        """
add_docstr(load,
    """
    load(x) -> Tensor
    {long}
    """)
'''
    found = list(source_files.docstrings(source, "moe.layer"))
    assert [text.partition("\n")[0] for text in found] == [
        "moe.layer.Router",
        "moe.layer.load",
        "moe.layer",
    ]
    assert found[0].endswith("\\d")
    assert found[1].split("\n")[1:] == ["Of experts.", "", long]
    assert found[2].split("\n")[1] == "load(x) -> Tensor"


def test_take_stops_at_the_limit_with_whole_documents():
    given = [Document(str(n), "d", "é" * 5) for n in range(9)]
    assert [d.id for d in take(given, 11)] == ["0", "1"]
    assert [d.id for d in take(given, 10)] == ["0"]


def test_the_fingerprint_knows_the_versions(small, monkeypatch):
    packed = build._pack(documents(small), small.cloze, small.versions)
    assert build._unpack("default", packed) == small
    assert json.loads(packed)["versions"] == source_files.versions()
    newer = build._pack(documents(small), small.cloze, {**small.versions, "numpy": "99"})
    assert build._unpack("default", newer).fingerprint != small.fingerprint


# Other corpora


def test_a_text_file_is_cut_at_nine_tenths(tmp_path):
    path = tmp_path / "a text.txt"
    text = "".join(f"Zeile {n}: größer, 東京\r\n" for n in range(77))
    path.write_bytes(text.encode("utf-8"))
    corpus = load(f"text:{path}")
    (train,), (validation,) = corpus.train, corpus.validation
    assert train.text + validation.text == text
    assert len(train.text) == int(0.9 * len(text))
    assert (corpus.test, corpus.domains, corpus.cloze) == ((), ("text",), ())
    assert load(f"text:{path}") == corpus
    path.write_bytes(text.replace("7", "8").encode("utf-8"))
    assert load(f"text:{path}").fingerprint != corpus.fingerprint


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        (b"", "0 character"),
        (b"x", "1 character"),
        (b"plain \xe9t\xe9", "not UTF-8: byte 6 is 0xe9"),
    ],
)
def test_a_text_file_that_will_not_do_is_named(tmp_path, content, says):
    path = tmp_path / "notes.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=says) as error:
        load(f"text:{path}")
    assert str(path) in str(error.value)


def test_a_folder_is_no_text(tmp_path):
    with pytest.raises(ValueError, match=r"cannot be read"):
        load(f"text:{tmp_path}")


@pytest.mark.parametrize("spec", ["", "defualt", "text:", "hf:", "shakespeare.txt", "default:3"])
def test_an_unknown_corpus_is_named(spec):
    with pytest.raises(ValueError, match=f"no corpus '{spec}'"):
        load(spec)


@pytest.mark.parametrize(
    ("limits", "says"),
    [({"poems": 5}, "no domain 'poems'"), ({"code": 0}, "'code' must be at least 1 byte, got 0")],
)
def test_limits_that_will_not_do_are_named(limits, says):
    with pytest.raises(ValueError, match=says):
        load(limits=limits)
    with pytest.raises(ValueError, match="limits are for the default corpus"):
        load("text:x", limits={"code": 5})


class Streamed(list):
    """As an IterableDataset of `datasets`."""

    def skip(self, n):
        return Streamed(self[n:])


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOE_COURSE_CACHE", str(tmp_path / "cache"))


def fake_datasets(rows):
    class DatasetsError(Exception):
        pass

    def load_dataset(name, configuration, split, streaming):
        if name == "org/none":
            raise DatasetsError("Dataset 'org/none' doesn't exist")
        assert (configuration, split, streaming) == ("small", "train", True)
        return Streamed(rows)

    exceptions = types.SimpleNamespace(DatasetsError=DatasetsError)
    return types.SimpleNamespace(load_dataset=load_dataset, exceptions=exceptions, __version__="4.0")


def test_a_data_set_of_the_hub_is_split_by_row(empty_cache, monkeypatch):
    rows = [{"text": f"story {n}"} for n in range(300)] + [{"text": " \n"}]
    monkeypatch.setitem(sys.modules, "datasets", fake_datasets(rows))
    corpus = load("hf:org/stories:small")
    assert sorted(d.text for d in documents(corpus)) == sorted(row["text"] for row in rows[:-1])
    assert corpus.domains == ("org/stories",)
    assert corpus.versions == {"datasets": "4.0"}
    assert all(corpus.split(split) for split in SPLITS)


class TestDownload:
    ROWS = tuple({"text": f"é story {n} " + "x" * (n % 7)} for n in range(200))

    def load(self, monkeypatch, rows, size, kind=Streamed):
        module = fake_datasets([])
        module.load_dataset = lambda *_, **__: kind(rows)
        monkeypatch.setitem(sys.modules, "datasets", module)
        return load("hf:org/stories:small", size=size)

    def test_it_ends_with_the_row_that_reaches_the_size(self, empty_cache, monkeypatch):
        asked = []

        class Watched(Streamed):
            def __iter__(self):
                for row in super().__iter__():
                    asked.append(row)
                    yield row

        corpus = self.load(monkeypatch, self.ROWS, 500, Watched)
        texts = [row["text"] for row in asked]
        assert sorted(d.text for d in documents(corpus)) == sorted(texts)
        assert sum(len(t.encode()) for t in texts[:-1]) < 500 <= sum(len(t.encode()) for t in texts)

    def test_one_that_broke_off_goes_on_and_a_larger_one_begins_with_a_smaller(
        self, empty_cache, monkeypatch, tmp_path
    ):
        class Broken(Streamed):
            def __iter__(self):
                yield from list(super().__iter__())[:50]
                raise OSError("the line is dead")

        with pytest.raises(ValueError, match="cannot be loaded: the line is dead; what has come is kept"):
            self.load(monkeypatch, self.ROWS, 10**6, Broken)
        (text,) = (tmp_path / "cache").glob("hub-*.txt")
        with text.open("ab") as file:
            file.write(b"half a row")  # a process that was killed while it wrote
        skipped = []
        monkeypatch.setattr(Streamed, "skip", lambda self, n: skipped.append(n) or Streamed(self[n:]))
        whole = self.load(monkeypatch, self.ROWS, 10**6)
        assert skipped == [50]
        assert sorted(d.text for d in documents(whole)) == sorted(row["text"] for row in self.ROWS)
        small = self.load(monkeypatch, self.ROWS, 500)
        assert skipped == [50], "it is there already"
        assert {d.id for d in documents(small)} < {d.id for d in documents(whole)}
        assert small.fingerprint != whole.fingerprint
        assert small.fingerprint == self.load(monkeypatch, [], 500).fingerprint

    def test_byte_pairs_are_learnt_from_a_part_that_is_spread_over_it(self, empty_cache, monkeypatch):
        corpus = self.load(monkeypatch, self.ROWS, 10**6)
        monkeypatch.setattr(tokenizer_module, "LEARNT_BYTES", sum(d.size for d in corpus.train) // 3)
        usual, learnt = tokenizer_module._texts, []
        monkeypatch.setattr(
            tokenizer_module, "_texts", lambda document: learnt.append(document.id) or usual(document)
        )
        train_tokenizer(corpus, 270)
        assert learnt == [d.id for d in corpus.train][::4]

    def test_its_tokens_are_those_of_its_rows(self, empty_cache, monkeypatch):
        corpus = self.load(monkeypatch, self.ROWS, 10**6)
        tokenizer = train_tokenizer(corpus, 270)
        line = encode_split(corpus, tokenizer, "train")
        expected = [i for d in corpus.train for i in [*tokenizer.encode(d.text), tokenizer.end]]
        assert line.ids_T.tolist() == expected


def test_a_data_set_that_will_not_do_is_named(empty_cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", fake_datasets([{"story": "x"}]))
    with pytest.raises(ValueError, match=r"no column 'text'; it has 'story'"):
        load("hf:org/stories:small")
    with pytest.raises(ValueError, match=r"'hf:org/none' cannot be loaded"):
        load("hf:org/none")
    monkeypatch.setitem(sys.modules, "datasets", fake_datasets([]))
    with pytest.raises(ValueError, match="holds no text"):
        load("hf:org/stories:small")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match="pip install datasets"):
        load("hf:org/stories")
