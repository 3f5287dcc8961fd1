"""How requests share a machine: in batches that wait for their longest member, or with slots that are filled at once.

chat = simulate_batching(arrivals, lengths, slots=16, step_seconds=lambda batch: 0.01, continuous=True)
chat.tokens_per_second, chat.latencies
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Served:
    """What became of some requests: each one's seconds from arrival to last token, and the whole simulation's."""

    latencies: list[float]
    seconds: float
    tokens: int
    steps: int

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def mean_batch(self) -> float:
        """Tokens per step."""
        return self.tokens / self.steps


def simulate_batching(
    arrivals: Sequence[float],
    lengths: Sequence[int],
    slots: int,
    step_seconds: Callable[[int], float],
    continuous: bool,
) -> Served:
    """Serve requests, first come, first served. Each step takes step_seconds(how many sequences are computed).

    arrivals: when each request comes, ascending; lengths: how many tokens it wants. continuous: a slot that becomes
    free is given to the next request before the next step (iteration-level scheduling, Yu et al. 2022, OSDI, "Orca").
    Else a batch is filled once and computed until its longest member is done, and finished members are computed on,
    as padding. Prefill costs nothing here. Raises ValueError for no requests, unequal lists, or sizes below 1.
    """
    if not lengths or len(arrivals) != len(lengths) or min(lengths) < 1 or slots < 1:
        raise ValueError(
            f"need as many arrivals as lengths, and sizes of at least 1: {len(arrivals)}, {len(lengths)}, {slots}"
        )
    waiting = deque(sorted(range(len(lengths)), key=lambda request: arrivals[request]))
    left: dict[int, int] = {}  # the requests in slots, and how many tokens each still wants
    done = [math.nan] * len(lengths)
    now, steps = 0.0, 0
    while waiting or left:
        if not left and waiting:
            now = max(now, arrivals[waiting[0]])
        if continuous or not left:
            while waiting and len(left) < slots and arrivals[waiting[0]] <= now:
                request = waiting.popleft()
                left[request] = lengths[request]
        now += step_seconds(len(left))
        steps += 1
        for request in left:
            left[request] -= 1
            if left[request] == 0:
                done[request] = now
        if continuous or all(count <= 0 for count in left.values()):
            left = {request: count for request, count in left.items() if count > 0}
    latencies = [end - start for end, start in zip(done, arrivals, strict=True)]
    return Served(latencies, now - min(arrivals), sum(lengths), steps)
