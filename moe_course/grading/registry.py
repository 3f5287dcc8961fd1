"""The exercises: what each is called, which notebook it lives in, and where the library's version is.

An exercise is identified by the name of its function or class everywhere: in JSON, in points, in statuses.
Its number is for people.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Exercise:
    """One exercise. `parts` are the names a learner defines; the first of them is the exercise's name."""

    number: str  # "2.2"
    notebook: str  # "02_topk_routing"
    library: str  # the module that holds the library's version, under the same names
    parts: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.parts[0]

    @property
    def graded(self) -> bool:
        """Whether it counts for the gradebook: the warm-up of notebook 00 has a check but no points there."""
        return not self.number.startswith("0.")


_ACCOUNTING = "moe_course.systems.accounting"
_EXPERTS = "moe_course.moe.experts"
_ROUTER = "moe_course.moe.router"
_CAPACITY = "moe_course.moe.capacity"
_LEAKS = "moe_course.moe.leaks"

_ALL = (
    Exercise("0.1", "00_start_here", _ACCOUNTING, ("tokens_per_expert",)),
    Exercise("1.1", "01_dense_ffn", _EXPERTS, ("swiglu_ffn",)),
    Exercise("1.2", "01_dense_ffn", _ACCOUNTING, ("ffn_params",)),
    Exercise("1.3", "01_dense_ffn", _ACCOUNTING, ("ffn_flops",)),
    Exercise("1.4", "01_dense_ffn", _ACCOUNTING, ("moe_ffn_params",)),
    Exercise("1.5", "01_dense_ffn", _ACCOUNTING, ("model_params",)),
    Exercise("1.6", "01_dense_ffn", _ACCOUNTING, ("active_matched_d_ff",)),
    Exercise("2.1", "02_topk_routing", _ROUTER, ("router_probs",)),
    Exercise("2.2", "02_topk_routing", _ROUTER, ("top_k_gate",)),
    Exercise("2.3", "02_topk_routing", _ROUTER, ("sparse_gates",)),
    Exercise("2.4", "02_topk_routing", _ROUTER, ("noisy_logits",)),
    Exercise("2.5", "02_topk_routing", "moe_course.moe.dispatch", ("moe_loop",)),
    Exercise("2.6", "02_topk_routing", _ROUTER, ("switch_gate",)),
    Exercise("2.7", "02_topk_routing", _ROUTER, ("router_gradient",)),
    Exercise("5.1", "05_capacity", _CAPACITY, ("expert_capacity",)),
    Exercise("5.2", "05_capacity", _CAPACITY, ("positions_in_expert",)),
    Exercise("5.3", "05_capacity", _CAPACITY, ("batch_priority_positions",)),
    Exercise("5.4", "05_capacity", _CAPACITY, ("fill_buffers",)),
    Exercise("5.5", "05_capacity", _CAPACITY, ("read_buffers",)),
    Exercise("5.6", "05_capacity", _CAPACITY, ("drop_and_waste",)),
    Exercise("5.7", "05_capacity", _LEAKS, ("depends_on_future",)),
    Exercise("5.8", "05_capacity", _LEAKS, ("depends_on_batch",)),
)

EXERCISES: dict[str, Exercise] = {exercise.name: exercise for exercise in _ALL}
"""Every exercise by name, in the order of the course."""

PART_OF: dict[str, Exercise] = {part: exercise for exercise in _ALL for part in exercise.parts}
"""The exercise that a name belongs to: two-part exercises are found by either part."""

NOTEBOOKS: tuple[str, ...] = tuple(dict.fromkeys(exercise.notebook for exercise in _ALL))
"""The notebooks of the course, in order."""


def exercises_of(notebook: str) -> tuple[Exercise, ...]:
    """The exercises of one notebook, in order. An unknown notebook has none."""
    return tuple(exercise for exercise in _ALL if exercise.notebook == notebook)


def find(name: str) -> Exercise:
    """The exercise called `name` (or one of whose parts is). Raises ValueError with the names that exist."""
    if name not in PART_OF:
        raise ValueError(f"there is no exercise called {name!r}; the exercises are {', '.join(EXERCISES)}")
    return PART_OF[name]
