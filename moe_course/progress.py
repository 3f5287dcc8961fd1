"""How far a long work is: a bar on a terminal or in a notebook; in a log file a line every half minute."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm.auto import tqdm  # type: ignore[import-untyped]

EVERY_SECONDS = 30.0


class Progress:
    """`done` of `total` units, shown on stderr: "trained: 120 of 1,000 steps, loss 4.1234, 2:10 left".

    Used in a `with` statement, so that the bar ends with the work. shown=False shows nothing.
    """

    def __init__(self, what: str, total: int, unit: str, done: int = 0, shown: bool = True):
        self.what, self.total, self.unit, self.done = what, total, unit, done
        self._began, self._from, self._said = time.monotonic(), done, float("-inf")
        self._in_lines = shown and not _can_draw()
        self._bar = tqdm(
            desc=what, total=total, initial=done, unit=unit, disable=self._in_lines or not shown, leave=True
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def add(self, count: int = 1, note: str = "") -> None:
        """Count more units as done. note: what else to say, such as the loss."""
        self.done += count
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(count)
        now = time.monotonic()
        if self._in_lines and (now - self._said >= EVERY_SECONDS or self.done >= self.total):
            self._said = now
            left = (self.total - self.done) * (now - self._began) / max(self.done - self._from, 1)
            parts = [f"{self.done:,} of {self.total:,} {self.unit}", note, f"{clock_time(left)} left"]
            print(f"{self.what}: {', '.join(filter(None, parts))}", file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print to stdout without breaking a bar."""
    tqdm.write(text)


def clock_time(seconds: float) -> str:
    """Minutes and seconds, from an hour on hours too: "2:05", "1:02:05"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _can_draw() -> bool:
    """Whether what stderr shows can be drawn anew: on a terminal, or in a notebook's kernel."""
    if sys.stderr.isatty():
        return True
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
