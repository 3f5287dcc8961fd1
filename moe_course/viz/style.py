"""The style of all figures: colours that everyone can tell apart, one for each expert; vector output; alt texts."""

from __future__ import annotations

import base64
import html
import io

import matplotlib
import matplotlib.pyplot as plt
from IPython.display import publish_display_data
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from moe_course.viz import legible

# Okabe and Ito 2008, "Color Universal Design", with the yellow last because it is faint on white.
EXPERT_COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#F0E442")
INK, FAINT = "#24292f", "#8c959f"
TOTAL, ACTIVE = "#B7C9DA", "#0072B2"


def use_style() -> None:
    """Set matplotlib's defaults for the course."""
    matplotlib.rcParams.update(
        {
            "figure.figsize": (7.0, 3.2),
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "svg.hashsalt": "moe-course",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.labelsize": 10,
            "axes.edgecolor": INK,
            "text.color": INK,
            "font.size": 10,
            "legend.frameon": False,
        }
    )


def expert_color(expert: int) -> str:
    """The colour of an expert, the same in the whole course; colours repeat after eight."""
    return EXPERT_COLORS[expert % len(EXPERT_COLORS)]


def ink_on(color: str) -> str:
    """Black or white, whichever is easier to read on a colour (WCAG 2.1, relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    luminance = sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"


def show(figure: Figure, alt: str) -> None:
    """Display a figure as vector graphics, with a text for people who cannot see it, and close it."""
    if not alt.strip():
        raise ValueError("a figure needs an alt text that says what it shows")
    publish(as_html(figure, alt), alt)


def publish(markup: str, text: str) -> None:
    """Display HTML, and a text that says the same if the front end shows no HTML."""
    publish_display_data({"text/html": markup, "text/plain": text})


def as_html(figure: Figure, alt: str) -> str:
    """The figure as an <img> that holds its own SVG."""
    legible.make_room(figure)
    legible.demand(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    data = base64.b64encode(buffer.getvalue()).decode()
    width = figure.get_figwidth() * 96
    return (
        f'<img alt="{html.escape(alt)}" style="width:{width:.0f}px;max-width:100%;background:white" '
        f'src="data:image/svg+xml;base64,{data}">'
    )
