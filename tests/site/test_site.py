"""The web site: it builds without a complaint, no link is broken, nothing comes from elsewhere, everyone can use it.

One file, since the site is built once for all of its tests.
"""

import re
from functools import cache
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from browsing import barriers, new_page
from bs4 import BeautifulSoup
from contrast import CONTRASTS
from synthetic import ROOT

from moe_course.authoring.site import build
from moe_course.grading.exercises.registry import NOTEBOOKS, exercises_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
]  # it may wait for notebooks that another process runs
LOADS = {"script": "src", "img": "src", "source": "src", "iframe": "src", "video": "src", "audio": "src"}
LOADS |= {"link": "href", "object": "data", "embed": "src"}
NOTEBOOK = "notebooks/{0}/{0}.html"


@pytest.fixture(scope="module")
def site(executed, tmp_path_factory):
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    runs = {name: executed("solutions", name) for name in NOTEBOOKS}
    build.lay_out(ROOT, runs, folder / "source", teachers=True)
    build.write_pages(ROOT, folder / "source", folder / "pages")
    return folder / "pages"


@cache
def soup(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def pages(site):
    return sorted(site.rglob("*.html"))


def test_every_notebook_and_document_is_a_page_and_in_the_contents(site):
    contents = {a["href"] for a in soup(site / "index.html").select(".sidebar-tree a[href]")}
    documents = {
        path.relative_to(ROOT).with_suffix(".html").as_posix() for path in (ROOT / "docs").rglob("*.md")
    }
    wanted = {NOTEBOOK.format(name) for name in NOTEBOOKS} | documents | {"CONTRIBUTING.html", "api/moe.html"}
    assert wanted <= {urldefrag(link).url for link in contents}
    assert all((site / page).is_file() for page in wanted)


def test_no_link_is_broken(site):
    broken = []
    for page in pages(site):
        for link in soup(page).select("a[href]"):
            address = urlsplit(link["href"])
            if address.scheme in ("http", "https", "mailto"):
                continue
            target = (page.parent / unquote(address.path)).resolve() if address.path else page
            anchor = unquote(address.fragment)
            there = target.is_file() and (not anchor or soup(target).find(id=anchor))
            if not there:
                broken.append(f"{page.relative_to(site)}: {link['href']}")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(site):
    """No script, style, font or image of another host, and no formula that a script would have to draw."""
    strange = []
    for page in pages(site):
        for tag, attribute in LOADS.items():
            for element in soup(page).select(f"{tag}[{attribute}]"):
                if tag != "link" or "canonical" not in element.get("rel", []):
                    address = element[attribute]
                    if not address.startswith(("data:", "#")) and (
                        urlsplit(address).netloc or not _local(page, address)
                    ):
                        strange.append(f"{page.relative_to(site)}: {address}")
    for style in site.rglob("*.css"):
        used = re.findall(r"(?:url\(|@import)\s*['\"]?([^'\")\s]+)", style.read_text(encoding="utf-8"))
        strange += [f"{style.name}: {address}" for address in used if urlsplit(address).netloc]
    assert strange == []
    assert not [path for path in site.rglob("*.js") if "mathjax" in path.name.lower()]


def _local(page, address):
    return (page.parent / unquote(urlsplit(address).path)).is_file()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_page_has_answers_folded_and_gaps_before_them(site, name):
    page = soup(site / NOTEBOOK.format(name))
    answers = page.select("details.hide")
    assert len(answers) == len(exercises_of(name))
    for exercise, answer in zip(exercises_of(name), answers, strict=True):
        assert not answer.has_attr("open")
        assert answer.summary.get_text(strip=True).startswith("Show the answer")
        assert re.search(rf"(?:def|class) {exercise.name}\b", answer.get_text())
        assert "SOLUTION" not in answer.get_text()
    assert [image for image in page.select("article img") if not image.get("alt", "").strip()] == []
    assert page.select_one("a.term")
    assert page.select("math") or not re.search(r"\$[^$]*\\", page.get_text())
    assert "$" + "$" not in page.get_text()


def test_the_library_is_documented(site):
    from moe_course import analysis, lm, moe, systems

    for package in (analysis, lm, moe, systems):
        short = package.__name__.rpartition(".")[2]
        shown = {
            mark["id"].rpartition(".")[2] for mark in soup(site / "api" / f"{short}.html").select("dt[id]")
        }
        assert {*package.__all__} - shown == set()


def test_words_lead_to_the_glossary_papers_to_arxiv_and_notebooks_to_each_other(site):
    page = soup(site / NOTEBOOK.format("04_load_balancing"))
    links = {link.get_text(): link["href"] for link in page.select("a.term, a.mention")}
    assert links["2101.03961"] == "https://arxiv.org/abs/2101.03961"
    assert links["notebook 02"] == "../02_topk_routing/02_topk_routing.html"
    assert "../../docs/glossary.html#router-z-loss" in links.values()


# ------------------------------------------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def visit(browser, site):
    """Opens a page of the site from the disk. Nothing but files may be loaded, and the console stays silent."""
    tab, heard = new_page(browser, viewport={"width": 1200, "height": 900}), []
    tab.on("console", lambda message: heard.append(message.text) if message.type == "error" else None)
    tab.on(
        "request", lambda asked: None if asked.url.startswith(("file:", "data:")) else heard.append(asked.url)
    )

    def open_page(page, width=1200):
        tab.set_viewport_size({"width": width, "height": 900})
        tab.emulate_media(color_scheme="light")
        tab.goto(page.as_uri())
        tab.evaluate(SHORT_TABLES)
        return tab

    yield open_page
    assert heard == []
    tab.close()


# The rows of a long table are alike, and the tools take time for each of them.
SHORT_TABLES = (
    "document.querySelectorAll('tbody').forEach(body => [...body.rows].slice(9).forEach(row => row.remove()))"
)


@pytest.mark.browser
def test_search_works_from_the_disk(site, visit):
    tab = visit(site / "search.html")
    tab.locator("input[name=q]").first.fill("capacity factor")
    tab.keyboard.press("Enter")
    tab.locator("#search-results li a").first.wait_for()
    assert any("capacity" in text.lower() for text in tab.locator("#search-results li a").all_inner_texts())


@pytest.mark.browser
def test_every_page_fits_a_phone_and_is_legible_in_both_schemes(site, visit):
    faults = []
    for page in pages(site):
        tab, name = visit(page, width=360), page.relative_to(site)
        if (width := tab.evaluate("document.documentElement.scrollWidth")) > 360:
            faults.append(f"{name} is {width} pixels wide")
        for scheme in ("light", "dark"):
            tab.emulate_media(color_scheme=scheme)
            contrast, text = min(tab.evaluate(CONTRASTS))
            if contrast < 4.5:
                faults.append(f"{name}, {scheme}: contrast {contrast:.1f} of {text[:60]!r}")
    assert faults == []


@pytest.mark.browser
def test_axe_finds_no_barrier(site, visit):
    """Every rule but that of contrast on all pages; all rules on some, in both schemes: that one takes longest."""
    few = {"index.html", NOTEBOOK.format("00_start_here"), "docs/first_hour.html", "api/analysis.html"}
    found = []
    for page in pages(site):
        tab, name = visit(page), page.relative_to(site).as_posix()
        for scheme in ("light", "dark") if name in few else ("light",):
            tab.emulate_media(color_scheme=scheme)
            rules = {"color-contrast": {"enabled": name in few}}
            options = {
                "resultTypes": ["violations"],
                "preload": False,
                "rules": rules,
            }  # styles stay where they are
            found += [f"{name}, {scheme}: {barrier}" for barrier in barriers(tab, options=options)]
    assert found == []
