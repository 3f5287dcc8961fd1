"""The model card of the tiny MoE: one page to which notebooks 02 to 10 add values."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moe_course.lesson import home
from moe_course.viz.style import publish

FILE = "card.json"
SECTIONS = {
    "active": ("Active parameters per token", "notebooks 02 and 10"),
    "stability": ("Stability of the routing", "notebooks 02 to 10"),
    "cost": ("Cost of serving", "notebooks 09 and 10"),
}
_session: dict[str, dict[str, Any]] = {}


def update(section: str, values: Mapping[str, bool | int | float | str]) -> None:
    """Write values into a section of the card: "active", "stability" or "cost"."""
    if section not in SECTIONS:
        raise ValueError(f"the card has no section {section!r}; its sections are {', '.join(SECTIONS)}")

    def with_values(card: dict[str, Any]) -> dict[str, Any]:
        return {**card, section: {**card.get(section, {}), **values}}

    state = home.state_dir()
    if state is None:
        _session.update(with_values(_session))
        return
    with contextlib.suppress(OSError):  # a full disk must not stop a lesson
        home.update_json(state / FILE, with_values)


def show() -> None:
    """Show the card as it is now; an empty section says which notebook fills it."""
    publish(as_html(), as_text())


def as_text(state: Path | None = None) -> str:
    """The card for a terminal. state: the folder .moe-course that holds it; by default that of this work folder."""
    lines: list[str] = []
    for title, values in _filled(state):
        lines += [title, *(f"  {name}: {_format(value)}" for name, value in values.items())]
    return "\n".join(lines)


def as_html(state: Path | None = None) -> str:
    """The card as a table."""
    rows = []
    for title, values in _filled(state):
        rows.append(f'<tr style="background:none"><th colspan="2" style="text-align:left">{title}</th></tr>')
        rows += [
            f'<tr style="background:none"><td style="text-align:left">{html.escape(str(name))}</td>'
            f'<td style="text-align:right">{html.escape(_format(value))}</td></tr>'
            for name, value in values.items()
        ]
    return f"<table><caption><b>The tiny MoE</b></caption>{''.join(rows)}</table>"


def as_page(state: Path | None = None) -> str:
    """The card as a page of its own."""
    style = "body{font:16px/1.5 system-ui,sans-serif;margin:2em auto;max-width:44em}td,th{padding:.2em .8em}"
    head = f'<meta charset="utf-8"><title>Model card</title><style>{style}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{as_html(state)}</body></html>\n'


def missing(state: Path | None = None) -> list[str]:
    """The sections that are still empty, each with the notebook that fills it."""
    card = _load(state)
    return [f"{title} ({source})" for name, (title, source) in SECTIONS.items() if not card.get(name)]


def _filled(state: Path | None) -> list[tuple[str, Mapping[str, Any]]]:
    """(title, values) of each section."""
    card = _load(state)
    return [(title, card.get(name) or {"to come": source}) for name, (title, source) in SECTIONS.items()]


def _load(state: Path | None = None) -> dict[str, dict[str, Any]]:
    state = state or home.state_dir()
    return home.read_json(state / FILE) if state else dict(_session)


def _format(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if isinstance(value, float) else str(value)
    )
