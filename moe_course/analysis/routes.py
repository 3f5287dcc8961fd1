"""Where a model sends its tokens: its routing and losses on labelled documents, and its losses without one expert.

    sample = windows(line, length=64, per_document=4, documents=100)     # line: a `moe_course.lm.Tokens`
    seen = record_routes(model, sample)
    seen.idx_LTK[layer], seen.domain_T, seen.document_T
    with silenced(model, layer=2, expert=5):
        loss_G = loss_by_domain(model, sample)

A window never crosses from one document into the next, so the routing of a token depends on its own document only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moe_course.moe.layer import MoELayer

Value = TypeVar("Value")
BATCH = 32  # how many windows are computed together


class Line(Protocol):
    """What this module needs of `moe_course.lm.Tokens`: documents one after the other, and where each starts."""

    @property
    def ids_T(self) -> Tensor: ...
    @property
    def domain_T(self) -> Tensor: ...
    @property
    def starts(self) -> Tensor: ...
    @property
    def domains(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, eq=False)
class Sample:
    """Windows of documents, padded on the right to the same length.

    ids_BS1: (B, S + 1); the last column holds targets only. real_BS: True where an input and its target belong to the
    document and are no padding. document_B, domain_B: the document and the domain of each window. All are int64
    except real_BS.
    """

    ids_BS1: Tensor
    real_BS: Tensor
    document_B: Tensor
    domain_B: Tensor
    domains: tuple[str, ...]

    def per_token(self, value_B: Tensor) -> Tensor:
        """Repeat a value of each window for each of its tokens: (T,)."""
        return value_B[:, None].expand_as(self.real_BS)[self.real_BS]

    def only(self, keep_B: Tensor) -> Sample:
        """The windows for which keep_B is True."""
        kept = (self.ids_BS1[keep_B], self.real_BS[keep_B], self.document_B[keep_B], self.domain_B[keep_B])
        return Sample(*kept, self.domains)


@dataclass(frozen=True, eq=False)
class Routes:
    """What happened to every token of a sample. T runs over all windows, one after the other, without padding.

    idx_LTK, weights_LTK: the chosen experts and their weights, for each MoE layer. token_T: the id of the token that
    was routed. target_T: the id of the token after it, which the model had to predict; loss_T: the loss of that
    prediction, in nats. position_T: the token's place in its window, from 0. window_T, document_T, domain_T: the
    window, document and domain of the token.
    """

    idx_LTK: Tensor
    weights_LTK: Tensor
    token_T: Tensor
    target_T: Tensor
    loss_T: Tensor
    position_T: Tensor
    window_T: Tensor
    document_T: Tensor
    domain_T: Tensor
    domains: tuple[str, ...]
    num_experts: int


def windows(line: Line, length: int, per_document: int, documents: int) -> Sample:
    """Windows of at most `length` tokens: up to `per_document` of each of up to `documents` documents a domain.

    Both are spread evenly over the documents and over each document, and their order stays. Documents of fewer than
    two tokens have nothing to predict and are left out. Raises ValueError for sizes below 1, and if no document is
    left.
    """
    if min(length, per_document, documents) < 1:
        raise ValueError(
            f"length, per_document and documents must be at least 1, got {(length, per_document, documents)}"
        )
    rows, document_of_row = [], []
    for document, start, end in _chosen_documents(line, documents):
        for place in _evenly(range(start, end - 1, length), per_document):  # the last token is a target only
            rows.append(line.ids_T[place : min(place + length + 1, end)].long())
            document_of_row.append(document)
    if not rows:
        raise ValueError(f"none of the {len(line.starts)} documents has two tokens")
    ids_BS1 = torch.zeros(len(rows), length + 1, dtype=torch.int64)
    real_BS = torch.zeros(len(rows), length, dtype=torch.bool)
    for row, ids in enumerate(rows):
        ids_BS1[row, : len(ids)] = ids
        real_BS[row, : len(ids) - 1] = True
    document_B = torch.tensor(document_of_row)
    return Sample(ids_BS1, real_BS, document_B, line.domain_T[line.starts[document_B]].long(), line.domains)


def record_routes(model: nn.Module, sample: Sample) -> Routes:
    """Run a language model over a sample, and collect what its routers chose and the loss of every token.

    model(tokens_BS) returns (logits_BSV, aux), and aux.stats holds the MoEStats of each MoE layer. Afterwards the
    model is in the mode it had before. Raises ValueError for a model without MoE layers.
    """
    layers = moe_layers(model)
    if not layers:
        raise ValueError("the model has no MoE layer, so there are no routes")
    pieces: list[tuple[Tensor, Tensor, Tensor]] = []
    for loss_T, stats, real_T in _run(model, sample):
        idx_LTK = torch.stack([layer.idx_TK for layer in stats])[:, real_T]
        weights_LTK = torch.stack([layer.weights_TK for layer in stats])[:, real_T]
        pieces.append((idx_LTK, weights_LTK, loss_T))
    idx, weights, losses = zip(*pieces, strict=True)
    real_BS, positions = sample.real_BS, torch.arange(sample.real_BS.shape[1])
    return Routes(
        idx_LTK=torch.cat(idx, dim=1),
        weights_LTK=torch.cat(weights, dim=1),
        token_T=sample.ids_BS1[:, :-1][real_BS],
        target_T=sample.ids_BS1[:, 1:][real_BS],
        loss_T=torch.cat(losses),
        position_T=positions.expand_as(real_BS)[real_BS],
        window_T=sample.per_token(torch.arange(len(real_BS))),
        document_T=sample.per_token(sample.document_B),
        domain_T=sample.per_token(sample.domain_B),
        domains=sample.domains,
        num_experts=layers[0].config.num_experts,
    )


def loss_by_domain(model: nn.Module, sample: Sample) -> Tensor:
    """loss_G: cross-entropy of each domain's tokens, nats per token; nan for a domain without tokens."""
    loss_T = torch.cat([losses for losses, _, _ in _run(model, sample)]).double()
    domain_T, count = sample.per_token(sample.domain_B), len(sample.domains)
    sums_G = torch.zeros(count, dtype=torch.float64).scatter_add(0, domain_T, loss_T)
    return sums_G / torch.bincount(domain_T, minlength=count)


@contextmanager
def silenced(model: nn.Module, layer: int, *experts: int) -> Iterator[None]:
    """Inside, these experts of one MoE layer return 0. Nothing is rerouted: the gates stay as they were.

    Their `w_down` is set to 0, which is exact: SwiGLU has no biases. Afterwards the weights are what they were, to
    the bit, even if an error is raised inside. Raises ValueError if there is no such layer or expert.
    """
    layers = moe_layers(model)
    if not 0 <= layer < len(layers):
        raise ValueError(f"there is no MoE layer {layer}: the model has {len(layers)}")
    w_down_EFD = layers[layer].w_down
    for expert in experts:
        if not 0 <= expert < len(w_down_EFD):
            raise ValueError(f"there is no expert {expert}: the layer has {len(w_down_EFD)}")
    chosen = list(experts)
    kept = w_down_EFD[chosen].detach().clone()
    try:
        with torch.no_grad():
            w_down_EFD[chosen] = 0
        yield
    finally:
        with torch.no_grad():
            w_down_EFD[chosen] = kept


def _chosen_documents(line: Line, most: int) -> list[tuple[int, int, int]]:
    """(number, start, end) of up to `most` documents of each domain, in order."""
    ends = [*line.starts[1:].tolist(), len(line.ids_T)]
    spans = list(zip(range(len(ends)), line.starts.tolist(), ends, strict=True))
    domains = line.domain_T[line.starts].tolist()
    of_domain = [
        [span for span, domain in zip(spans, domains, strict=True) if domain == g] for g in set(domains)
    ]
    return sorted(span for own in of_domain for span in _evenly(own, most))


def _evenly(values: Sequence[Value], most: int) -> list[Value]:
    """Up to `most` of the values, evenly spaced."""
    count = min(most, len(values))
    return [values[n * len(values) // count] for n in range(count)]


def moe_layers(model: nn.Module) -> list[MoELayer]:
    """The MoE layers, first layer first."""
    return [module for module in model.modules() if isinstance(module, MoELayer)]


def _run(model: nn.Module, sample: Sample) -> Iterator[tuple[Tensor, list[Any], Tensor]]:
    """For each batch: the loss of its real tokens, the stats of its layers, and which of its tokens are real.

    Padding stands after the text, so it has no influence on a causal model; its own results are not used.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for ids_BS1, real_BS in zip(
                sample.ids_BS1.split(BATCH), sample.real_BS.split(BATCH), strict=True
            ):
                logits_BSV, aux = model(ids_BS1[:, :-1])
                loss_T = F.cross_entropy(
                    logits_BSV[real_BS].float(), ids_BS1[:, 1:][real_BS], reduction="none"
                )
                yield loss_T, aux.stats, real_BS.flatten()
    finally:
        model.train(training)
