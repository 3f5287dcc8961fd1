"""The collapse lab: a problem so small that one can watch how a router collapses and measure what that costs.

Points belong to eight subjects. Each subject has its own linear law, y = x·A_g, and an expert is one linear map: it
can represent one law only. So every expert is needed, and the loss rises when one expert serves several subjects.
(Experts with a hidden layer, `Arm(hidden=64)`, can represent several laws, so that the loss hardly shows a collapse.)
All points have a common offset, as the hidden states of a trained model do; at the start this offset decides for
nearly all points which expert has the highest probability. Without it (`CollapseConfig(offset=0)`) few experts die.

Routing is top-1, and the weight is the probability, as in Switch. The runs of an arm differ only in their seed, and
they are trained together: the first axis of tensors, B, is the run. In all arms, runs with the same seed have the
same problem, initial weights and data.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

SIGNAL, SPREAD = 1.0, 0.5  # size of the subjects' centres, and of everything else that differs between points
FIXED = ("random", "hash", "subject")
WORDS = 8  # so many words each subject has; a point is a word and some noise


@dataclass(frozen=True, kw_only=True)
class CollapseConfig:
    """Sizes of the problem and of its training. Raises ValueError for sizes that are not positive.

    `offset` is the size of what all points have in common, 0 for nothing: the push that starts the collapse.
    With MOE_COURSE_SMALL in the environment training is a tenth as long: enough to test that a notebook
    runs, too little for its figures to be right.
    """

    d_model: int = 16
    num_experts: int = 8  # and the same number of subjects
    points: int = 256  # points of a batch, the same number of each subject
    steps: int = field(default_factory=lambda: 40 if "MOE_COURSE_SMALL" in os.environ else 400)
    learning_rate: float = 0.01
    offset: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0 or (value == 0 and name != "offset"):
                raise ValueError(f"{name} must be positive, got {value}")
        if self.points % self.num_experts:
            raise ValueError(f"{self.points} points cannot be shared evenly by {self.num_experts} subjects")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What one arm of the experiment does to balance the load; by default nothing.

    The functions get one run at a time. extra_loss: (logits_TE, idx_TK) -> what is added to the task's loss.
    gate: logits_TE -> weights_TK and idx_TK, all that decides who works on a point.
    select: (probs_TE, bias_E) -> idx_TK with K = 1, and update: (bias_E, counts_E) -> the bias of the next step.
    expert_choice: probs_TE -> weights_EC and idx_EC. noise: the scale of the noise on the logits, in training.
    renormalize: divide the weight by itself, the mistake of notebook 02. fixed: a routing that never learns, "random"
    (by a random matrix), "hash" (each word has a random expert) or "subject" (each subject has its own expert, as
    with a perfect router); the weights are then 1. hidden: units of a ReLU layer in each expert,
    0 for a linear map.
    """

    extra_loss: Callable[[Tensor, Tensor], Tensor] | None = None
    gate: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    select: Callable[[Tensor, Tensor], Tensor] | None = None
    update: Callable[[Tensor, Tensor], Tensor] | None = None
    expert_choice: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    noise: float = 0.0
    renormalize: bool = False
    fixed: str = ""
    hidden: int = 0

    def __post_init__(self) -> None:
        if self.hidden < 0:
            raise ValueError(f"hidden must not be negative, got {self.hidden}")
        if self.fixed not in ("", *FIXED):
            raise ValueError(f"fixed must be one of {', '.join(FIXED)}, or empty, got {self.fixed!r}")


@dataclass(frozen=True, eq=False)
class CollapseRuns:
    """The runs of one arm. The first axis is the run; the second, if there is one, is the step.

    task_loss: mean squared error over mean squared target, so 0 is perfect and always answering 0 gives 1;
    auxiliary losses are not in it. load: each expert's share of the points it works on. violation: max/mean − 1 of
    that load. entropy: mean entropy of a point's probabilities, nats. final_...: the same on new points after
    training, without noise. unserved: the share of those points that no expert took.
    """

    seeds: tuple[int, ...]
    task_loss: Tensor
    load: Tensor
    entropy: Tensor
    final_loss: Tensor
    final_load: Tensor
    final_entropy: Tensor
    unserved: Tensor

    @property
    def violation(self) -> Tensor:
        return self.load.amax(dim=-1) / self.load.mean(dim=-1) - 1

    @property
    def dead_by_step(self) -> Tensor:
        """Experts with less than a tenth of the fair load, on average over up to 25 steps before each step."""
        steps = self.load.shape[1]
        total = F.pad(self.load.cumsum(dim=1), (0, 0, 1, 0))
        first = (torch.arange(1, steps + 1) - 25).clamp(min=0)
        recent = (total[:, 1:] - total[:, first]) / (torch.arange(1, steps + 1) - first)[:, None]
        return (recent < 0.1 / self.load.shape[-1]).sum(dim=-1)

    @property
    def final_violation(self) -> Tensor:
        return self.final_load.amax(dim=-1) / self.final_load.mean(dim=-1) - 1

    @property
    def dead(self) -> Tensor:
        """How many experts have less than a tenth of the fair load after training."""
        return (self.final_load < 0.1 / self.final_load.shape[-1]).sum(dim=-1)


class _Problem:
    """The subjects, their laws and their points, for all seeds at once."""

    def __init__(self, seeds: Sequence[int], config: CollapseConfig):
        self.config, self.rngs = config, [torch.Generator().manual_seed(seed) for seed in seeds]
        d, subjects = config.d_model, config.num_experts
        self.offset = self.normal(1, d)
        self.centre = self.normal(subjects, d)
        self.word = self.normal(subjects, WORDS, d)
        self.law = self.normal(subjects, d, d) / d**0.5
        self.expert_of_word = torch.stack(
            [torch.randperm(subjects * WORDS, generator=rng) % subjects for rng in self.rngs]
        )

    def normal(self, *shape: int) -> Tensor:
        return torch.stack([torch.randn(*shape, generator=rng) for rng in self.rngs])

    def points(self) -> tuple[Tensor, Tensor, Tensor]:
        """New points x_BTD, their targets y_BTD, and the number of the word of each point, word_BT."""
        tokens, subjects = self.config.points, self.config.num_experts
        subject_T = torch.arange(tokens) % subjects
        word_BT = torch.stack([torch.randint(WORDS, (tokens,), generator=rng) for rng in self.rngs])
        run_B1 = torch.arange(len(self.rngs))[:, None]
        x_BTD = SIGNAL * self.centre[:, subject_T] + SPREAD * self.word[run_B1, subject_T, word_BT]
        x_BTD = x_BTD + SPREAD * self.normal(tokens, self.config.d_model) + self.config.offset * self.offset
        x_BTGD = x_BTD.unflatten(1, (-1, subjects))  # the subjects take turns
        y_BTD = torch.einsum("btgd,bgde->btge", x_BTGD, self.law).flatten(1, 2)
        return x_BTD, y_BTD, subject_T * WORDS + word_BT


def train(arm: Arm, seeds: Sequence[int] = (0, 1, 2), config: CollapseConfig | None = None) -> CollapseRuns:
    """Train one arm on all seeds at once."""
    c = config or CollapseConfig()
    problem = _Problem(seeds, c)
    d, experts = c.d_model, c.num_experts
    router = 0.1 * problem.normal(d, experts) / d**0.5  # a small start, as in Switch, section 2.4
    sizes = [d, arm.hidden, d] if arm.hidden else [d, d]
    weights = [problem.normal(experts, a, b) / a**0.5 for a, b in pairwise(sizes)]
    bias_BE = torch.zeros(len(seeds), experts)
    learned = weights if arm.fixed else [*weights, router]
    optimizer = torch.optim.Adam([w.requires_grad_() for w in learned], lr=c.learning_rate)

    task_loss, load, entropy = [], [], []
    for _ in range(c.steps):
        x_BTD, y_BTD, word_BT = problem.points()
        logits_BTE = x_BTD @ router
        if arm.noise:
            logits_BTE = logits_BTE + arm.noise * problem.normal(c.points, experts)
        gates_BTE, idx_BTK = _route(arm, problem, logits_BTE, bias_BE, word_BT)
        loss_B = _task_loss(x_BTD, y_BTD, gates_BTE, weights)
        extra = (
            sum(arm.extra_loss(*run) for run in zip(logits_BTE, idx_BTK, strict=True))
            if arm.extra_loss
            else 0
        )
        optimizer.zero_grad()
        (loss_B.sum() + extra).backward()
        optimizer.step()
        counts_BE = (gates_BTE != 0).sum(dim=1)
        if arm.update:
            bias_BE = torch.stack([arm.update(*run) for run in zip(bias_BE, counts_BE, strict=True)])
        task_loss.append(loss_B.detach())
        load.append(counts_BE / counts_BE.sum(dim=1, keepdim=True))
        entropy.append(_entropy(logits_BTE))

    with torch.no_grad():
        x_BTD, y_BTD, word_BT = problem.points()
        logits_BTE = x_BTD @ router
        gates_BTE, _ = _route(arm, problem, logits_BTE, bias_BE, word_BT)
        counts_BE = (gates_BTE != 0).sum(dim=1)
    return CollapseRuns(
        seeds=tuple(seeds),
        task_loss=torch.stack(task_loss, dim=1),
        load=torch.stack(load, dim=1),
        entropy=torch.stack(entropy, dim=1),
        final_loss=_task_loss(x_BTD, y_BTD, gates_BTE, weights).detach(),
        final_load=counts_BE / counts_BE.sum(dim=1, keepdim=True),
        final_entropy=_entropy(logits_BTE),
        unserved=(gates_BTE == 0).all(dim=-1).float().mean(dim=-1),
    )


def _route(
    arm: Arm, problem: _Problem, logits_BTE: Tensor, bias_BE: Tensor, word_BT: Tensor
) -> tuple[Tensor, Tensor]:
    """gates_BTE, which are 0 where an expert does not get a point, and the expert of each point, idx_BTK (K = 1)."""
    probs_BTE = logits_BTE.softmax(dim=-1)
    if arm.gate:
        routed = [arm.gate(logits_TE) for logits_TE in logits_BTE]
        gates = [torch.zeros_like(z).scatter(1, i, w) for z, (w, i) in zip(logits_BTE, routed, strict=True)]
        return torch.stack(gates), torch.stack([idx_TK for _, idx_TK in routed])
    if arm.expert_choice:
        chosen = [arm.expert_choice(probs_TE) for probs_TE in probs_BTE]
        gates = [
            torch.zeros_like(probs_TE.T).scatter(1, idx_EC, weights_EC)
            for probs_TE, (weights_EC, idx_EC) in zip(probs_BTE, chosen, strict=True)
        ]
        return torch.stack(gates).mT, probs_BTE.argmax(dim=-1, keepdim=True)
    if arm.fixed == "hash":
        idx_BTK = problem.expert_of_word.gather(1, word_BT)[..., None]
    elif arm.fixed == "subject":
        idx_BTK = (word_BT // WORDS)[..., None]
    elif arm.select:
        idx_BTK = torch.stack([arm.select(*run) for run in zip(probs_BTE, bias_BE, strict=True)])
    else:
        idx_BTK = probs_BTE.argmax(dim=-1, keepdim=True)
    chosen_BTE = F.one_hot(idx_BTK[..., 0], logits_BTE.shape[-1]).float()
    if arm.fixed:
        return chosen_BTE, idx_BTK
    gates_BTE = chosen_BTE * probs_BTE
    return (gates_BTE / gates_BTE.sum(dim=-1, keepdim=True) if arm.renormalize else gates_BTE), idx_BTK


def _task_loss(x_BTD: Tensor, y_BTD: Tensor, gates_BTE: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Mean squared error over mean squared target of each run, (B,). Between the layers of an expert is a ReLU."""
    first_BEDH, *others = weights
    out_BETD = (
        x_BTD[:, None] @ first_BEDH
    )  # every expert computes every point: at this size that is faster than sorting
    for w_BEHD in others:
        out_BETD = out_BETD.relu() @ w_BEHD
    answer_BTD = (gates_BTE.mT[..., None] * out_BETD).sum(dim=1)
    return ((answer_BTD - y_BTD) ** 2).mean(dim=(1, 2)) / (y_BTD**2).mean(dim=(1, 2))


def _entropy(logits_BTE: Tensor) -> Tensor:
    return torch.special.entr(logits_BTE.detach().softmax(dim=-1)).sum(dim=-1).mean(dim=1)
