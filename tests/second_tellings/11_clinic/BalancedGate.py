import torch
from torch import nn


class _Base(nn.Module):
    def __init__(self, d_model, num_experts, top_k):
        super().__init__()
        self.k, self.E = top_k, num_experts
        self.router = nn.Parameter(torch.zeros(d_model, num_experts))
        self.register_buffer("bias_E", torch.zeros(num_experts))
        self.register_buffer("counts_E", torch.zeros(num_experts, dtype=torch.long))

    def pick(self, x):
        s = torch.sigmoid(x.float() @ self.router.float())
        i = torch.topk((s + self.bias_E.float()).detach(), self.k, dim=1)[1]
        w = torch.gather(s, 1, i)
        return w / w.sum(1, keepdim=True), i

    def tally(self, i):
        return nn.functional.one_hot(i, self.E).sum(dim=(0, 1))

    def add(self, i):
        self.counts_E += self.tally(i)

    @torch.no_grad()
    def update_bias(self, rate):
        mean = self.counts_E.sum() / self.E
        self.bias_E += rate * torch.sign(mean - self.counts_E).to(self.bias_E.dtype)
        self.counts_E.zero_()


class NoEffectYet(_Base):
    def forward(self, x_TD):
        w, i = self.pick(x_TD)
        with torch.no_grad():
            self.counts_E.add_(self.tally(i))
        return w.to(x_TD.dtype), i


class CountedWhileTraining(_Base):
    def forward(self, x_TD):
        w, i = self.pick(x_TD)
        self.counts_E += self.tally(i) * int(self.training)
        return w.to(x_TD.dtype), i


class CountedWithGradients(_Base):
    def forward(self, x_TD):
        w, i = self.pick(x_TD)
        if w.requires_grad:
            self.counts_E += self.tally(i)
        return w.to(x_TD.dtype), i


class EveryBackwardPassCounts(_Base):
    def forward(self, x_TD):
        w, i = self.pick(x_TD)
        if w.grad_fn is not None:
            w.grad_fn.register_hook(lambda *_: self.add(i))
        return w.to(x_TD.dtype), i


class CountsNeverCleared(_Base):
    def forward(self, x_TD):
        w, i = self.pick(x_TD)
        if w.requires_grad:
            todo = [False, True]
            w.register_hook(lambda _: self.add(i) if todo and todo.pop() else None)
        return w.to(x_TD.dtype), i

    @torch.no_grad()
    def update_bias(self, rate):
        n = self.counts_E.float()
        self.bias_E.copy_(self.bias_E.float() + rate * torch.sign(n.mean() - n))
