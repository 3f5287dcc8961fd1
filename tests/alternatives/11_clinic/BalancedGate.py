import torch
from torch import nn


class _Gate(nn.Module):
    def __init__(self, d_model, num_experts, top_k):
        super().__init__()
        self.num_experts, self.k = num_experts, top_k
        self.router = nn.Parameter(torch.empty(d_model, num_experts))
        nn.init.normal_(self.router, std=d_model**-0.5)
        self.register_buffer("bias_E", torch.zeros(num_experts))
        self.register_buffer("counts_E", torch.zeros(num_experts))

    def route(self, x_TD):
        scores_TE = torch.sigmoid(x_TD.float() @ self.router.float())
        idx_TK = torch.topk(scores_TE.detach() + self.bias_E.float(), self.k).indices
        weights_TK = scores_TE.gather(1, idx_TK)
        return (weights_TK / weights_TK.sum(1, keepdim=True)), idx_TK

    def counts_of(self, idx_TK):
        return nn.functional.one_hot(idx_TK, self.num_experts).sum((0, 1)).to(self.counts_E.dtype)

    def update_bias(self, rate):
        error_E = self.counts_E.double().mean() - self.counts_E.double()
        self.bias_E += rate * error_E.sign().to(self.bias_E.dtype)
        self.counts_E.zero_()


class CountedInBackward(_Gate):
    """The weights pass through a function whose backward adds to the counts."""

    def forward(self, x_TD):
        weights_TK, idx_TK = self.route(x_TD)
        return _Counting.apply(weights_TK, self.counts_of(idx_TK), self.counts_E).to(x_TD.dtype), idx_TK


class _Counting(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights_TK, new_E, counts_E):
        ctx.new_E, ctx.counts_E = new_E.clone(), counts_E
        return weights_TK.clone()

    @staticmethod
    def backward(ctx, dweights_TK):
        ctx.counts_E += ctx.new_E
        ctx.new_E.zero_()
        return dweights_TK, None, None


class HookOnTheNode(_Gate):
    """The graph's own node calls back."""

    def forward(self, x_TD):
        weights_TK, idx_TK = self.route(x_TD)
        if weights_TK.grad_fn is not None:
            new_E, done = self.counts_of(idx_TK), []

            def count(*_):
                if not done:
                    done.append(True)
                    self.counts_E.add_(new_E)

            weights_TK.grad_fn.register_hook(count)
        return weights_TK.type_as(x_TD), idx_TK


class PendingCalls(_Gate):
    """Calls wait in a list; a hook on the result that is returned moves them to the counts."""

    def forward(self, x_TD):
        weights_TK, idx_TK = self.route(x_TD)
        weights_TK = weights_TK.to(x_TD.dtype)
        if weights_TK.requires_grad:
            call = {"idx": idx_TK.detach()}
            weights_TK.register_hook(lambda grad: self._arrived(call))
        return weights_TK, idx_TK

    def _arrived(self, call):
        idx_TK = call.pop("idx", None)
        if idx_TK is not None:
            self.counts_E += torch.bincount(idx_TK.flatten(), minlength=self.num_experts).to(self.counts_E)


class HookThatRemovesItself(_Gate):
    """The handle of the hook is removed at its first call."""

    def forward(self, x_TD):
        weights_TK, idx_TK = self.route(x_TD)
        if weights_TK.requires_grad and torch.is_grad_enabled():
            handles = []

            def count(_):
                handles.pop().remove()
                self.counts_E += self.counts_of(idx_TK)

            handles.append(weights_TK.register_hook(count))
        return weights_TK.to(x_TD.dtype), idx_TK
