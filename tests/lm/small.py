"""Small models and data for the tests of the language model."""

import torch

from moe_course.config import MoEConfig
from moe_course.lm.model.lm_config import LMConfig, TrainConfig
from moe_course.lm.model.transformer import Transformer

V, D, L, HEADS, CONTEXT = 23, 16, 3, 2, 12
B, S = 4, 7

MOE = dict(d_model=D, d_ff=8, num_experts=5, top_k=2)
FFNS = {
    "dense": 24,
    "moe": MoEConfig(**MOE),
    "shared": MoEConfig(**MOE, num_shared=1, d_ff_shared=6, router="sigmoid"),
    "biased": MoEConfig(**MOE, bias_rate=0.01),
    "everything": MoEConfig(**MOE, noise=True, bias_rate=0.01, num_shared=2, d_ff_shared=6),
}


def lm_config(ffn="moe", **options):
    """ffn: one of FFNS by name, or the value itself."""
    ffn = FFNS[ffn] if isinstance(ffn, str) else ffn
    sizes = dict(vocab_size=V, d_model=D, num_layers=L, num_heads=HEADS, context=CONTEXT, ffn=ffn)
    return LMConfig(**{**sizes, **options})


def make(ffn="moe", seed=0, **options):
    return Transformer(lm_config(ffn, **options), torch.Generator().manual_seed(seed))


def plan(**options):
    return TrainConfig(**{**dict(steps=6, warmup=2, peak=0.01, floor=0.001, save_every=2), **options})


def batch(step, rows=B):
    """Another batch tokens_BS1 for each step, the same for each call."""
    return torch.randint(V, (rows, S + 1), generator=torch.Generator().manual_seed(1000 + step))


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_identical(actual, expected):
    """The same tensors to the last bit."""
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        assert torch.equal(value, expected[name]), name
