"""The language model: a pre-norm decoder whose feed-forward layers are dense or mixtures of experts.

    model = Transformer(LMConfig(vocab_size=1024, d_model=128, num_layers=4, num_heads=4, context=256, ffn=352))
    logits_BSV, aux = model(tokens_BS)

Read it from the top: model, block, attention, feed-forward. Attention heads have no letter in the legend; where they
are an axis, a comment says so. Nothing here reads a value from the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moe_course.lm.model.lm_config import LMConfig
from moe_course.moe.casts import compute_dtype
from moe_course.moe.experts import init_experts, swiglu_ffn
from moe_course.moe.layer import MoEConfig, MoELayer, MoEStats

Angles = tuple[Tensor, Tensor]

__all__ = ["Aux", "KVCache", "LMConfig", "Transformer", "TransformerBlock", "evaluating"]


@dataclass(frozen=True, eq=False)
class Aux:
    """What the routers did in one forward pass: the stats of each MoE layer, first layer first."""

    stats: list[MoEStats]

    @property
    def lb_losses(self) -> list[Tensor]:
        return [stats.lb_loss for stats in self.stats]

    @property
    def z_losses(self) -> list[Tensor]:
        return [stats.z_loss for stats in self.stats]


class Transformer(nn.Module):
    """Embedding, `num_layers` blocks, a final norm and the output head; no biases, rotary positions.

    generator: it draws the initial weights (on the CPU); the default is torch's global one. moe_layer(config.ffn)
    makes another layer in the place of each MoELayer; its parameters must have the same names, and they get the same
    initial weights.
    """

    def __init__(
        self,
        config: LMConfig,
        generator: torch.Generator | None = None,
        moe_layer: Callable[[MoEConfig], MoELayer] | None = None,
    ):
        super().__init__()
        self.config = c = config
        self.embedding = nn.Embedding(c.vocab_size, c.d_model)
        self.blocks = nn.ModuleList(
            TransformerBlock(c.d_model, c.num_heads, make_ffn(c, generator, moe_layer))
            for _ in range(c.num_layers)
        )
        self.norm = nn.RMSNorm(c.d_model, eps=1e-6)
        self.head = nn.Linear(c.d_model, c.vocab_size, bias=False)
        if c.tied:
            self.head.weight = self.embedding.weight
        self._initialise(generator)

    def forward(self, tokens_BS: Tensor, cache: KVCache | None = None) -> tuple[Tensor, Aux]:
        """logits_BSV for the token after each position, and what the routers did.

        cache: the keys and values of the tokens before tokens_BS; those of tokens_BS are added to it.
        """
        x_BSD = self.embedding(tokens_BS)
        start, width = 0 if cache is None else cache.length, self.config.d_model // self.config.num_heads
        angles = rotary_angles(tokens_BS.shape[1], width, start, x_BSD.device)  # the same for all layers
        stats = []
        for layer, block in enumerate(self.blocks):
            x_BSD, aux = block(x_BSD, None if cache is None else cache.layers[layer], angles)
            if aux is not None:
                stats.append(aux)
        return self.head(self.norm(x_BSD)), Aux(stats)

    def num_params(self) -> tuple[int, int]:
        """(total, active) parameters. Active are K of the E experts of each layer, and all that is no expert."""
        total = sum(p.numel() for p in self.parameters())
        layers = [module for module in self.modules() if isinstance(module, MoELayer)]
        idle = sum(
            w.numel() // m.config.num_experts * (m.config.num_experts - m.config.top_k)
            for m in layers
            for w in (m.w_gate, m.w_up, m.w_down)
        )
        return total, total - idle

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator | None) -> None:
        """Draw weights such that the first loss is near ln V, and depth changes neither activations nor gradients.

        Matrices keep the scale of what they multiply (1/√fan-in). Those whose output is added to the residual stream
        are smaller by √(2L), as in GPT-2, since there are 2L of them. Embeddings and head get 0.02, so that logits
        start small.
        """
        c = self.config
        for name, w in self.named_parameters():
            if name in ("embedding.weight", "head.weight"):
                nn.init.normal_(w, std=0.02, generator=generator)
            if name.endswith(("qkv.weight", "out.weight")):
                nn.init.normal_(w, std=c.d_model**-0.5, generator=generator)
            if name.endswith(
                ("out.weight", "w_down", "shared_down")
            ):  # feed-forward layers have drawn their weights already
                w.mul_((2 * c.num_layers) ** -0.5)


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then the same with the feed-forward layer.

    ffn(x_BSD) returns (y_BSD, aux); aux is handed to the caller unchanged. `angles` as in `Attention`.
    """

    def __init__(self, d_model: int, num_heads: int, ffn: Callable[[Tensor], tuple[Tensor, Any]]):
        super().__init__()
        self.attention_norm = nn.RMSNorm(d_model, eps=1e-6)
        self.attention = Attention(d_model, num_heads)
        self.ffn_norm = nn.RMSNorm(d_model, eps=1e-6)
        self.ffn = ffn

    def forward(
        self, x_BSD: Tensor, cache: LayerCache | None = None, angles: Angles | None = None
    ) -> tuple[Tensor, Any]:
        x_BSD = x_BSD + self.attention(self.attention_norm(x_BSD), cache, angles)
        y_BSD, aux = self.ffn(self.ffn_norm(x_BSD))
        return x_BSD + y_BSD, aux


class Attention(nn.Module):
    """Causal multi-head attention with rotary positions; their angles are computed here unless they are given."""

    def __init__(self, d_model: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x_BSD: Tensor, cache: LayerCache | None = None, angles: Angles | None = None) -> Tensor:
        B, S, D = x_BSD.shape
        start = 0 if cache is None else cache.length
        angles = angles or rotary_angles(S, D // self.num_heads, start, x_BSD.device)
        # (3, B, heads, S, D / heads): queries and keys are turned together
        qk, v = self.qkv(x_BSD).view(B, S, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).split([2, 1])
        q, k, v = *rotate(qk, angles), v.squeeze(0)
        if cache is not None:
            k, v = cache.append(k, v)
        if start == 0:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:  # query s is at position start + s and attends to every key up to there
            seen = torch.ones(S, start + S, dtype=torch.bool, device=q.device).tril(start)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.out(y.transpose(1, 2).reshape(B, S, D))


def rotary_angles(
    length: int, width: int, start: int = 0, device: torch.device | None = None, base: float = 10_000.0
) -> Angles:
    """Cosine and sine of the angles at positions start, start + 1, …, each (length, width / 2), float32."""
    half = width // 2
    frequency = base ** (-torch.arange(half, device=device, dtype=torch.float32) / half)
    position = torch.arange(start, start + length, device=device, dtype=torch.float32)
    angle = position[:, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x: Tensor, angles: Angles) -> Tensor:
    """Rotary positions: turn each pair of channels (i, i + half) by an angle that grows with the position.

    x: (..., S, width). The product of a rotated query and a rotated key depends on the distance of their positions
    only. Source: Su et al. 2021, arXiv 2104.09864, section 3.2; the pairing is that of transformers' Llama.
    """
    cos, sin = angles
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1).to(x.dtype)


class LayerCache:
    """Keys and values of the positions that one layer has seen, each (B, heads, positions, D / heads)."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    @property
    def length(self) -> int:
        return 0 if self.keys is None else self.keys.shape[2]

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values of new positions; returns all of them."""
        self.keys = k if self.keys is None else torch.cat([self.keys, k], dim=2)
        self.values = v if self.values is None else torch.cat([self.values, v], dim=2)
        return self.keys, self.values


class KVCache:
    """The keys and values of all layers while text is generated, so that each new token is computed only once.

    The result is the same as for the whole sequence at once, unless experts have a capacity: then the tokens that are
    computed together decide which of them are dropped.
    """

    def __init__(self, num_layers: int):
        self.layers = [LayerCache() for _ in range(num_layers)]

    @property
    def length(self) -> int:
        """Positions seen so far."""
        return self.layers[0].length


class DenseFFN(nn.Module):
    """One SwiGLU for every token, with the interface of a MoELayer: it returns y_BSD, and None in place of stats."""

    def __init__(self, d_model: int, d_ff: int, generator: torch.Generator | None = None):
        super().__init__()
        weights = init_experts(1, d_model, d_ff, generator)
        self.w_gate, self.w_up, self.w_down = (nn.Parameter(w[0]) for w in weights)

    def forward(self, x_BSD: Tensor) -> tuple[Tensor, None]:
        x_TD = x_BSD.reshape(-1, x_BSD.shape[-1])
        x_TD = x_TD.to(compute_dtype(x_TD, self.w_gate))  # once, for two products
        return swiglu_ffn(x_TD, self.w_gate, self.w_up, self.w_down).view_as(x_BSD), None


def make_ffn(
    config: LMConfig,
    generator: torch.Generator | None = None,
    moe_layer: Callable[[MoEConfig], MoELayer] | None = None,
) -> DenseFFN | MoELayer:
    """The feed-forward layer that the config asks for; `moe_layer` as in `Transformer`."""
    if not isinstance(config.ffn, MoEConfig):
        return DenseFFN(config.d_model, config.ffn, generator)
    layer = MoELayer(config.ffn, generator)
    if moe_layer is None:
        return layer
    other = moe_layer(config.ffn)
    other.load_state_dict(layer.state_dict())
    return other


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in evaluation mode and without gradients; afterwards each module has its old mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
