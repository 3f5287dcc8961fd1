"""A small executed notebook with all that slides are made of."""

import base64

from nbformat.v4 import new_output
from synthetic import answer, check, code, notebook, text

PREDICT = 'predict("1-x", "Does <it> grow?", ["no", "yes & no"], answer=None)'
REVEAL = 'reveal("1-x", 2, "so it is")'


def drawn(cell_id, alt, source='viz.show(viz.moe(), alt="x")'):
    """A cell that has shown a figure."""
    picture = base64.b64encode(f"<svg xmlns='http://www.w3.org/2000/svg'>{alt}</svg>".encode()).decode()
    cell = code(cell_id, source)
    markup = f'<img alt="{alt}" style="width:9px" src="data:image/svg+xml;base64,{picture}">'
    cell.outputs = [new_output("display_data", {"text/html": markup, "text/plain": alt})]
    return cell


def revealed(cell_id="reveal-x"):
    """A cell that has said what happened."""
    cell = code(cell_id, REVEAL)
    said = "<p><b>What happened:</b> yes &amp; no — so it is.</p><p>You predicted that.</p>"
    cell.outputs = [new_output("display_data", {"text/html": said})]
    return cell


def small():
    """An executed notebook with all that slides are made of."""
    return notebook(
        text("title", "# 01 · Small\n\n**Why?**\n\n| | |\n|---|---|\n| You will | see |\n| Time | 1 hour |"),
        code("setup", "x = 1", tags=["setup"]),
        text("s1-why", "## 1 · First\n\nOne sentence. Another one.\n\n$$ C = \\frac{T K}{E} $$"),
        drawn("s1-picture", "layer", "viz.show(viz.moe_layer(), alt='x')"),
        drawn("s1-before", "before"),
        code("predict-x", PREDICT),
        drawn("s1-after", "after"),
        text("s1-read", "The curve grows. " + "Words " * 60 + "end."),
        revealed(),
        text("ex-1-1", "### Exercise 1.1 · `ffn_params` ★☆☆ · 3 minutes\n\nNot for slides."),
        answer("ffn_params"),
        check("ffn_params", 8),
        text("help-1-1", "<details><summary>A nudge</summary>\n\nSecret.\n</details>"),
        text("s2-why", "## 2 · Words only\n\n" + "\n\n".join("Here are five words more." for _ in range(40))),
        text("recap", "## Recap\n\n- that"),
        text("not-conclude", "## What not to conclude\n\n- this"),
        text("references", "## References\n\n- nobody"),
    )
