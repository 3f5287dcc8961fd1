"""The glossary and the bibliography hold what the notebooks need of them."""

import re

import nbformat
from synthetic import ROOT

from moe_course.authoring.site.extension import terms

GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
BIBLIOGRAPHY = (ROOT / "docs" / "bibliography.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"(?m)^## (.+)$", GLOSSARY)
NOTEBOOKS = {
    path.stem: "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    for path in sorted((ROOT / "solutions").glob("*/*.ipynb"))
}
PAPER = re.compile(r"\b\d{4}\.\d{4,5}\b")


def test_terms_stand_in_alphabetical_order_and_once():
    assert sorted(set(HEADINGS), key=str.lower) == HEADINGS
    written = [
        word for group in re.findall(r"(?m)^\*Also: (.+)\.\*$", GLOSSARY) for word in group.split(", ")
    ]
    assert len({*written, *HEADINGS}) == len(written) + len(HEADINGS), "a name with two meanings"


def test_the_names_of_a_term_lead_to_its_heading():
    found = terms("# Glossary\n\n## router z-loss\n\n*Also: z-loss.*\n\nA loss.\n\n## Soft MoE\n\nA layer.\n")
    assert found == {"router z-loss": "router-z-loss", "z-loss": "router-z-loss", "soft moe": "soft-moe"}
    assert {terms(GLOSSARY)[name.lower()] for name in HEADINGS} == {*terms(GLOSSARY).values()}


def test_a_term_has_few_and_short_sentences():
    for part in GLOSSARY.split("\n## ")[1:]:
        name, _, text = part.partition("\n")
        text = " ".join(re.sub(r"\*Also: .+\.\*", "", text).split())
        sentences = re.split(r"(?<=[.?])\s+(?=[A-Z0-9])", text)
        assert 2 <= len(sentences) <= 4, name
        assert max(len(sentence.split()) for sentence in sentences) <= 35, name


def test_every_term_occurs_in_a_notebook():
    everything = "\n".join(NOTEBOOKS.values()).lower()
    used = {
        anchor for word, anchor in terms(GLOSSARY).items() if re.search(rf"\b{re.escape(word)}", everything)
    }
    assert {*terms(GLOSSARY).values()} - used == set()


def cited():
    """{place: numbers of arXiv} of all notebooks and of the package."""
    found = dict(NOTEBOOKS)
    for path in (ROOT / "moe_course").rglob("*.py"):
        found[str(path.relative_to(ROOT))] = path.read_text(encoding="utf-8")
    # A number stands after "arXiv", or after "and" in a list of such numbers.
    listed = re.compile(rf"arXiv[:\s#]*{PAPER.pattern}(?:(?:,| and)\s+{PAPER.pattern})*", re.IGNORECASE)
    return {
        place: {n for m in listed.findall(text) for n in PAPER.findall(m)} for place, text in found.items()
    }


def test_every_paper_that_is_cited_is_in_the_bibliography():
    listed = set(re.findall(rf"\[arXiv ({PAPER.pattern})\]\(https://arxiv\.org/abs/\1\)", BIBLIOGRAPHY))
    numbers = set().union(*cited().values())
    assert len(numbers) > 40
    assert {place: missing for place, own in cited().items() if (missing := own - listed)} == {}
    assert listed - numbers == set(), "cited nowhere"


def test_papers_stand_in_the_order_of_their_numbers():
    numbers = re.findall(rf"arXiv ({PAPER.pattern})", BIBLIOGRAPHY)
    assert sorted(set(numbers)) == numbers


def test_every_thread_that_is_cited_is_in_the_bibliography():
    listed = set(
        re.findall(r"\[(\d+)\]\(https://github\.com/[\w.-]+/[\w.-]+/(?:issues|pull)/\1\)", BIBLIOGRAPHY)
    )
    text = " ".join(" ".join(NOTEBOOKS.values()).split())
    thread = r"(?:issues?|pull requests?) #?(\d+)(?:(?: \([^)]*\))? and #?(\d+))?|#(\d{2,6})\b(?!['\"])"
    numbers = {n for groups in re.findall(thread, text) for n in groups if n}
    assert len(numbers) > 40
    assert numbers - listed == set()
