"""Text in which every token has the colour and the number of its expert."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from IPython.display import publish_display_data
from torch import Tensor

from moe_course.viz.style import FAINT, expert_color, ink_on, publish

CHOICES = ("first choice", "second choice", "third choice", "fourth choice")


@dataclass(frozen=True, eq=False)
class Passage:
    """A text and its routes. pieces: the bytes of each of T tokens; idx_LTK, weights_LTK: their experts by layer."""

    pieces: Sequence[bytes]
    idx_LTK: Tensor
    weights_LTK: Tensor

    def __post_init__(self) -> None:
        shapes = tuple(self.idx_LTK.shape), tuple(self.weights_LTK.shape)
        if len(set(shapes)) > 1 or len(shapes[0]) != 3 or shapes[0][1] != len(self.pieces):
            raise ValueError(f"{len(self.pieces)} tokens, but routes and weights of shapes {shapes}")


def token_explorer(passages: Mapping[str, Passage]) -> None:
    """Controls for the text, the layer, and first or second choice; without controls, first text and last layer.

    Every token shows its expert twice, as a colour and as a number; its tooltip names all K and their weights.
    """
    title, first = next(iter(passages.items()))
    num_layers, _, top_k = first.idx_LTK.shape

    def draw(text: str, layer: int, choice: int) -> None:
        passage = passages[text]
        publish(token_html(passage, layer, choice), token_text(passage, layer, choice))

    if "MOE_COURSE_STATIC" in os.environ or "NBGRADER_EXECUTION" in os.environ:  # nobody there to choose
        draw(title, num_layers - 1, 0)
        return

    from ipywidgets import Dropdown, HBox, Layout, VBox, interactive_output

    controls = {
        "text": Dropdown(options=list(passages), value=title, description="text"),
        "layer": Dropdown(options=range(num_layers), value=num_layers - 1, description="layer"),
        "choice": Dropdown(
            options=[(CHOICES[k], k) for k in range(min(top_k, len(CHOICES)))], value=0, description="expert"
        ),
    }
    box = HBox(list(controls.values()), layout=Layout(flex_flow="row wrap"))
    panel = VBox([box, interactive_output(draw, controls)])._repr_mimebundle_()
    shown = first, num_layers - 1, 0
    # a front end shows the first form that it understands: the panel, or the first text
    publish_display_data({**panel, "text/html": token_html(*shown), "text/plain": token_text(*shown)})


def token_html(passage: Passage, layer: int, choice: int = 0) -> str:
    """The passage as HTML: a coloured box for each token with its expert's number, and the legend above."""
    idx_TK, weights_TK = passage.idx_LTK[layer].tolist(), passage.weights_LTK[layer].tolist()
    boxes = []
    for piece, experts, weights in zip(passage.pieces, idx_TK, weights_TK, strict=True):
        color = expert_color(experts[choice])
        shares = ", ".join(f"expert {e}: {w:.0%}" for e, w in zip(experts, weights, strict=True))
        text = readable(piece)
        boxes.append(
            f'<span title="{html.escape(f"{text} → {shares}")}" style="background:{color};color:{ink_on(color)};'
            f'border-radius:2px;margin:0 1px 0 0">{html.escape(text)}'
            f'<sub style="font-size:.65em">{experts[choice]}</sub></span>' + "\n" * piece.count(b"\n")
        )
    used = sorted({experts[choice] for experts in idx_TK})
    legend = " ".join(
        f'<span style="background:{expert_color(e)};color:{ink_on(expert_color(e))};padding:0 .4em">{e}</span>'
        for e in used
    )
    return (
        '<div style="max-width:46em;background:white;color:black;padding:.6em;font-family:sans-serif">'
        f"<div>Layer {layer}, {CHOICES[choice]}: expert {legend}</div>"
        f'<div style="font-family:monospace;white-space:pre-wrap;line-height:1.7;border-top:1px solid {FAINT};'
        f'margin-top:.4em;padding-top:.4em">{"".join(boxes)}</div></div>'
    )


def token_text(passage: Passage, layer: int, choice: int = 0) -> str:
    """The passage without HTML: every token followed by its expert's number."""
    experts = passage.idx_LTK[layer, :, choice].tolist()
    tokens = (f"{readable(piece)}[{e}]" for piece, e in zip(passage.pieces, experts, strict=True))
    return f"Layer {layer}, {CHOICES[choice]}: {' '.join(tokens)}"


def readable(piece: bytes) -> str:
    """The text of a token on one line: ↵ and ⇥ for breaks and tabs, ⟨d8⟩ for a byte that is half a character."""
    if not piece:
        return "⟨end⟩"
    try:
        text = piece.decode("utf-8")
    except UnicodeDecodeError:
        return "⟨" + " ".join(f"{byte:02x}" for byte in piece) + "⟩"
    text = text.replace("\n", "↵").replace("\t", "⇥")
    return "".join(c if c.isprintable() else f"⟨{ord(c):x}⟩" for c in text)
