"""The domain "names": how twenty languages in eleven scripts name countries, languages, scripts, money and cities.

The names come from the Unicode Common Locale Data Repository (https://cldr.unicode.org), through the package Babel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from babel import Locale

from moe_course.lm.corpus.document import Document, shuffle_key

LANGUAGES = ("ar", "bn", "de", "el", "en", "es", "fa", "fi", "fr", "he",
             "hi", "ja", "ko", "pl", "pt", "ru", "th", "tr", "vi", "zh")  # fmt: skip

CHUNK = 40
"""How many names one document has."""


def names() -> list[Document]:
    """Documents in shuffled order: forty names each, one a line, all of one kind and in one language."""
    documents = [
        Document(f"names/{language}/{kind}/{start // CHUNK}", "names", "\n".join(chunk) + "\n")
        for language in LANGUAGES
        for kind, listed in _kinds(Locale.parse(language))
        for start in range(0, len(listed), CHUNK)
        if (chunk := listed[start : start + CHUNK])
    ]
    return sorted(documents, key=lambda document: shuffle_key(document.group))


def _kinds(locale: Locale) -> Iterator[tuple[str, list[str]]]:
    for kind in ("territories", "languages", "scripts", "currencies"):
        yield kind, _in_order(getattr(locale, kind))
    yield "cities", _in_order({zone: data.get("city") for zone, data in locale.time_zones.items()})


def _in_order(named: Mapping[str, str | None]) -> list[str]:
    """The names in the order of their codes, which is the same in every language."""
    return [name for _, name in sorted(named.items()) if name]
