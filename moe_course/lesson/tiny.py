"""The tiny MoE: one small decoder layer that runs through notebooks 02 to 10, retrained in seconds on one core.

The stream is a phrase book. Each line is in one of eight dialects: it begins with the mark of the dialect, and then
come words, each followed by its translation. Each dialect has its own dictionary, drawn at random.
The experts are too small to learn every dictionary, so the loss is lowest when they divide the dialects among them.

The words are random and the translations follow a rule, so the loss is computed on translations only: 0 is perfect,
and log V is the loss of a blind guess. Embedding and attention keep their random initial values. They mix the mark
and the earlier words into every token, and a router has to learn which part of this mixture matters. Because they do
not change, a routing table can change for one reason only: the router has learned.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from moe_course.moe.counts import expert_counts

TAIL = 50  # steps at the end of which results are the mean
Gate = Callable[[Tensor], tuple[Tensor, Tensor]]  # logits_TE -> weights and experts, both (T,) or both (T, K)
MoE = Callable[..., Tensor]  # (x_TD, weights_TK, idx_TK, w_gate_EDF, w_up_EDF, w_down_EFD) -> y_TD


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    """Sizes of the stream, of the layer and of its training. Raises ValueError for values that are not positive.

    With MOE_COURSE_SMALL in the environment training is a tenth as long: enough to test that a notebook
    runs, too little for its figures to be right.
    """

    num_dialects: int = 8
    num_words: int = 24
    words_per_line: int = 3
    num_lines: int = 2048
    d_model: int = 64
    d_ff: int = 6
    num_experts: int = 4
    steps: int = field(default_factory=lambda: 60 if "MOE_COURSE_SMALL" in os.environ else 600)
    lines_per_step: int = 32
    learning_rate: float = 0.02
    router_learning_rate: float = 3.0  # of plain gradient descent, see `_optimizers`

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")


@dataclass(frozen=True, eq=False)
class Stream:
    """Lines of tokens, and the dialect of each line.

    tokens_BS: mark, word, translation, word, translation, ...; words are 0..V−1, the mark of dialect g is V + g.
    labels_B: the dialect of each line, 0..G−1, all equally frequent.
    """

    tokens_BS: Tensor
    labels_B: Tensor


def make_stream(seed: int, config: TinyConfig | None = None) -> Stream:
    """Draw a dictionary for each dialect, then lines of random words with their translations."""
    c = config or TinyConfig()
    rng = torch.Generator().manual_seed(seed)
    dictionary_GV = torch.stack([torch.randperm(c.num_words, generator=rng) for _ in range(c.num_dialects)])
    labels_B = torch.arange(c.num_lines) % c.num_dialects
    words_BS = torch.randint(c.num_words, (c.num_lines, c.words_per_line), generator=rng)
    pairs_BS = torch.stack([words_BS, dictionary_GV[labels_B[:, None], words_BS]], dim=2).flatten(1)
    return Stream(torch.cat([c.num_words + labels_B[:, None], pairs_BS], dim=1), labels_B)


class TinyMoE(nn.Module):
    """Embedding, causal attention, RMSNorm, one MoE layer, residuals, output head.

    `gate` and `moe` are arguments, so that a learner's own functions can do the routing and the experts' work.
    The trained parameters are `router` (D, E), `w_gate` and `w_up` (E, D, F), `w_down` (E, F, D) and `head` (D, V).
    """

    embedding: Tensor
    w_query: Tensor
    w_key: Tensor
    w_value: Tensor
    routed: tuple[Tensor, Tensor, Tensor]  # logits_TE, weights_TK, idx_TK of the last call

    def __init__(self, config: TinyConfig, gate: Gate, moe: MoE, rng: torch.Generator):
        super().__init__()
        self.gate, self.moe = gate, moe
        d, f, e = config.d_model, config.d_ff, config.num_experts

        def normal(*shape: int, gain: float = 1.0) -> Tensor:
            return torch.randn(*shape, generator=rng) * gain / math.sqrt(shape[-2])

        # These are never trained. Queries are small, so that attention is nearly even. Values are large, so that
        # the earlier words, which a router must learn to ignore, weigh as much as the mark, which it needs.
        vocabulary = config.num_words + config.num_dialects
        self.register_buffer("embedding", torch.randn(vocabulary, d, generator=rng))
        self.register_buffer("w_query", normal(d, d, gain=0.1))
        self.register_buffer("w_key", normal(d, d))
        self.register_buffer("w_value", normal(d, d, gain=8.0))

        self.w_gate = nn.Parameter(normal(e, d, f))
        self.w_up = nn.Parameter(normal(e, d, f))
        self.w_down = nn.Parameter(normal(e, f, d))
        self.head = nn.Parameter(normal(d, config.num_words))
        self.router = nn.Parameter(normal(d, e, gain=0.1))  # a small start, as in Switch, section 2.4

    def forward(self, tokens_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits_BSV of the next token, and idx_TK, the experts of every token."""
        x_BSD = self.context(tokens_BS)
        y_BSD, idx_TK = self.moe_layer(_norm(x_BSD))
        return _norm(x_BSD + y_BSD) @ self.head, idx_TK

    def context(self, tokens_BS: Tensor) -> Tensor:
        """Embedding and causal attention: each token, mixed with the tokens before it."""
        x_BSD = self.embedding[tokens_BS]
        h_BSD = _norm(x_BSD)
        length, width = x_BSD.shape[1:]
        mask_SS = torch.full((length, length), -torch.inf).triu(1)
        mask_SS[:, 0] += (
            1.0  # more attention to the mark, like an attention sink (Xiao 2023, arXiv 2309.17453)
        )
        scores_BSS = (h_BSD @ self.w_query) @ (h_BSD @ self.w_key).mT / math.sqrt(width)
        return x_BSD + (scores_BSS + mask_SS).softmax(dim=-1) @ (h_BSD @ self.w_value)

    def moe_layer(self, h_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """The layer of the course: gate, experts, weighted sum. Returns y_BSD and idx_TK."""
        h_TD = h_BSD.flatten(0, 1)
        logits_TE = h_TD @ self.router
        weights_TK, idx_TK = self.gate(logits_TE)
        if weights_TK.ndim == 1:
            weights_TK, idx_TK = weights_TK[:, None], idx_TK[:, None]
        if weights_TK.shape != idx_TK.shape or len(idx_TK) != len(h_TD):
            raise ValueError(
                f"gate must give each of {len(h_TD)} tokens its weights and experts, "
                f"got shapes {tuple(weights_TK.shape)} and {tuple(idx_TK.shape)}"
            )
        self.routed = logits_TE, weights_TK, idx_TK
        y_TD = self.moe(h_TD, weights_TK, idx_TK, self.w_gate, self.w_up, self.w_down)
        return y_TD.view_as(h_BSD), idx_TK


@dataclass(frozen=True, eq=False)
class TinyRun:
    """The results of one training run. Sequences have one value for each step.

    loss: cross-entropy of the translations, nats. router_gradient: norm of the gradient on the router.
    router_movement: distance of the router from its start, in units of its length at the start. load: each
    expert's share of the words, one load_E a step. The tables have the share of each dialect's words that went
    to each expert, before and after training. model: as it is after training.
    """

    seed: int
    loss: list[float]
    router_gradient: list[float]
    router_movement: list[float]
    load: list[Tensor]
    table_before_GE: Tensor
    table_after_GE: Tensor
    word_weight: Tensor
    word_loss: Tensor
    model: TinyMoE

    @property
    def final_loss(self) -> float:
        """Mean loss of the last 50 steps."""
        tail = self.loss[-TAIL:]
        return sum(tail) / len(tail)

    @property
    def router_moved(self) -> float:
        """How far the router is from its start at the end. A few millionths are rounding errors."""
        return self.router_movement[-1]

    @property
    def load_E(self) -> Tensor:
        """Share of the words that each expert takes after training."""
        return self.table_after_GE.mean(dim=0)  # all dialects have the same number of lines


def renormalised_top1(logits_TE: Tensor) -> tuple[Tensor, Tensor]:
    """The wrong gate: the best expert, and as its weight its probability divided by itself, which is always 1."""
    weight_TK, idx_TK = torch.softmax(logits_TE, dim=-1).topk(1, dim=-1)
    return weight_TK / weight_TK.sum(dim=-1, keepdim=True), idx_TK


def train(
    gate: Gate,
    seed: int,
    config: TinyConfig | None = None,
    moe: MoE | None = None,
    frozen_router: bool = False,
    after_step: Callable[[Tensor], None] | None = None,
    extra_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> TinyRun:
    """Train a tiny MoE. Runs with the same seed have the same dictionaries, initial weights and order of the data.

    `moe` is the library's `moe_loop` unless given. Learning rates fall to 0 over the second half. `after_step` is
    called after every step with the experts of its words, one row a line, so that a balancing bias can follow.
    `extra_loss` gets logits_TE and idx_TK of the words, and is added to what is minimised, not to what is reported.
    """
    c = config or TinyConfig()
    if moe is None:
        from moe_course.moe import moe_loop  # here, not above: grading hides answers from set-up cells

        moe = moe_loop
    rng = torch.Generator().manual_seed(1_000 + seed)  # other random numbers than those of the stream
    stream, model = make_stream(seed, c), TinyMoE(c, gate, moe, rng)
    model.router.requires_grad_(not frozen_router)
    start_DE, before_GE = model.router.detach().clone(), routing_table(model, stream, c)
    optimizers = _optimizers(model, c)
    schedules = [LambdaLR(o, lambda step: min(1.0, 2 - 2 * step / c.steps)) for o in optimizers]

    loss, gradient, movement, load = [], [], [], []
    words: list[tuple[Tensor, Tensor]] = []
    for step in range(c.steps):
        rows = torch.randint(c.num_lines, (c.lines_per_step,), generator=rng)
        logits_BSV, idx_TK = model(stream.tokens_BS[rows, :-1])
        ce = translation_loss(logits_BSV, stream.tokens_BS[rows])
        model.zero_grad()
        router_logits_TE, weights_TK, _ = model.routed
        extra = (
            extra_loss(_words(router_logits_TE, len(rows)), _words(idx_TK, len(rows))) if extra_loss else 0
        )
        (ce + extra).backward()
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        loss.append(ce.item())
        if step >= c.steps - TAIL:
            each_N = translation_loss(logits_BSV.detach(), stream.tokens_BS[rows], "none")
            words.append((_words(weights_TK.detach(), len(rows)).sum(dim=1), each_N))
        gradient.append(0.0 if model.router.grad is None else model.router.grad.norm().item())
        movement.append(((model.router.detach() - start_DE).norm() / start_DE.norm()).item())
        load.append(_shares(_of_words(idx_TK, len(rows)), c.num_experts))
        if after_step is not None:
            after_step(_of_words(idx_TK, len(rows)))
    after_GE = routing_table(model, stream, c)
    word_weight, word_loss = (torch.cat(found) for found in zip(*words, strict=True))
    return TinyRun(seed, loss, gradient, movement, load, before_GE, after_GE, word_weight, word_loss, model)


def _optimizers(model: TinyMoE, config: TinyConfig) -> list[torch.optim.Optimizer]:
    """Adam, but plain gradient descent for the router.

    Adam divides a gradient by its size. The rounding errors in the gradient of p / p, about 1e-8, would become
    steps of full size, and a router that learns nothing would move at random.
    """
    others = [weight for weight in model.parameters() if weight is not model.router]
    return [
        torch.optim.Adam(others, lr=config.learning_rate, betas=(0.9, 0.98)),
        torch.optim.SGD([model.router], lr=config.router_learning_rate),
    ]


def translation_loss(logits_BSV: Tensor, tokens_BS: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy in nats of the translations, each predicted at its word: positions 1, 3, 5, ..."""
    targets = tokens_BS[:, 2::2].flatten()
    return F.cross_entropy(logits_BSV[:, 1::2].flatten(0, 1), targets, reduction=reduction)


@torch.no_grad()
def routing_table(model: TinyMoE, stream: Stream, config: TinyConfig, lines: int = 512) -> Tensor:
    """table_GE: the share of each dialect's words that the model sends to each expert; rows sum to 1."""
    labels_B = stream.labels_B[:lines]
    _, idx_TK = model(stream.tokens_BS[:lines, :-1])
    idx_BN = _of_words(idx_TK, len(labels_B))
    rows = [_shares(idx_BN[labels_B == g], config.num_experts) for g in range(config.num_dialects)]
    return torch.stack(rows)


def _of_words(idx_TK: Tensor, lines: int) -> Tensor:
    """The experts of the words only, one row for each line: at marks and translations nothing is predicted."""
    return _words(idx_TK, lines).reshape(lines, -1)


def _words(values_TX: Tensor, lines: int) -> Tensor:
    """The rows of the words, line by line."""
    return values_TX.view(lines, -1, values_TX.shape[-1])[:, 1::2].flatten(0, 1)


def _shares(idx: Tensor, num_experts: int) -> Tensor:
    return expert_counts(idx.reshape(-1, 1), num_experts) / idx.numel()


def _norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:])
