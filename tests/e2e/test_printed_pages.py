"""Decks, certificates and the cheat sheet in a real browser: nothing is cut off, and each prints on its pages."""

import re

import pytest
from decks import PREDICT, drawn, revealed, small
from synthetic import ROOT, code, notebook, text

from moe_course.authoring.markup import as_html
from moe_course.authoring.slides import page as deck_page
from moe_course.grading.cohort.certificate import Certificate, Part, as_page
from moe_course.grading.exercises.registry import NOTEBOOKS, exercises_of

pytestmark = pytest.mark.browser
CUT_OFF = """() => {
  const slide = document.querySelector('section.on .slide'), edge = slide.getBoundingClientRect();
  return [...slide.querySelectorAll('*')].filter(part => {
    const box = part.getBoundingClientRect();
    return box.width && (box.right > edge.right + 1 || box.bottom > edge.bottom + 1 || box.left < edge.left - 1);
  }).map(part => part.outerHTML.slice(0, 80));
}"""


def pages_of(pdf):
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def crowded():
    """A deck with too much of everything on its slides."""
    book = small()
    long = " ".join(["Seven hundred words that nobody cut down."] * 20)
    wide = "$$ " + " + ".join(f"x_{{{n}}} W_{{{n}}}" for n in range(22)) + " $$"
    table = "| a | b |\n|---|---|\n" + "\n".join(f"| {n} | {'some words ' * 9} |" for n in range(9))
    book.cells[-3:-3] = [
        text("s3-why", f"## 3 · Too much\n\n{long.replace('.', '')}\n\n{wide}"),
        drawn("s3-before", "wide"),
        code("predict-y", PREDICT.replace("Does", "Does " + "really " * 40)),
        drawn("s3-after", "tall"),
        revealed("reveal-y"),
        text("s4-why", f"## 4 · A table\n\n{table}"),
    ]
    return deck_page(notebook(*book.cells))


@pytest.fixture(scope="module")
def deck(browser, tmp_path_factory):
    path = tmp_path_factory.mktemp("deck") / "deck.html"
    path.write_text(crowded(), encoding="utf-8")
    context = browser.new_context(viewport={"width": 1280, "height": 720}, offline=True)
    page = context.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(path.as_uri())
    yield page
    assert said == []
    context.close()


def place(page):
    return page.locator("#place").inner_text()


def test_no_slide_is_cut_off_at_any_size(deck):
    for size in (
        {"width": 1280, "height": 720},
        {"width": 1920, "height": 1200},
        {"width": 390, "height": 700},
    ):
        deck.set_viewport_size(size)
        for number in range(7):
            for answers in ("false", "true"):
                deck.evaluate(f"show({number}, {answers})")
                assert deck.evaluate(CUT_OFF) == [], (size, number, answers)
    deck.set_viewport_size({"width": 1280, "height": 720})


def test_keys_clicks_swipes_and_the_address_move_through_the_deck(deck):
    deck.evaluate("show(0, false)")
    deck.keyboard.press("ArrowRight")
    question = deck.locator("section.on")
    assert place(deck) == "2 / 7"
    assert question.get_by_text("Does <it> grow?").is_visible()
    assert not question.get_by_text("What happened:").is_visible()
    assert question.get_by_alt_text("before").is_visible()
    deck.keyboard.press("Space")
    assert place(deck) == "2 / 7"
    assert question.get_by_text("What happened:").is_visible()
    assert question.get_by_alt_text("after").is_visible()
    assert not question.get_by_alt_text("before").is_visible()
    deck.mouse.click(900, 600)
    assert place(deck) == "3 / 7"
    deck.mouse.click(100, 600)
    assert place(deck) == "2 / 7"
    deck.get_by_role("button", name="On").click()
    assert place(deck) == "3 / 7"
    swipe = "x => dispatchEvent(Object.assign(new Event('touchstart'), {touches: [{clientX: x}]}))"
    deck.evaluate(swipe, 500)
    deck.evaluate("dispatchEvent(Object.assign(new Event('touchend'), {changedTouches: [{clientX: 300}]}))")
    assert place(deck) == "4 / 7"
    deck.keyboard.press("End")
    assert place(deck) == "7 / 7"
    assert deck.url.endswith("#7")
    assert deck.evaluate("document.activeElement.textContent") == "What not to conclude"


def test_notes_come_with_a_key_and_print_only_then(deck):
    deck.evaluate("show(1, false)")
    notes = deck.locator("section.on .notes")
    assert not notes.is_visible()
    assert pages_of(deck.pdf(prefer_css_page_size=True)) == 7
    deck.keyboard.press("n")
    assert "Words Words" in notes.inner_text()
    assert deck.evaluate("document.querySelector('.on .slide').getBoundingClientRect().bottom") <= 720 * 0.69
    assert pages_of(deck.pdf(prefer_css_page_size=True)) == 7 + deck.locator(".notes").count()
    deck.keyboard.press("n")
    assert not notes.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_deck_has_no_barriers_that_axe_finds(deck, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    deck.emulate_media(color_scheme=scheme)
    deck.evaluate("show(1, true)")
    assert [fault["id"] for fault in axe.run(deck).response["violations"]] == []


def printed(browser, markup):
    page = browser.new_page()
    page.set_content(markup)
    pdf = page.pdf(format="A4", prefer_css_page_size=True)
    page.close()
    return pages_of(pdf)


def test_the_longest_certificate_prints_on_one_page(browser):
    parts = [(name, tuple(exercise.name for exercise in exercises_of(name))) for name in NOTEBOOKS]
    everything = tuple(Part(name, passed, len(passed), "100 of 100") for name, passed in parts)
    long = "Ada Maria Wilhelmina von und zu Lovelace-Hohenstein the Younger"
    assert printed(browser, as_page(Certificate(long, everything, student=long), b"k" * 32)) == 1
    assert printed(browser, as_page(Certificate(long, everything))) == 1


def test_the_cheat_sheet_prints_on_one_page(browser):
    sheet = as_html((ROOT / "docs" / "cheat_sheet.md").read_text(encoding="utf-8"))
    style = (
        "@page{size:A4;margin:8mm} body{font:8.5pt/1.25 sans-serif;margin:0} h1{margin:0;font-size:1.3em} "
    )
    style += "p{margin:.3em 0} table{width:100%} td,th{padding:0 .5em 0 0;text-align:left} td:first-child{width:38%}"
    assert printed(browser, f"<!doctype html><style>{style}</style>{sheet}") == 1
