import torch
import torch.nn.functional as F
from torch import nn


class WithRotaryPositions(nn.Module):
    def __init__(self, d_model, num_heads, ffn):
        super().__init__()
        self.width = d_model // num_heads
        self.ln1, self.ln2 = nn.RMSNorm(d_model), nn.RMSNorm(d_model)
        self.q, self.k, self.v, self.o = (nn.Linear(d_model, d_model, bias=False) for _ in range(4))
        self.ffn = ffn

    def forward(self, x):
        h = self.ln1(x)
        q, k, v = (
            part(h).unflatten(-1, (-1, self.width)).transpose(1, 2) for part in (self.q, self.k, self.v)
        )
        y = F.scaled_dot_product_attention(self.turn(q), self.turn(k), v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(x.shape))
        out, aux = self.ffn(self.ln2(x))
        return x + out, aux

    def turn(self, x):
        half = self.width // 2
        angle = torch.arange(x.shape[-2])[:, None] * 100.0 ** (-torch.arange(half) / half)
        first, second = x[..., :half], x[..., half:]
        cos, sin = angle.cos().to(x), angle.sin().to(x)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class MultiheadAttention(nn.Module):
    """PyTorch's own layer, biases included, and a norm written out."""

    def __init__(self, d_model, num_heads, ffn):
        super().__init__()
        self.attention = nn.MultiheadAttention(d_model, num_heads, batch_first=True)
        self.gain1, self.gain2 = (nn.Parameter(torch.ones(d_model)) for _ in range(2))
        self.ffn = ffn

    @staticmethod
    def rms(x, gain):
        wide = x.float() if x.dtype == torch.bfloat16 else x
        return (wide * torch.rsqrt((wide**2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype) * gain

    def forward(self, x_BSD):
        S = x_BSD.shape[1]
        future = torch.ones(S, S, dtype=torch.bool).triu(1)
        h = self.rms(x_BSD, self.gain1)
        x_BSD = x_BSD + self.attention(h, h, h, attn_mask=future, need_weights=False)[0]
        y_BSD, aux = self.ffn(self.rms(x_BSD, self.gain2))
        return [x_BSD + y_BSD, aux]


class LoopOverHeads(nn.Module):
    """One small attention a head, with biases on the distance (ALiBi)."""

    def __init__(self, d_model, num_heads, ffn):
        super().__init__()
        width = d_model // num_heads
        self.heads = nn.ModuleList(nn.Linear(d_model, 3 * width) for _ in range(num_heads))
        self.outs = nn.ModuleList(nn.Linear(width, d_model, bias=False) for _ in range(num_heads))
        self.norms = nn.ModuleList(nn.RMSNorm(d_model, eps=1e-8) for _ in range(2))
        self.ffn = ffn

    def forward(self, x_BSD):
        S = x_BSD.size(1)
        h, result = self.norms[0](x_BSD), x_BSD
        place = torch.arange(S)
        distance = (place[None, :] - place[:, None]).to(x_BSD)
        for n, (head, out) in enumerate(zip(self.heads, self.outs, strict=True)):
            q, k, v = head(h).chunk(3, -1)
            scores = torch.einsum("bqd,bkd->bqk", q, k) / q.shape[-1] ** 0.5 + 2.0 ** -(n + 1) * distance
            weights = scores.masked_fill(
                distance > 0, -1e9 if scores.dtype != torch.bfloat16 else -1e30
            ).softmax(-1)
            result = result + out(weights @ v)
        y_BSD, aux = self.ffn(self.norms[1](result))
        return result + y_BSD, aux


class LearnedPositions(nn.Module):
    """Positions are added to what attention reads, and nowhere else."""

    def __init__(self, d_model, num_heads, ffn):
        super().__init__()
        self.num_heads = num_heads
        self.before_attention = nn.RMSNorm(d_model, eps=1e-6)
        self.before_ffn = nn.RMSNorm(d_model, eps=1e-6)
        self.places = nn.Embedding(64, d_model)
        self.wqkv = nn.Parameter(torch.randn(d_model, 3, d_model) * d_model**-0.5)
        self.wo = nn.Parameter(torch.zeros(d_model, d_model))
        self.ffn = ffn

    def forward(self, x_BSD):
        B, S, D = x_BSD.shape
        h_BSD = self.before_attention(x_BSD) + self.places(torch.arange(S))
        q, k, v = (
            torch.einsum("bsd,de->bse", h_BSD, self.wqkv[:, n]).view(B, S, self.num_heads, -1).transpose(1, 2)
            for n in range(3)
        )
        mask = torch.full((S, S), float("-inf"), dtype=x_BSD.dtype).triu(1)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x_BSD = x_BSD + attended.transpose(1, 2).reshape(B, S, D) @ self.wo
        y_BSD, aux = self.ffn(self.before_ffn(x_BSD))
        return x_BSD + y_BSD, aux
