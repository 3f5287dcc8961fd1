"""Published figures about communication and placement, as data, to recompute them from formulas.

DeepEP: docs/legacy.md, table "Low-latency kernels with pure RDMA", and tests/test_low_latency.py, which says what its
GB/s count. EPLB: the example of its README. DeepSeek-V3's ceiling: arXiv 2505.09343, section 2.3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Transfer:
    """One cell pair of DeepEP's table: latency as printed (whole µs) and bandwidth as printed (whole GB/s)."""

    ranks: int
    kernel: str  # "dispatch" (FP8 out) or "combine" (BF16 back)
    microseconds: int
    gigabytes: int

    def bandwidth(self, num_bytes: float) -> tuple[float, float]:
        """GB/s, lowest and highest, of all latencies that are printed as this one."""
        return tuple(num_bytes / (self.microseconds + half) / 1e3 for half in (0.5, -0.5))  # type: ignore[return-value]

    def fits(self, num_bytes: float) -> bool:
        """Whether so many bytes, at some latency printed as this one, give a bandwidth printed as this one."""
        low, high = self.bandwidth(num_bytes)
        return low < self.gigabytes + 0.5 and high >= self.gigabytes - 0.5


_ROWS = (
    (8, 77, 98, 114, 127),
    (16, 118, 63, 195, 74),
    (32, 155, 48, 273, 53),
    (64, 173, 43, 314, 46),
    (128, 192, 39, 369, 39),
    (256, 194, 39, 360, 40),
)
DEEPEP: tuple[Transfer, ...] = tuple(
    Transfer(ranks, kernel, *cells)
    for ranks, *row in _ROWS
    for kernel, cells in (("dispatch", row[:2]), ("combine", row[2:]))
)
"""Measured on H800 GPUs, 8 on a node, each with a card of 400 Gb/s: 128 tokens on a rank, D = 7168, K = 8."""

DEEPEP_COPIES = (
    128 * 8 - 10
)  # the test takes ten choices out, at random places (rarely, two fall on one place)
DEEPEP_BYTES = {"dispatch": 7168 + 7168 / 128 * 4 + 16, "combine": 7168 * 2}
"""Bytes of one copy: FP8 values, a scale of 4 bytes for each 128 of them, a header of 16; and BF16 values back."""

EPLB_LOADS = torch.tensor(
    [
        [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
    ],
    dtype=torch.float64,
)
"""Loads of 12 experts in two layers (deepseek-ai/EPLB, README.md)."""
EPLB_PLAN = torch.tensor(
    [
        [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
        [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
    ]
)
"""The expert in each of 16 slots, two on each of 8 GPUs: what EPLB prints for these loads."""
EPLB_GPUS = 8


def planned_loads(load_E: torch.Tensor, plan_S: torch.Tensor, num_ranks: int) -> torch.Tensor:
    """The load of each rank, load_R, where plan_S names the expert in each slot and copies share a load equally."""
    copies_E = torch.bincount(plan_S, minlength=len(load_E))
    return (load_E / copies_E)[plan_S].view(num_ranks, -1).sum(dim=1)
