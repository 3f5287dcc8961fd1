"""The coloured text: escaped, readable without colour, and with a text form of its own."""

import re
from html.parser import HTMLParser

import pytest
import torch

from moe_course.viz import tokens
from moe_course.viz.style import expert_color

PIECES = [b"<b>", b"&", b'"\n', "é".encode(), b"\xc3", b"", b"x\x00y", b" \t"]


def passage(experts=9):
    count = len(PIECES)
    first = torch.arange(count) % experts
    idx_LTK = torch.stack(
        [torch.stack([first, (first + 1) % experts], dim=1), torch.stack([first * 0 + 4, first], dim=1)]
    )
    weights_LTK = torch.tensor([0.75, 0.25]).expand(2, count, 2)
    return tokens.Passage(PIECES, idx_LTK, weights_LTK)


class Spans(HTMLParser):
    """The boxes of the tokens: tooltip, style and what is written in them."""

    def __init__(self):
        super().__init__()
        self.boxes, self.tags, self._inside = [], [], False

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attrs = dict(attrs)
        if "title" in attrs:
            self.boxes.append({**attrs, "text": ""})
            self._inside = True

    def handle_endtag(self, tag):
        self._inside = self._inside and tag != "span"

    def handle_data(self, data):
        if self._inside:
            self.boxes[-1]["text"] += data


def boxes(markup):
    spans = Spans()
    spans.feed(markup)
    assert set(spans.tags) == {"div", "span", "sub"}, "no tag comes from the text"
    return spans.boxes


@pytest.mark.parametrize("choice", [0, 1])
@pytest.mark.parametrize("layer", [0, 1])
def test_each_token_has_its_experts_colour_and_number(layer, choice):
    shown, text = boxes(tokens.token_html(passage(), layer, choice)), passage()
    assert len(shown) == len(PIECES)
    for box, piece, experts in zip(shown, PIECES, text.idx_LTK[layer].tolist(), strict=True):
        assert f"background:{expert_color(experts[choice])}" in box["style"]
        assert box["text"] == f"{tokens.readable(piece)}{experts[choice]}"
        assert f"expert {experts[0]}: 75%, expert {experts[1]}: 25%" in box["title"]


def test_lines_break_where_the_text_does():
    assert tokens.token_html(passage(), 0).count("\n") == 1


@pytest.mark.parametrize(
    ("piece", "expected"),
    [
        (b"def", "def"),
        (b" \tx\n", " ⇥x↵"),
        ("é".encode(), "é"),
        (b"\xc3", "⟨c3⟩"),
        (b"\xe2\x82", "⟨e2 82⟩"),
        (b"", "⟨end⟩"),
        (b"\x07", "⟨7⟩"),
    ],
)
def test_readable(piece, expected):
    assert tokens.readable(piece) == expected


def test_the_text_form_names_every_expert():
    text = tokens.token_text(passage(), 1, 1)
    assert text.startswith("Layer 1, second choice: ")
    assert re.findall(r"\[(\d)\]", text) == [str(e) for e in passage().idx_LTK[1, :, 1].tolist()]


def published(monkeypatch):
    shown = []
    monkeypatch.setattr(tokens, "publish", lambda markup, text: shown.append((markup, text)))
    monkeypatch.setattr(tokens, "publish_display_data", shown.append)
    return shown


def test_without_a_front_end_the_first_text_is_shown_in_the_last_layer(monkeypatch):
    monkeypatch.setenv("MOE_COURSE_STATIC", "1")
    shown = published(monkeypatch)
    tokens.token_explorer({"one": passage(), "two": passage(3)})
    assert shown == [(tokens.token_html(passage(), 1, 0), tokens.token_text(passage(), 1, 0))]


def test_the_panel_carries_the_static_text_along(monkeypatch):
    monkeypatch.delenv("MOE_COURSE_STATIC", raising=False)
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    shown = published(monkeypatch)
    tokens.token_explorer({"one": passage(), "two": passage(3)})
    bundle = shown[-1]
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/html"] == tokens.token_html(passage(), 1, 0)


@pytest.mark.parametrize("shape", [(2, 7, 2), (8, 2)])
def test_routes_that_do_not_fit_the_text(shape):
    with pytest.raises(ValueError, match="8 tokens, but"):
        tokens.Passage(PIECES, torch.zeros(shape), torch.zeros(shape))
