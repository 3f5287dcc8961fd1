"""The domain "facts": sentences about countries, places, money and languages, and questions about them.

Each fact is stated in several wordings. For one fact in three, one wording is kept out of the corpus and becomes a
cloze question. The model has then read the fact in other words, and the wording with other facts, but never this
fact in this wording: it must recall the answer and cannot copy the sentence.

The facts are those of the Unicode Common Locale Data Repository (https://cldr.unicode.org), through Babel.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from babel import Locale
from babel.core import get_global

from moe_course.lm.corpus.document import Document, shuffle_key

ARTICLES = 4
"""How many documents there are about each subject. Each states all its facts, in other words and another order."""

OPTIONS = 4
"""How many answers a question offers: a guess is right once in four."""

# {s} is the subject and {a} the answer. The last wording has the answer inside and cannot be asked.
WORDINGS = {
    "currency": (
        "The currency of {s} is the {a}.",
        "Prices in {s} are given in the {a}.",
        "The money of {s} is called the {a}.",
        "The {a} is the currency of {s}.",
    ),
    "language": (
        "The official language of {s} is {a}.",
        "The language of the state in {s} is {a}.",
        "Officially, people in {s} use {a}.",
        "{a} is the official language of {s}.",
    ),
    "country code": (
        "The country code of {s} is {a}.",
        "The two letters for {s} are {a}.",
        "In lists of countries, {s} is {a}.",
        "The letters {a} stand for {s}.",
    ),
    "place": (
        "{s} lies in {a}.",
        "{s} is a place in {a}.",
        "Whoever goes to {s} goes to {a}.",
        "A place in {a} is {s}.",
    ),
    "currency code": (
        "The code of the {s} is {a}.",
        "Banks write the {s} as {a}.",
        "In lists of currencies, the {s} is {a}.",
        "The letters {a} stand for the {s}.",
    ),
    "language code": (
        "The language code of {s} is {a}.",
        "Software marks texts in {s} as {a}.",
        "In lists of languages, {s} is {a}.",
        "The letters {a} stand for {s}.",
    ),
}

_WITH_THE = (
    "United ",
    "Bahamas",
    "Central ",
    "Comoros",
    "Dominican ",
    "Maldives",
    "Netherlands",
    "Philippines",
)


@dataclass(frozen=True)
class Cloze:
    """A question: which of the options continues the prompt?

    The answer, like every option, begins with the space that follows the prompt, so `prompt + answer` is text.
    """

    relation: str
    prompt: str
    answer: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """A fact. Documents of `group` state it; `held_out` is the wording that is kept for a question, or None."""

    group: str
    relation: str
    subject: str
    answer: str

    @property
    def held_out(self) -> int | None:
        wording = random.Random(f"held out {self}").randrange(3 * (len(WORDINGS[self.relation]) - 1))
        return wording if wording < len(WORDINGS[self.relation]) - 1 else None

    def sentence(self, wording: int) -> str:
        text = WORDINGS[self.relation][wording].format(s=self.subject, a=self.answer)
        return text[0].upper() + text[1:]

    def corpus_sentences(self) -> list[str]:
        """The sentences in which the corpus states this fact."""
        return [self.sentence(i) for i in range(len(WORDINGS[self.relation])) if i != self.held_out]


def facts() -> list[Document]:
    """Articles on every subject, in shuffled order (`shuffle_key`)."""
    by_group: dict[str, list[Fact]] = defaultdict(list)
    for fact in all_facts():
        by_group[fact.group].append(fact)
    return [
        Document(f"{group}#{article}", "facts", _article(by_group[group], f"{group}#{article}", article))
        for group in sorted(by_group, key=shuffle_key)
        for article in range(ARTICLES)
    ]


def cloze(groups: Collection[str]) -> tuple[Cloze, ...]:
    """The questions about the facts that these groups of documents state."""
    told = [fact for fact in all_facts() if fact.group in groups]
    answers: dict[str, list[str]] = defaultdict(list)
    for fact in told:
        answers[fact.relation].append(fact.answer)
    return tuple(
        _question(fact, answers[fact.relation])
        for fact in told
        if fact.held_out is not None and len(set(answers[fact.relation])) >= OPTIONS
    )


def all_facts() -> Iterator[Fact]:
    """Every fact once, in a fixed order. A question must have one answer: a country of two currencies is left out."""
    english = Locale("en")
    countries = {code: _with_article(name) for code, name in english.territories.items() if _is_country(code)}
    used = set()
    for code, country in sorted(countries.items()):
        group = f"facts/territory/{code}"
        yield Fact(group, "country code", country, code)
        money = _currencies(code)
        used |= set(money)
        if len(money) == 1:
            yield Fact(group, "currency", country, english.currencies[money[0]])
        spoken = _official_languages(code)
        if len(spoken) == 1 and spoken[0] in english.languages:
            yield Fact(group, "language", country, english.languages[spoken[0]])
    for zone, code in sorted(get_global("zone_territories").items()):
        if code in countries:
            place = english.time_zones.get(zone, {}).get("city") or zone.rpartition("/")[2].replace("_", " ")
            yield Fact(f"facts/territory/{code}", "place", place, countries[code])
    for code in sorted(used):
        yield Fact(f"facts/currency/{code}", "currency code", english.currencies[code], code)
    for code, language in sorted(english.languages.items()):
        if len(code) == 2:
            yield Fact(f"facts/language/{code}", "language code", language, code)


def _article(told: list[Fact], name: str, article: int) -> str:
    """Each fact in two of its wordings, all of them in an order that differs between articles."""
    sentences = []
    for fact in told:
        wordings = fact.corpus_sentences()
        sentences += [wordings[(article + i) % len(wordings)] for i in range(2)]
    random.Random(name).shuffle(sentences)
    return " ".join(sentences) + "\n"


def _question(fact: Fact, answers: list[str]) -> Cloze:
    """A question with wrong options that are drawn as often as they are right for other facts.

    So it helps little to know only that many countries use the euro.
    """
    assert fact.held_out is not None
    draw = random.Random(f"options {fact}")
    drawn = draw.sample(answers, len(answers))
    options = list(dict.fromkeys([fact.answer, *drawn]))[:OPTIONS]
    draw.shuffle(options)
    prompt = fact.sentence(fact.held_out).removesuffix(f" {fact.answer}.")
    return Cloze(fact.relation, prompt, f" {fact.answer}", tuple(f" {option}" for option in options))


def _is_country(code: str) -> bool:
    """Whether two letters stand for a country or territory, and not for a union of countries or for nothing."""
    return len(code) == 2 and code.isalpha() and code not in {"EU", "EZ", "QO", "UN", "XA", "XB", "ZZ"}


def _currencies(territory: str) -> list[str]:
    """The codes of its currencies. CLDR gives none of them an end: what is valid today would depend on the day."""
    spans = get_global("territory_currencies").get(territory, [])
    return [code for code, _, end, is_tender in spans if end is None and is_tender]


def _official_languages(territory: str) -> list[str]:
    spoken = get_global("territory_languages").get(territory, {})
    return sorted(
        code for code, data in spoken.items() if data["official_status"] in ("official", "de_facto_official")
    )


def _with_article(name: str) -> str:
    return f"the {name}" if name.startswith(_WITH_THE) or name.endswith("Islands") else name
