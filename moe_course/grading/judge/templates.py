"""HTML through jinja2: all that a submission may have written is escaped, and no control character gets through."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import category

if TYPE_CHECKING:
    from jinja2 import Environment

_STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, direction of writing, half characters, line ends


def printable(text: str) -> str:
    """Text that a terminal shows and does not obey: whatever steers it becomes its escape, so ESC is `\\x1b`."""
    return "".join(
        char.encode("unicode_escape").decode() if category(char) in _STEERING and char not in "\n\t" else char
        for char in text
    )


def environment(folder: Path) -> Environment:
    """The templates of a folder. A name that a template uses and was not given is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )


def _printable(value: Any) -> Any:
    """Text without control characters. What a macro made is markup, and done already."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
