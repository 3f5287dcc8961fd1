import math

import torch


def by_cases(step, peak, warmup, total, floor):
    if step + 1 <= warmup:
        return (step + 1) * (peak / warmup)
    last = total - 1
    if step >= last:
        return floor
    return (
        floor
        + (peak - floor) / 2
        + (peak - floor) / 2 * math.cos(math.pi * (step - warmup) / (last - warmup))
    )


def squared_cosine(step, peak, warmup, total, floor):
    """(1 + cos x) / 2 is cos² (x / 2)."""
    if step < warmup:
        return peak / warmup * (step + 1)
    done = max(0.0, min(1.0, (step - warmup) / (total - warmup - 1)))
    return floor + (peak - floor) * math.cos(math.pi / 2 * done) ** 2


def a_table_of_the_run(step, peak, warmup, total, floor):
    up = [peak * (n + 1) / warmup for n in range(warmup)]
    angles = torch.linspace(0, math.pi, total - warmup, dtype=torch.float64)
    down = (floor + (peak - floor) * (angles.cos() + 1) / 2).tolist()
    return (up + down)[min(step, total - 1)]
