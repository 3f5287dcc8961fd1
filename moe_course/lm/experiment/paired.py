"""Differences between two arms, seed by seed, and what they allow one to say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean, stdev

from moe_course.lm.experiment import study

T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""The 97.5 % quantile of Student's t by degrees of freedom (any table of the distribution)."""


@dataclass(frozen=True)
class Paired:
    """Differences of one quantity between two arms on the same seeds, with the 95 % interval of their mean."""

    differences: tuple[float, ...]

    @property
    def mean(self) -> float:
        return mean(self.differences)

    @property
    def half_width(self) -> float:
        """Half of the interval's width: Student's t with one degree of freedom less than there are seeds."""
        count = len(self.differences)
        if count - 1 not in T_975:
            raise ValueError(
                f"an interval needs 2 to {max(T_975) + 1} seeds that both arms have, not {count}"
            )
        return T_975[count - 1] * stdev(self.differences) / count**0.5

    @property
    def decided(self) -> bool:
        """Whether the interval excludes 0 and all signs agree."""
        return abs(self.mean) > self.half_width and len({d > 0 for d in self.differences}) == 1

    def __str__(self) -> str:
        each = ", ".join(f"{difference:+.4f}" for difference in self.differences)
        return f"{self.mean:+.4f} ± {self.half_width:.4f} ({each})"


def paired(worse: Iterable[study.Result], better: Iterable[study.Result], what: str = "ce") -> Paired:
    """How much lower `better` is than `worse` on each seed that both have."""
    seeds = [{r["recipe"]["plan"]["seed"]: r[what] for r in results} for results in (worse, better)]
    both = sorted(seeds[0].keys() & seeds[1].keys())
    return Paired(tuple(seeds[0][seed] - seeds[1][seed] for seed in both))
