"""What stands in for an earlier exercise that a learner skipped, while a later one that calls it is graded.

Slow and independent of the library; sent to the probes as text, so that a worker holds no answer before it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graders.probes.parts import with_parts
from moe_course.grading.judge.subject import Subject

POSITIONS = """
import torch

def positions_in_expert(idx_TK, num_experts):
    pos_TK, waiting = torch.zeros_like(idx_TK), [0] * num_experts
    for slot in range(idx_TK.shape[1]):
        for token in range(idx_TK.shape[0]):
            expert = int(idx_TK[token, slot])
            pos_TK[token, slot] = waiting[expert]
            waiting[expert] += 1
    return pos_TK
"""

OBJECTIVE = """
def moe_objective(ce, lb_losses_L, z_losses_L, lb_weight, z_weight):
    for loss in lb_losses_L:
        ce = ce + lb_weight * loss / len(lb_losses_L)
    for loss in z_losses_L:
        ce = ce + z_weight * loss / len(z_losses_L)
    return ce
"""

COUNTS = """
import torch

def routing_counts(idx_TK, labels_T, num_labels, num_experts):
    counts = [[0] * num_experts for _ in range(num_labels)]
    for chosen, label in zip(idx_TK.tolist(), labels_T.tolist()):
        for expert in chosen:
            counts[label][expert] += 1
    return torch.tensor(counts)
"""

INFORMATION = """
import math

def mutual_information(counts_GE):
    rows = counts_GE.double().tolist()
    total, columns = sum(map(sum, rows)), [sum(column) for column in zip(*rows)]
    bits = 0.0
    for row in rows:
        for count, column in zip(row, columns):
            if count:
                bits += count / total * math.log2(count * total / (sum(row) * column))
    return bits
"""

PARTS = {
    "batch_priority_positions": {"positions_in_expert": POSITIONS},
    "train_step": {"moe_objective": OBJECTIVE},
    "permutation_p_value": {"routing_counts": COUNTS, "mutual_information": INFORMATION},
}


def run(subject: Subject, name: str, probe: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """`subject.run(probe, *args)` for the exercise `name`, with the parts that it may call at hand."""
    place = f"{probe.__module__}:{probe.__qualname__}"
    return subject.run(with_parts, PARTS[name], name, place, args, kwargs)
