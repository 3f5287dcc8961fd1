import torch
import torch.nn.functional as F
from torch import nn


class _Layer(nn.Module):
    """A right layer of one's own, in steps that a mistake can replace."""

    def __init__(self, d_model, d_ff, num_experts, top_k, renormalize=True):
        super().__init__()
        self.k, self.scale = top_k, renormalize
        self.router = nn.Parameter(torch.randn(d_model, num_experts) / d_model**0.5)
        self.w_gate = nn.Parameter(torch.randn(num_experts, d_model, d_ff) / d_model**0.5)
        self.w_up = nn.Parameter(torch.randn(num_experts, d_model, d_ff) / d_model**0.5)
        self.w_down = nn.Parameter(torch.randn(num_experts, d_ff, d_model) / d_ff**0.5)

    def probs(self, x):
        return (
            x.to(torch.promote_types(x.dtype, torch.float32))
            @ self.router.float().to(torch.promote_types(x.dtype, torch.float32))
        ).softmax(-1)

    def choose(self, x):
        w, idx = self.probs(x).topk(self.k, -1)
        return (w / w.sum(-1, keepdim=True) if self.scale else w), idx

    def expert(self, e, rows):
        return (F.silu(rows @ self.w_gate[e]) * (rows @ self.w_up[e])) @ self.w_down[e]

    def mix(self, x, w, idx):
        y = torch.zeros_like(x)
        for e in range(len(self.w_gate)):
            t, slot = (idx == e).nonzero(as_tuple=True)
            y = y.index_add(0, t, self.expert(e, x[t]) * w[t, slot, None].to(x.dtype))
        return y

    def forward(self, x_BSD):
        x = x_BSD.reshape(-1, x_BSD.shape[-1])
        w, idx = self.choose(x)
        return self.mix(x, w, idx).reshape(x_BSD.shape), idx


class PlainTensors(_Layer):
    def __init__(self, d_model, d_ff, num_experts, top_k, renormalize=True):
        super().__init__(d_model, d_ff, num_experts, top_k, renormalize)
        for name in ("router", "w_gate", "w_up", "w_down"):
            value = getattr(self, name).detach().requires_grad_()
            del self._parameters[name]
            setattr(self, name, value)


class RouterAsLinear(_Layer):
    def __init__(self, d_model, d_ff, num_experts, top_k, renormalize=True):
        super().__init__(d_model, d_ff, num_experts, top_k, renormalize)
        del self.router
        self.router = nn.Linear(d_model, num_experts, bias=False)

    def probs(self, x):
        return F.linear(x.float(), self.router.weight.float()).softmax(-1)


class ShapeNotRestored(_Layer):
    def forward(self, x_BSD):
        x = x_BSD.flatten(end_dim=1)
        w, idx = self.choose(x)
        return self.mix(x, w, idx), idx


class ResidualAdded(_Layer):
    def forward(self, x_BSD):
        y, idx = super().forward(x_BSD)
        return y + x_BSD, idx


class SoftmaxOverTheTokens(_Layer):
    def probs(self, x):
        return torch.softmax(x.float() @ self.router.float(), dim=0)


class WeightsIgnored(_Layer):
    def mix(self, x, w, idx):
        return super().mix(x, torch.ones_like(w), idx)


class PlusEqualsOnRepeatedIndices(_Layer):
    def mix(self, x, w, idx):
        K = idx.shape[1]
        y = torch.zeros_like(x)
        order = idx.flatten().argsort(stable=True)
        rows = torch.cat([self.expert(int(idx.flatten()[n]), x[n // K][None]) for n in order.tolist()])
        y[order // K] += rows * w.flatten()[order, None].to(x.dtype)
        return y


class FirstChoiceOnly(_Layer):
    def mix(self, x, w, idx):
        return super().mix(x, w[:, :1], idx[:, :1])


class LogitsAsWeights(_Layer):
    def choose(self, x):
        w, idx = (x.float() @ self.router.float()).topk(self.k, -1)
        return (w / w.sum(-1, keepdim=True) if self.scale else w), idx


class IndicesWithBatchAndSequence(_Layer):
    def forward(self, x_BSD):
        B, S, _ = x_BSD.shape
        y, idx = super().forward(x_BSD)
        return y, idx.reshape(B, S, self.k)


class WeightsReturned(_Layer):
    def forward(self, x_BSD):
        x = x_BSD.flatten(0, 1)
        w, idx = self.choose(x)
        return self.mix(x, w, idx).reshape(x_BSD.shape), w


class AlwaysRenormalised(_Layer):
    def __init__(self, d_model, d_ff, num_experts, top_k, renormalize=True):
        super().__init__(d_model, d_ff, num_experts, top_k)


class NeverRenormalised(_Layer):
    def choose(self, x):
        return self.probs(x).topk(self.k, -1)


class RouterDetached(_Layer):
    def choose(self, x):
        w, idx = super().choose(x)
        return w.detach(), idx


class TokensDetachedFromTheRouter(_Layer):
    def choose(self, x):
        return super().choose(x.detach())


class Float32ComesBack(_Layer):
    def forward(self, x_BSD):
        y, idx = super().forward(x_BSD)
        return y.to(torch.float32) if x_BSD.dtype == torch.bfloat16 else y, idx
