"""Probes of notebook 10: weights that are stored in eight bits, and what comes back of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from graders.probes import call
from moe_course.grading.exercises.protocol import Outcome


def there_and_back(namespace: Mapping[str, Any], w_EDF: torch.Tensor) -> Outcome:
    """The learner's quantize_int8, then dequantize_int8 of what it returned: (q_EDF, scale_EF, w_EDF)."""
    stored = call(namespace, "quantize_int8", w_EDF)
    if stored.error is not None or not isinstance(stored.value, tuple) or len(stored.value) != 2:
        return stored
    back = call(namespace, "dequantize_int8", *stored.value)
    return (
        back if back.error is not None else Outcome(value=(*stored.value, back.value), inputs=stored.inputs)
    )
