"""How long a worker has had for its answer, where other processes may keep the processor from it.

Linux tells for each process how long it was ready to run and had to wait (/proc/PID/schedstat). That time is the
neighbours' doing, and no deadline counts it; nor the time in which the judge works out what a worker has asked. Where
a system does not tell how long a process waited, only the latter is taken off.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

WALL = 10  # a deadline ends after this many times its seconds, whoever had the processor
FAMILY = 3  # and once a worker and its children together have used this many times its seconds


class Clock:
    """Runs from its making. `main` is the process that answers; `family` all that belong to the worker."""

    def __init__(self, main: int | None, family: Iterable[int] = ()):
        self._main = main
        self._started = time.monotonic()
        self._waited = waited(main)
        self._used = used(family)
        self._stopped: float | None = None
        self._off = 0.0

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Time in here is not counted."""
        self._stopped = time.monotonic()
        try:
            yield
        finally:
            self._off += time.monotonic() - self._stopped
            self._stopped = None

    def spent(self) -> float:
        """Seconds since the start, without those in which the worker waited for a processor or for the judge."""
        until = self._stopped or time.monotonic()
        return until - self._started - self._off - (waited(self._main) - self._waited)

    def over(self, seconds: float, family: Iterable[int] = ()) -> str:
        """Why a deadline of `seconds` is over, "" while it is not."""
        if self.spent() >= seconds:
            return f"no answer within {seconds:g} seconds"
        if used(family) - self._used >= FAMILY * seconds:
            return f"its processes used more than {FAMILY * seconds:g} seconds of processor time"
        if time.monotonic() - self._started >= WALL * seconds:
            return f"no answer within {WALL * seconds:g} seconds on a busy machine"
        return ""


def waited(process: int | None) -> float:
    """Seconds that a process has been ready to run and did not: 0 where nobody tells."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{process or 'self'}/schedstat").read_text(encoding="utf-8").split()[1]) / 1e9
    return 0.0


def used(processes: Iterable[int]) -> float:
    """Seconds of processor time that processes and the children they have waited for have used."""
    return sum(map(_used, processes))


def _used(process: int) -> float:
    with contextlib.suppress(OSError, IndexError, ValueError):
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # user and system, own and children's
    return 0.0
