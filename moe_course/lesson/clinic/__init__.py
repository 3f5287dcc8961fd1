"""The labs of notebook 11: where a piece of code works, with numbers to look at.

It may import the library, `viz` and `grading`. A lab takes the code as it was brought in, or the repaired code, and
returns what a person on duty would see. Begin with `ward.py`. Names load on first use.
"""

from moe_course.lazy import lazy_exports

_HOME = {
    "SEEDS": "ward",
    "admitted": "ward",
    "order": "ward",
    "verdict": "ward",
    "with_balancing": "balancing",
    "with_loss_of": "balancing",
    "task_gradients": "balancing",
    "loss_gradients": "balancing",
    "collapsed_loss": "balancing",
    "life_of": "counting",
    "violations": "counting",
    "counters": "counting",
    "trained_with_bias": "serving",
    "reference_gate": "serving",
    "moved": "serving",
    "bfloat16_tokens": "serving",
    "boundary_gaps": "serving",
    "decoding": "serving",
    "decode_times": "serving",
    "work_by_experts": "serving",
    "training_step": "serving",
    "on_random_text": "writing",
    "gradients_on_ranks": "spreading",
    "trained_with_factor": "spreading",
    "clipped_on_ranks": "spreading",
}

__all__, __getattr__, __dir__ = lazy_exports(__name__, _HOME)
