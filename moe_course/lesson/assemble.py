"""`mine()`: a mixture of experts made of the learner's own functions, and of the library's where one is missing."""

from __future__ import annotations

import importlib
import textwrap
from typing import TYPE_CHECKING, Any

from moe_course.grading.exercises import protocol
from moe_course.grading.exercises.registry import PART_OF
from moe_course.lesson import checking, parts

if TYPE_CHECKING:
    from torch import Tensor

    from moe_course.config import MoEConfig
    from moe_course.lesson.own_layer import OwnLayer

LAYER_PARTS = (
    "swiglu_ffn", "router_probs", "top_k_gate", "noisy_logits", "switch_gate", "moe_loop",
    "plan_dispatch", "gather_tokens", "grouped_ffn", "combine",
    "expert_load", "load_balancing_loss", "router_z_loss", "biased_top_k", "update_bias",
    "expert_capacity", "positions_in_expert", "batch_priority_positions", "fill_buffers", "read_buffers",
    "shared_expert_moe", "group_limited_top_k",
)  # fmt: skip
"""The exercises of which the layer consists, in the order of the course."""
DISPATCH_PARTS = ("plan_dispatch", "gather_tokens", "grouped_ffn", "combine")


def mine(through: int = 11) -> Mine:
    """Your own functions, put together. Prints which of them are yours and which are the library's.

        m = mine(through=3)                         # the note names the parts of notebooks 01 to 03
        weights_TK, idx_TK = m.gate(logits_TE, 2)
        y_TD = m.moe(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD)
        y_BSD, stats = m.layer(config)(x_BSD)
        m.top_k_gate                                # any exercise by its name

    A part is yours once it has passed its check, in this session or an earlier one.
    """
    assembled = Mine(through)
    if not protocol.CHECKS_DISABLED:
        print(assembled)
    return assembled


class Mine:
    """Every exercise as an attribute: the learner's version where one has passed, else the library's."""

    def __init__(self, through: int = 11) -> None:
        self._through = through
        self._own: dict[str, Any] = {}
        self._broken: dict[str, str] = {}
        if protocol.CHECKS_DISABLED:
            return
        for name in dict.fromkeys([*PART_OF, *LAYER_PARTS]):  # in the order of the course
            self._take(name)

    def _take(self, name: str) -> None:
        """Find the learner's version of a part: the one that passed in this session, else the one that was stored."""
        if name in checking.passed:
            self._own[name] = checking.passed[name]
            return
        exercise = PART_OF[name].name if name in PART_OF else name
        try:
            loaded = parts.load(exercise, (name,), self._part)
        except Exception as error:  # the learner's code may raise any error
            self._broken[name] = f"{type(error).__name__}: {error}"
        else:
            self._own |= loaded or {}

    def _part(self, name: str) -> Any:
        """The part called `name`. Raises KeyError if there is none."""
        if name in self._own:
            return self._own[name]
        home = PART_OF[name].library if name in PART_OF else "moe_course.moe"
        library = importlib.import_module(home)
        if name not in PART_OF and name not in library.__all__:
            raise KeyError(name)
        return getattr(library, name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._part(name)
        except KeyError:
            raise AttributeError(f"there is no part called {name!r}") from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *PART_OF, *LAYER_PARTS})

    def __repr__(self) -> str:
        own = [name for name in self._named() if name in self._own]
        others = [name for name in self._named() if name not in self._own]
        lines = [f"Yours: {', '.join(own) or 'none yet'}."]
        if others:
            lines.append(f"The library's, until yours pass their checks: {', '.join(others)}.")
        for name, error in self._broken.items():
            lines.append(f"Your {name} passed, but its kept code no longer loads ({error}); check it again.")
        return "\n".join(textwrap.fill(line, width=100, subsequent_indent="    ") for line in lines)

    def _named(self) -> list[str]:
        """The parts that the printed note lists."""
        number = {name: int(PART_OF[name].number.split(".")[0]) for name in LAYER_PARTS if name in PART_OF}
        return [name for name in LAYER_PARTS if number.get(name, self._through) <= self._through]

    def gate(self, logits_TE: Tensor, k: int, renormalize: bool = True) -> tuple[Tensor, Tensor]:
        """weights_TK and idx_TK: the softmax of the logits, and then your `top_k_gate`."""
        return self.top_k_gate(logits_TE.float().softmax(dim=-1), k, renormalize)

    def moe(
        self,
        x_TD: Tensor,
        weights_TK: Tensor,
        idx_TK: Tensor,
        w_gate_EDF: Tensor,
        w_up_EDF: Tensor,
        w_down_EFD: Tensor,
    ) -> Tensor:
        """y_TD by your dispatch (plan, gather, compute, combine), or by your `moe_loop` while you have only that."""
        if "moe_loop" in self._own and not self._own.keys() & set(DISPATCH_PARTS):
            return self.moe_loop(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD)
        order_N, counts_E = self.plan_dispatch(idx_TK, len(w_gate_EDF))
        x_ND = self.gather_tokens(x_TD, order_N, idx_TK.shape[1])
        y_ND = self.grouped_ffn(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD)
        return self.combine(y_ND, order_N, weights_TK)

    def layer(self, config: MoEConfig) -> OwnLayer:
        """A layer like the library's `MoELayer(config)`, with the same parameters, computed by your functions."""
        from moe_course.lesson.own_layer import OwnLayer  # here: grading hides the library's answers

        return OwnLayer(config, self)
