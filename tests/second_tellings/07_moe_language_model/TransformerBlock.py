import torch
import torch.nn.functional as F
from torch import nn


class _Block(nn.Module):
    """A right block of one's own, in steps that a mistake can replace."""

    def __init__(self, d_model, num_heads, ffn):
        super().__init__()
        self.heads = num_heads
        self.norm_attention = nn.RMSNorm(d_model, eps=1e-6)
        self.norm_ffn = nn.RMSNorm(d_model, eps=1e-6)
        self.q = nn.Linear(d_model, d_model, bias=False)
        self.k = nn.Linear(d_model, d_model, bias=False)
        self.v = nn.Linear(d_model, d_model, bias=False)
        self.proj = nn.Linear(d_model, d_model, bias=False)
        self.ffn = ffn

    def split(self, x):
        B, S, D = x.shape
        return x.reshape(B, S, self.heads, D // self.heads).transpose(1, 2)

    def merge(self, x):
        B, _, S, _ = x.shape
        return x.transpose(1, 2).reshape(B, S, -1)

    def open(self, S):
        """Which keys a query may read: (S, S)."""
        return torch.ones(S, S, dtype=torch.bool).tril()

    def weights(self, scores):
        return scores.masked_fill(~self.open(scores.shape[-1]), -torch.inf).softmax(-1)

    def attention(self, x):
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        scores = q @ k.mT / q.shape[-1] ** 0.5
        return self.proj(self.merge(self.weights(scores) @ v))

    def forward(self, x_BSD):
        x_BSD = x_BSD + self.attention(self.norm_attention(x_BSD))
        y_BSD, aux = self.ffn(self.norm_ffn(x_BSD))
        return x_BSD + y_BSD, aux


class OnlyTheStream(_Block):
    def forward(self, x_BSD):
        return super().forward(x_BSD)[0]


class NoAux(_Block):
    def forward(self, x_BSD):
        h = x_BSD + self.attention(self.norm_attention(x_BSD))
        y, _ = self.ffn(self.norm_ffn(h))
        return h + y, None


class AuxFirst(_Block):
    def forward(self, x_BSD):
        y, aux = super().forward(x_BSD)
        return aux, y


class FfnOnRows(_Block):
    def forward(self, x_BSD):
        h = x_BSD + self.attention(self.norm_attention(x_BSD))
        y, aux = self.ffn(self.norm_ffn(h).reshape(-1, h.shape[-1]))
        return h + y.reshape(h.shape), aux


class NoResidualAroundAttention(_Block):
    def forward(self, x_BSD):
        h = self.attention(self.norm_attention(x_BSD))
        y, aux = self.ffn(self.norm_ffn(h))
        return h + y, aux


class NoAttention(_Block):
    def forward(self, x_BSD):
        y, aux = self.ffn(self.norm_ffn(x_BSD))
        return x_BSD + y, aux


class PostNorm(_Block):
    def forward(self, x_BSD):
        h = self.norm_attention(x_BSD + self.attention(x_BSD))
        y, aux = self.ffn(h)
        return self.norm_ffn(h + y), aux


class AttentionWithoutNorm(_Block):
    def forward(self, x_BSD):
        h = x_BSD + self.attention(x_BSD)
        y, aux = self.ffn(self.norm_ffn(h))
        return h + y, aux


class FfnWithoutNorm(_Block):
    def forward(self, x_BSD):
        h = self.attention(self.norm_attention(x_BSD)) + x_BSD
        y, aux = self.ffn(h)
        return y + h, aux


class LayerNormTwice(_Block):
    def __init__(self, d_model, num_heads, ffn):
        super().__init__(d_model, num_heads, ffn)
        self.norm_attention, self.norm_ffn = nn.LayerNorm(d_model), nn.LayerNorm(d_model)


class ParallelBlock(_Block):
    def forward(self, x_BSD):
        attended = self.attention(self.norm_attention(x_BSD))
        y, aux = self.ffn(self.norm_ffn(x_BSD))
        return x_BSD + attended + y, aux


class NoResidualAroundFfn(_Block):
    def forward(self, x_BSD):
        h = x_BSD + self.attention(self.norm_attention(x_BSD))
        return self.ffn(self.norm_ffn(h))


class ResidualOfTheInput(_Block):
    def forward(self, x_BSD):
        h = x_BSD + self.attention(self.norm_attention(x_BSD))
        y, aux = self.ffn(self.norm_ffn(h))
        return x_BSD + y, aux


class NoMask(_Block):
    def attention(self, x):
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        return self.proj(self.merge(F.scaled_dot_product_attention(q, k, v)))


class MaskTurned(_Block):
    def open(self, S):
        return torch.ones(S, S, dtype=torch.bool).triu()


class MaskOfZero(_Block):
    def weights(self, scores):
        return (scores * self.open(scores.shape[-1])).softmax(-1)


class SoftmaxOverQueries(_Block):
    def weights(self, scores):
        return scores.masked_fill(~self.open(scores.shape[-1]), -torch.inf).softmax(-2)


class HeadsNotTurnedBack(_Block):
    def merge(self, x):
        B, H, S, W = x.shape
        return x.reshape(B, S, H * W)


class OneHead(_Block):
    def __init__(self, d_model, num_heads, ffn):
        super().__init__(d_model, 1, ffn)


class FfnHidden(_Block):
    def __init__(self, d_model, num_heads, ffn):
        super().__init__(d_model, num_heads, None)
        self.parts = {"ffn": ffn}

    def forward(self, x_BSD):
        x_BSD = x_BSD + self.attention(self.norm_attention(x_BSD))
        y_BSD, aux = self.parts["ffn"](self.norm_ffn(x_BSD))
        return x_BSD + y_BSD, aux


class AttentionWithoutGradient(_Block):
    def attention(self, x):
        with torch.no_grad():
            return super().attention(x)


class AddsInPlace(_Block):
    def forward(self, x_BSD):
        x_BSD += self.attention(self.norm_attention(x_BSD))
        y_BSD, aux = self.ffn(self.norm_ffn(x_BSD))
        x_BSD += y_BSD
        return x_BSD, aux
