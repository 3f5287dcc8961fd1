"""Probes of notebook 04."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from moe_course.grading.exercises.protocol import Outcome, plain, raised
from moe_course.grading.worker.pristine import theirs


def after_editing_the_result(namespace: Mapping[str, Any], name: str, /, *args: Any) -> Outcome:
    """Call the learner's `name`, write into what comes back, and report the arguments as they are then."""
    try:
        with torch.no_grad():
            result = theirs(namespace[name], *args)
            value = plain(result)
            if isinstance(result, torch.Tensor):
                result.fill_(-77)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Outcome(error=raised(error), inputs=plain(args))
    return Outcome(value=value, inputs=plain(args))
