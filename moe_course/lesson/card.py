"""The model card of the tiny MoE: one page to which notebooks 02 to 10 add values."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Mapping
from typing import Any

from moe_course.lesson import home
from moe_course.viz.style import publish

FILE = "card.json"
SECTIONS = {
    "active": ("Active parameters per token", "notebook 02"),
    "stability": ("Stability of the routing", "notebooks 02 to 05"),
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
    card, rows, lines = _load(), [], []
    for section, (title, source) in SECTIONS.items():
        rows.append(f'<tr style="background:none"><th colspan="2" style="text-align:left">{title}</th></tr>')
        values = card.get(section) or {"to come": source}
        lines += [title, *(f"  {name}: {_format(value)}" for name, value in values.items())]
        rows += [
            f'<tr style="background:none"><td style="text-align:left">{html.escape(str(name))}</td>'
            f'<td style="text-align:right">{html.escape(_format(value))}</td></tr>'
            for name, value in values.items()
        ]
    publish(f"<table><caption><b>The tiny MoE</b></caption>{''.join(rows)}</table>", "\n".join(lines))


def _load() -> dict[str, dict[str, Any]]:
    state = home.state_dir()
    return home.read_json(state / FILE) if state else dict(_session)


def _format(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:.3g}" if isinstance(value, float) else str(value)
    )
