"""The exercises: what each is called, which notebook it lives in, and where the library's version is.

An exercise is identified by the name of its function or class everywhere: in JSON, in points, in statuses.
Its number is for people.
"""

from __future__ import annotations

from dataclasses import dataclass

from moe_course.grading.exercises import custom_course


@dataclass(frozen=True)
class Exercise:
    """One exercise. `parts` are the names a learner defines; the first of them is the exercise's name."""

    number: str  # "2.2"
    notebook: str  # "02_topk_routing"
    library: str  # the module that holds the library's version, under the same names; "" if there is none
    parts: tuple[str, ...]
    akin: tuple[str, ...] = ()  # modules that show so much of the answer that they are masked as well

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
_DISPATCH = "moe_course.moe.dispatch"
_MODERN = "moe_course.moe.modern"
_METRICS = "moe_course.moe.metrics"
_BALANCE = "moe_course.moe.balance"
_CAPACITY = "moe_course.moe.capacity"
_LEAKS = "moe_course.moe.leaks"
_COUNTS = "moe_course.moe.counts"
_LOOP = "moe_course.moe.loop"
_DISPATCHERS = ("moe_course.moe.dispatchers", "moe_course.moe.fused")
_TINY = "moe_course.lesson.tiny"
_LIMITED = "moe_course.lesson.limited"
_OBJECTIVE = "moe_course.lm.training.objective"
_STEP = "moe_course.lm.training.step"
_PARALLEL_GRADIENTS = "moe_course.systems.parallel_gradients"
_CLINIC = "moe_course.moe.clinic"
_SPECIALIZATION = "moe_course.analysis.specialization"
_SERVING = "moe_course.systems.serving"

_PARALLEL = "moe_course.systems.expert_parallel"
_COMMUNICATION = "moe_course.systems.communication"
_PLACEMENT = "moe_course.systems.placement"

_ALL = (
    Exercise("0.1", "00_start_here", _ACCOUNTING, ("tokens_per_expert",)),
    Exercise("1.1", "01_dense_ffn", _EXPERTS, ("swiglu_ffn",)),
    Exercise("1.2", "01_dense_ffn", _ACCOUNTING, ("ffn_params",)),
    Exercise("1.3", "01_dense_ffn", _ACCOUNTING, ("ffn_flops",)),
    Exercise("1.4", "01_dense_ffn", _ACCOUNTING, ("moe_ffn_params",)),
    Exercise("1.5", "01_dense_ffn", _ACCOUNTING, ("active_matched_d_ff",)),
    Exercise("1.6", "01_dense_ffn", _ACCOUNTING, ("model_params",)),
    Exercise("2.1", "02_topk_routing", _ROUTER, ("router_probs",)),
    Exercise("2.2", "02_topk_routing", _ROUTER, ("top_k_gate",), (_BALANCE, _MODERN)),
    Exercise("2.3", "02_topk_routing", _ROUTER, ("sparse_gates",)),
    Exercise("2.4", "02_topk_routing", _ROUTER, ("noisy_logits",)),
    Exercise("2.5", "02_topk_routing", _LOOP, ("moe_loop",), (_DISPATCH, *_DISPATCHERS)),
    Exercise("2.6", "02_topk_routing", _ROUTER, ("switch_gate",)),
    Exercise("2.7", "02_topk_routing", _ROUTER, ("router_gradient",)),
    Exercise("3.1", "03_dispatch", _DISPATCH, ("plan_dispatch",), (*_DISPATCHERS, _COUNTS)),
    Exercise("3.2", "03_dispatch", _DISPATCH, ("gather_tokens",)),
    Exercise("3.3", "03_dispatch", _DISPATCH, ("grouped_ffn",)),
    Exercise("3.4", "03_dispatch", _DISPATCH, ("combine",)),
    Exercise(
        "3.5", "03_dispatch", "moe_course.moe.minimal", ("MoELayer",), ("moe_course.moe.layer", _LIMITED)
    ),
    Exercise("4.1", "04_load_balancing", _METRICS, ("expert_load",), (_COUNTS, _TINY)),
    Exercise("4.2", "04_load_balancing", _METRICS, ("max_violation",), ("moe_course.lesson.collapse",)),
    Exercise("4.3", "04_load_balancing", _METRICS, ("cv_squared",)),
    Exercise("4.4", "04_load_balancing", _BALANCE, ("load_balancing_loss",)),
    Exercise("4.5", "04_load_balancing", _BALANCE, ("router_z_loss",)),
    Exercise("4.6", "04_load_balancing", _BALANCE, ("biased_top_k",), (_MODERN,)),
    Exercise("4.7", "04_load_balancing", _BALANCE, ("update_bias",)),
    Exercise("4.8", "04_load_balancing", _BALANCE, ("expert_choice",)),
    Exercise("4.9", "04_load_balancing", _METRICS, ("global_load",)),
    Exercise("5.1", "05_capacity", _CAPACITY, ("expert_capacity",)),
    Exercise("5.2", "05_capacity", _CAPACITY, ("positions_in_expert",)),
    Exercise("5.3", "05_capacity", _CAPACITY, ("batch_priority_positions",)),
    Exercise("5.4", "05_capacity", _CAPACITY, ("fill_buffers",), ("moe_course.moe.layer", _LIMITED)),
    Exercise("5.5", "05_capacity", _CAPACITY, ("read_buffers",)),
    Exercise("5.6", "05_capacity", _CAPACITY, ("drop_and_waste",)),
    Exercise("5.7", "05_capacity", _LEAKS, ("depends_on_future",)),
    Exercise("5.8", "05_capacity", _LEAKS, ("depends_on_batch",)),
    Exercise("6.1", "06_modern_moe", _MODERN, ("shared_expert_moe",)),
    Exercise("6.2", "06_modern_moe", _MODERN, ("split_experts",)),
    Exercise("6.3", "06_modern_moe", _MODERN, ("group_limited_top_k",)),
    Exercise("6.4", "06_modern_moe", _MODERN, ("from_huggingface",)),
    Exercise("6.5", "06_modern_moe", _MODERN, ("upcycle",)),
    Exercise("7.1", "07_moe_language_model", _OBJECTIVE, ("moe_objective",)),
    Exercise("7.2", "07_moe_language_model", "moe_course.lm.model.transformer", ("TransformerBlock",)),
    Exercise("7.3", "07_moe_language_model", _STEP, ("train_step",)),
    Exercise("7.4", "07_moe_language_model", _STEP, ("learning_rate",)),
    Exercise("7.5", "07_moe_language_model", _OBJECTIVE, ("bits_per_byte",)),
    Exercise("7.6", "07_moe_language_model", "moe_course.lm.model.sample", ("sample_next",)),
    Exercise("8.1", "08_specialization", _SPECIALIZATION, ("routing_counts",)),
    Exercise("8.2", "08_specialization", _SPECIALIZATION, ("mutual_information",)),
    Exercise("8.3", "08_specialization", _SPECIALIZATION, ("permutation_p_value",)),
    Exercise("8.4", "08_specialization", _SPECIALIZATION, ("repeat_rate",)),
    Exercise("8.5", "08_specialization", _SPECIALIZATION, ("coactivation",)),
    Exercise("8.6", "08_specialization", _SPECIALIZATION, ("ablation_effect",)),
    Exercise("9.1", "09_expert_parallelism", _PARALLEL, ("expert_rank",)),
    Exercise("9.2", "09_expert_parallelism", _PARALLEL, ("send_counts",)),
    Exercise("9.3", "09_expert_parallelism", _COMMUNICATION, ("all_to_all_bytes",)),
    Exercise("9.4", "09_expert_parallelism", _COMMUNICATION, ("distinct_nodes",)),
    Exercise("9.5", "09_expert_parallelism", _PARALLEL, ("exchange_rows",)),
    Exercise("9.6", "09_expert_parallelism", _PARALLEL, ("expert_parallel_forward",)),
    Exercise("9.7", "09_expert_parallelism", _COMMUNICATION, ("step_time",)),
    Exercise("9.8", "09_expert_parallelism", _PLACEMENT, ("place_experts",)),
    Exercise("10.1", "10_serving", _SERVING, ("expected_distinct_experts",), ("moe_course.systems.traces",)),
    Exercise("10.2", "10_serving", _SERVING, ("decode_bytes",)),
    Exercise("10.3", "10_serving", _SERVING, ("decode_seconds",)),
    Exercise("10.4", "10_serving", _SERVING, ("simulate_expert_cache",)),
    Exercise("10.5", "10_serving", _SERVING, ("tail_latency",)),
    Exercise("10.6", "10_serving", _SERVING, ("quantize_int8", "dequantize_int8")),
    Exercise("11.1", "11_clinic", _CLINIC, ("gate",), (_ROUTER, _MODERN)),
    Exercise("11.2", "11_clinic", _CLINIC, ("route_with_loss",), (_BALANCE,)),
    Exercise("11.3", "11_clinic", _CLINIC, ("biased_gate",)),
    Exercise("11.4", "11_clinic", _CLINIC, ("BalancedGate",)),
    Exercise("11.5", "11_clinic", _PARALLEL_GRADIENTS, ("reduce_gradients",)),
    Exercise("11.6", "11_clinic", _PARALLEL_GRADIENTS, ("clip_gradients",)),
    Exercise("11.7", "11_clinic", _CLINIC, ("route_in_bf16",)),
    Exercise("11.8", "11_clinic", _CLINIC, ("context_router",)),
    Exercise("11.9", "11_clinic", _CLINIC, ("decode_experts",), (_LOOP, _DISPATCH, *_DISPATCHERS)),
    *(
        Exercise(mine["number"], mine["notebook"], mine.get("library", ""), tuple(mine["parts"]))
        for mine in custom_course.settings()["exercise"]
    ),
)

EXERCISES: dict[str, Exercise] = {exercise.name: exercise for exercise in _ALL}
"""Every exercise by name, in the order of the course."""

PART_OF: dict[str, Exercise] = {part: exercise for exercise in _ALL for part in exercise.parts}
"""The exercise that a name belongs to: two-part exercises are found by either part."""

if unknown := custom_course.settings()["points"].keys() - EXERCISES.keys():
    raise ValueError(
        f"{custom_course.FILE} gives points to {', '.join(unknown)}; the exercises are {', '.join(EXERCISES)}"
    )
if len(PART_OF) != sum(len(exercise.parts) for exercise in _ALL):
    raise ValueError(f"{custom_course.FILE}: an exercise has the name of another one")

NOTEBOOKS: tuple[str, ...] = tuple(dict.fromkeys(exercise.notebook for exercise in _ALL))
"""The notebooks of the course, in order."""


def exercises_of(notebook: str) -> tuple[Exercise, ...]:
    """The exercises of one notebook, in order. An unknown notebook has none."""
    return tuple(exercise for exercise in _ALL if exercise.notebook == notebook)


def label(name: str) -> str:
    """Number and name, for people: "2.2 top_k_gate". A name that is no exercise stays as it is."""
    return f"{EXERCISES[name].number} {name}" if name in EXERCISES else name


def find(name: str) -> Exercise:
    """The exercise called `name`, by its name, that of a part or its number. Raises ValueError with the names."""
    if numbered := next((exercise for exercise in _ALL if exercise.number == name), None):
        return numbered
    if name not in PART_OF:
        raise ValueError(f"there is no exercise called {name!r}; the exercises are {', '.join(EXERCISES)}")
    return PART_OF[name]
