"""Memory held by a family of processes, read from /proc."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path


def resident(roots: Sequence[int], limit: int) -> int:
    """Bytes of memory resident in the processes `roots` and all their descendants.

    Pages that processes share after a fork are counted once in all; since that takes a closer look, it is done
    only where counting them for each process comes to more than `limit`.
    """
    total = sum(_resident(process) for root in roots for process in family(root))
    if total > limit:
        total = sum(_proportional(process) for root in roots for process in family(root))
    return total


def available() -> int:
    """Bytes that the machine can still give out without swapping."""
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 1 << 62  # a kernel that does not tell


def family(process: int) -> Iterator[int]:
    """A process and its descendants. In a sandbox, orphans become children of its first process."""
    yield process
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text(encoding="utf-8").split():
                yield from family(int(child))


def _resident(process: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        pages = int(Path(f"/proc/{process}/statm").read_text(encoding="utf-8").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0


def _proportional(process: int) -> int:
    """Resident memory, a page shared by n processes counted as 1/n; the plain figure where that is not told."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return _resident(process)
