"""`mine()`: a mixture of experts made of the learner's own functions, and of the library's where one is missing."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moe_course.grading.exercises import protocol
from moe_course.grading.exercises.registry import PART_OF
from moe_course.lesson import checking, parts, workspace

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

        m = mine(through=3)                         # the parts of notebooks 01 to 03
        weights_TK, idx_TK = m.gate(logits_TE, 2)
        y_TD = m.moe(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD)
        y_BSD, stats = m.layer(config)(x_BSD)
        m.top_k_gate                                # any exercise by its name

    A part is yours once it has passed its check, in this session or an earlier one; the version that passed is used,
    and the note says where your notebook holds another one by now.
    """
    assembled = Mine(through, sys._getframe(1).f_globals)
    if not protocol.CHECKS_DISABLED:
        print(assembled)
    return assembled


class Mine:
    """Every exercise as an attribute: the learner's version where one has passed, else the library's.

    namespace: that of the learner's notebook, in which newer versions of a part may be.
    """

    def __init__(self, through: int = 11, namespace: Mapping[str, Any] | None = None) -> None:
        self._namespace = namespace or {}
        self._own: dict[str, Any] = {}
        self._broken: dict[str, str] = {}
        self._older: set[str] = set()
        self._saved: dict[str, dict[str, str]] = {}  # the definitions in the files of the notebooks
        self._numbers = {name: int(PART_OF[name].number.split(".")[0]) for name in PART_OF}
        self._through = through
        if protocol.CHECKS_DISABLED:
            return
        for name in dict.fromkeys([*PART_OF, *LAYER_PARTS]):  # in the order of the course
            if self._numbers.get(name, through) <= through:
                self._take(name)

    def _take(self, name: str) -> None:
        """Find the learner's version of a part: the one that passed in this session, else the one that was stored."""
        exercise = PART_OF[name].name if name in PART_OF else name
        code = checking.code.get(exercise)
        if name in checking.passed and (code is None or self._unchanged(name, code)):
            self._own[name] = checking.passed[name]
        elif code := code or parts.kept(exercise):
            try:
                self._own |= parts.load(code, (name,), self._part)
            except Exception as error:  # the learner's code may raise any error
                self._broken[name] = f"{type(error).__name__}: {error}"
        if name in self._own and code and self._is_older(name, code):
            self._older.add(name)

    def _unchanged(self, name: str, code: str) -> bool:
        """Whether the object in memory still is what passed: its helpers too, and the other parts that it calls."""
        written = checking.passed[name]
        names = PART_OF[name].parts if name in PART_OF else (name,)
        sources = _sources(names, [checking.passed.get(part) for part in names])
        namespace = getattr(written, "__globals__", self._namespace)
        if parts.collected(sources, namespace, set(PART_OF)) != code:
            return False
        others = parts.names_used(code) & PART_OF.keys() - set(names)
        return all(namespace.get(other) is self._own.get(other) for other in others)

    def _is_older(self, name: str, code: str) -> bool:
        """Whether the notebook holds another version of a part by now than the one that passed."""
        now = self._namespace.get(name)
        if now is not None and str(getattr(now, "__module__", "")).split(".")[0] != "moe_course":
            text = _sources([name], [now]).get(name)
        else:
            notebook = PART_OF[name].notebook if name in PART_OF else ""
            if notebook not in self._saved:
                self._saved[notebook] = workspace.saved(notebook)
            text = self._saved[notebook].get(name)
        return text is not None and workspace.source_hash({name: text}) != workspace.source_hash({name: code})

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
        named = self._named()
        own = [name for name in named if name in self._own and name not in self._older]
        older = [name for name in named if name in self._older]
        others = [name for name in named if name not in self._own]
        lines = [f"Yours: {', '.join(own)}."] if own or not older else []
        if older:
            lines.append(f"Yours as they last passed, not as your notebook has them now: {', '.join(older)}.")
        if others:
            lines.append(f"The library's, until yours pass their checks: {', '.join(others)}.")
        for name, error in self._broken.items():
            lines.append(f"Your {name} passed, but its kept code no longer loads ({error}); check it again.")
        lines = [line.replace("Yours: .", "Yours: none yet.") for line in lines]
        return "\n".join(textwrap.fill(line, width=100, subsequent_indent="    ") for line in lines)

    def _named(self) -> list[str]:
        """The parts that the printed note lists: of loop and dispatch, which do the same, the one that is used."""
        unused = DISPATCH_PARTS if self._loops else ("moe_loop",) if self._through > 2 else ()
        return [
            name
            for name in LAYER_PARTS
            if self._numbers.get(name, self._through) <= self._through and name not in unused
        ]

    @property
    def _loops(self) -> bool:
        """Whether `moe` takes the loop: the learner has it, and nothing of the dispatch yet."""
        return "moe_loop" in self._own and not self._own.keys() & set(DISPATCH_PARTS)

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
        if self._loops:
            return self.moe_loop(x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD)
        order_N, counts_E = self.plan_dispatch(idx_TK, len(w_gate_EDF))
        x_ND = self.gather_tokens(x_TD, order_N, idx_TK.shape[1])
        y_ND = self.grouped_ffn(x_ND, counts_E, w_gate_EDF, w_up_EDF, w_down_EFD)
        return self.combine(y_ND, order_N, weights_TK)

    def layer(self, config: MoEConfig) -> OwnLayer:
        """A layer like the library's `MoELayer(config)`, with the same parameters, computed by your functions."""
        from moe_course.lesson.own_layer import OwnLayer  # here: grading hides the library's answers

        return OwnLayer(config, self)


def _sources(names: Sequence[str], written: Sequence[Any]) -> dict[str, str]:
    from moe_course.grading.judge import live  # here: a worker never loads the judge

    return live.sources(names, written)
