import torch
from torch import nn

from moe_course.grading.judge.catalogue import caught_by


class _Gate(nn.Module):
    """A gate whose `counted` says what a call adds to the counts while it runs."""

    def __init__(self, d_model, num_experts, top_k):
        super().__init__()
        self.top_k = top_k
        self.router = nn.Parameter(torch.randn(d_model, num_experts) / d_model**0.5)
        self.register_buffer("bias_E", torch.zeros(num_experts))
        self.register_buffer("counts_E", torch.zeros(num_experts))

    def routed(self, x_TD):
        scores_TE = (x_TD.float() @ self.router.float()).sigmoid()
        idx_TK = (scores_TE + self.bias_E).detach().topk(self.top_k, dim=-1).indices
        weights_TK = scores_TE.gather(1, idx_TK)
        return weights_TK / weights_TK.sum(dim=-1, keepdim=True), idx_TK

    def new(self, idx_TK):
        return torch.bincount(idx_TK.flatten(), minlength=len(self.counts_E)).to(self.counts_E.dtype)

    def later(self, weights_TK, idx_TK):
        """Count at the first backward pass, as is right."""
        waiting = [self.new(idx_TK)]

        def count(_):
            while waiting:
                self.counts_E += waiting.pop()

        if weights_TK.requires_grad:
            weights_TK.register_hook(count)

    def counted(self, x_TD, weights_TK, idx_TK):
        self.later(weights_TK, idx_TK)

    def forward(self, x_TD):
        weights_TK, idx_TK = self.routed(x_TD)
        self.counted(x_TD, weights_TK, idx_TK)
        return weights_TK.to(x_TD.dtype), idx_TK

    @torch.no_grad()
    def update_bias(self, rate):
        self.bias_E += rate * torch.sign(self.counts_E.mean() - self.counts_E)
        self.counts_E.zero_()


@caught_by("routes")
class BiasInTheWeights(_Gate):
    """The bias chooses. Does it also weigh?"""

    def routed(self, x_TD):
        weights_TK, idx_TK = ((x_TD.float() @ self.router.float()).sigmoid() + self.bias_E).topk(
            self.top_k, dim=-1
        )
        return weights_TK / weights_TK.sum(dim=-1, keepdim=True), idx_TK


@caught_by("counts")
class NoEffectYet(_Gate):
    """Your code does what it did when it was brought in. Which number must change, and has it?"""

    def counted(self, x_TD, weights_TK, idx_TK):
        self.counts_E += self.new(idx_TK)


@caught_by("short_of_memory")
class CountedWhileTraining(_Gate):
    """`self.training` is True in the pass that a checkpoint repeats, too. How often does a call count then?"""

    def counted(self, x_TD, weights_TK, idx_TK):
        if self.training:
            self.counts_E += self.new(idx_TK)


@caught_by("short_of_memory")
class CountedWithGradients(_Gate):
    """One kind of checkpoint has gradients on in its first pass, and when it is repeated. How often is that?"""

    def counted(self, x_TD, weights_TK, idx_TK):
        if torch.is_grad_enabled():
            self.counts_E += self.new(idx_TK)


@caught_by("counts")
class CountsHalved(_Gate):
    """Half of the count is right if every pass runs twice. Does every pass?"""

    def counted(self, x_TD, weights_TK, idx_TK):
        if self.training:
            self.counts_E += self.new(idx_TK) / 2


@caught_by("short_of_memory")
class CountsOfTheLastCall(_Gate):
    """The counts start anew in every forward pass. What about the calls before it in the same step?"""

    def counted(self, x_TD, weights_TK, idx_TK):
        if self.training:
            self.counts_E.copy_(self.new(idx_TK))


@caught_by("batches")
class CountsOfTheLastBackward(_Gate):
    """What a backward pass counts replaces what was there. How many batches may a step have?"""

    def later(self, weights_TK, idx_TK):
        waiting = [self.new(idx_TK)]

        def count(_):
            while waiting:
                passes = self.__dict__.setdefault("passes", {})
                number = torch._C._current_graph_task_id()
                passes[number] = passes.get(number, 0) + waiting.pop()
                self.counts_E.copy_(passes[number])

        if weights_TK.requires_grad:
            weights_TK.register_hook(count)


@caught_by("batches")
class SameTokensCountedOnce(_Gate):
    """Tokens that were seen before count no more. May a batch not come again?"""

    def later(self, weights_TK, idx_TK):
        seen = self.__dict__.setdefault("seen", set())
        key = tuple(idx_TK.flatten().tolist())
        if not weights_TK.requires_grad or key in seen:
            return

        def count(_):
            if key not in seen:
                seen.add(key)
                self.counts_E += self.new(idx_TK)

        weights_TK.register_hook(count)


@caught_by("counts")
class CountsNeverCleared(_Gate):
    """The bias has moved. What are the old counts good for in the next step?"""

    @torch.no_grad()
    def update_bias(self, rate):
        self.bias_E += rate * torch.sign(self.counts_E.mean() - self.counts_E)


@caught_by("counts")
class BusyExpertsPreferred(_Gate):
    """An expert with too many tokens: should its bias rise or fall?"""

    @torch.no_grad()
    def update_bias(self, rate):
        self.bias_E -= rate * torch.sign(self.counts_E.mean() - self.counts_E)
        self.counts_E.zero_()


@caught_by("switches")
class EvaluationModeNeverCounts(_Gate):
    """A model with frozen dropout learns in eval(), too. What does `self.training` know of that?"""

    def counted(self, x_TD, weights_TK, idx_TK):
        if self.training:
            self.later(weights_TK, idx_TK)


@caught_by("switches")
class EveryBackwardPassCounts(_Gate):
    """A second backward pass through the same call: were there new tokens?"""

    def later(self, weights_TK, idx_TK):
        new_E = self.new(idx_TK)

        def count(_):
            self.counts_E += new_E

        if weights_TK.requires_grad:
            weights_TK.register_hook(count)


@caught_by("form", form=True)
class WeightsStayFloat32(_Gate):
    """Which dtype do the layers behind the gate expect?"""

    def forward(self, x_TD):
        weights_TK, idx_TK = self.routed(x_TD)
        self.counted(x_TD, weights_TK, idx_TK)
        return weights_TK, idx_TK


@caught_by("form", form=True)
class CountsNotInTheState(_Gate):
    """A run stops in the middle of a step and goes on from its file. Where are the counts?"""

    def __init__(self, d_model, num_experts, top_k):
        super().__init__(d_model, num_experts, top_k)
        self.register_buffer("counts_E", torch.zeros(num_experts), persistent=False)
