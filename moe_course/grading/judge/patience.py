"""A word to whoever waits for an answer that runs on and on: how long it may take, and how to stop it."""

from __future__ import annotations

import contextlib
import html
import sys
import threading
import uuid
from collections.abc import Callable, Iterator

AFTER = 5.0  # seconds of silence


@contextlib.contextmanager
def told(text: str) -> Iterator[None]:
    """Say `text` if the block takes longer than that. In a notebook the words are gone when it ends."""
    show, take_back = _in_notebook(text) if _kernel() else _on_a_line(text)
    shown = threading.Event()

    def say() -> None:
        shown.set()
        show()

    timer = threading.Timer(AFTER, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if shown.is_set():
            take_back()


def _kernel() -> bool:
    """Whether this is a notebook's kernel, and no terminal."""
    ipython = sys.modules.get("IPython")
    return getattr(ipython and ipython.get_ipython(), "kernel", None) is not None


def _in_notebook(text: str) -> tuple[Callable[[], None], Callable[[], None]]:
    from IPython.display import publish_display_data

    place = {"display_id": uuid.uuid4().hex}

    def put(text: str, update: bool) -> None:
        data = {"text/html": html.escape(text), "text/plain": text}
        publish_display_data(data, transient=place, update=update)

    return lambda: put(text, update=False), lambda: put("", update=True)


def _on_a_line(text: str) -> tuple[Callable[[], None], Callable[[], None]]:
    stream = sys.stderr  # as it is now: during a check it leads nowhere
    return lambda: print(text, file=stream, flush=True), lambda: None
