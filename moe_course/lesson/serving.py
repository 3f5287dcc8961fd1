"""What notebook 10 needs of the language model: its sizes, batches of its real routing, and its experts in 8 bits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from moe_course.analysis.routes import Routes, moe_layers
from moe_course.lm.model.transformer import Transformer
from moe_course.systems.traces import steps_of

Store = Callable[[Tensor], tuple[Tensor, Tensor]]
Load = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Texts:
    """The routing of windows of equal length: idx_LBSK for layer, window, position and choice; domain_B of each."""

    idx_LBSK: Tensor
    domain_B: Tensor

    @classmethod
    def of(cls, seen: Routes) -> Texts:
        """The whole windows among the routes of a sample; the shorter ones are left out."""
        lengths = torch.bincount(seen.window_T)
        length = int(lengths.max())
        whole_T = (lengths == length)[seen.window_T]
        idx_LTK = seen.idx_LTK[:, whole_T]
        return cls(idx_LTK.unflatten(1, (-1, length)), seen.domain_T[whole_T][::length])

    def side_by_side(self, layer: int, batch: int, generator: torch.Generator) -> Tensor:
        """idx_SBK of a server: each step has one token of each of `batch` different windows, drawn from all."""
        idx_BSK = self.idx_LBSK[layer]
        return _columns(idx_BSK[torch.randperm(len(idx_BSK), generator=generator)], batch)

    def one_domain(self, layer: int, batch: int, generator: torch.Generator) -> Tensor:
        """As `side_by_side`, but the windows of a step are all of one domain."""
        parts = []
        for domain in self.domain_B.unique():
            idx_BSK = self.idx_LBSK[layer][self.domain_B == domain]
            if len(idx_BSK) >= batch:
                parts.append(_columns(idx_BSK[torch.randperm(len(idx_BSK), generator=generator)], batch))
        return torch.cat(parts) if parts else self.side_by_side(layer, batch, generator)

    def neighbours(self, layer: int, batch: int) -> Tensor:
        """idx_SBK of `batch` tokens that follow each other in one text: what a speculative step checks."""
        idx_BSK = self.idx_LBSK[layer]
        length = idx_BSK.shape[1] // batch * batch
        return idx_BSK[:, :length].unflatten(1, (-1, batch)).flatten(0, 1)

    def shuffled(self, layer: int, batch: int, generator: torch.Generator) -> Tensor:
        """idx_SBK of tokens drawn from everywhere: the load stays, and a step's tokens have nothing in common."""
        return steps_of(self.idx_LBSK[layer].flatten(0, 1), batch, generator)

    def as_one_stream(self, readers: int, generator: torch.Generator) -> Tensor:
        """idx_LTK in the order of a server whose readers take turns token by token; 1: one text after the other."""
        order_B = torch.randperm(self.idx_LBSK.shape[1], generator=generator)
        idx_LBSK = self.idx_LBSK[:, order_B[: len(order_B) // readers * readers]]
        return idx_LBSK.unflatten(1, (-1, readers)).transpose(2, 3).flatten(1, 3)


def _columns(idx_BSK: Tensor, batch: int) -> Tensor:
    """Groups of `batch` windows, position by position."""
    groups = len(idx_BSK) // batch
    if groups == 0:
        raise ValueError(f"{len(idx_BSK)} windows do not make a batch of {batch}")
    return idx_BSK[: groups * batch].unflatten(0, (groups, batch)).transpose(1, 2).flatten(0, 1)


@torch.no_grad()
def with_experts_stored(model: Transformer, store: Store, load: Load) -> Transformer:
    """A copy of the model whose experts' weights went through load(*store(w)), matrix by matrix."""
    changed = copy.deepcopy(model)
    for layer in moe_layers(changed):
        for w in (layer.w_gate, layer.w_up, layer.w_down):
            w.copy_(load(*store(w.detach())))
    return changed
