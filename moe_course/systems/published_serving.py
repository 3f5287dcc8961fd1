"""What others measured and published about serving mixtures of experts, with sources. The course computed none of it.

`tests/systems/test_published_serving.py` says which of these numbers follow from the formulas, and within what.
"""

from __future__ import annotations

from dataclasses import dataclass

from moe_course.published import model
from moe_course.systems.footprint import serving_sizes

SECONDS_OF_DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class ServiceDay:
    """A day of a service: tokens, nodes, speeds per node and prices, and what follows from them.

    Prices are dollars per million tokens; a node is 8 GPUs.
    """

    input_tokens: float
    cached_tokens: float  # input tokens whose keys and values were found on disk
    output_tokens: float
    nodes: float
    input_per_node_second: float
    output_per_node_second: float
    gpu_hour: float
    price_hit: float
    price_miss: float
    price_output: float

    @property
    def prefill_nodes(self) -> float:
        return self.input_tokens / SECONDS_OF_DAY / self.input_per_node_second

    @property
    def decode_nodes(self) -> float:
        return self.output_tokens / SECONDS_OF_DAY / self.output_per_node_second

    @property
    def cost(self) -> float:
        return self.nodes * 8 * 24 * self.gpu_hour

    @property
    def revenue(self) -> float:
        missed = self.input_tokens - self.cached_tokens
        paid = self.cached_tokens * self.price_hit + missed * self.price_miss
        return (paid + self.output_tokens * self.price_output) / 1e6

    @property
    def margin(self) -> float:
        """Profit as a share of the cost."""
        return self.revenue / self.cost - 1


DEEPSEEK_DAY = ServiceDay(
    input_tokens=608e9,
    cached_tokens=342e9,
    output_tokens=168e9,
    nodes=226.75,
    input_per_node_second=73_700,
    output_per_node_second=14_800,
    gpu_hour=2.0,
    price_hit=0.14,
    price_miss=0.55,
    price_output=2.19,
)
"""27 to 28 February 2025, nodes of 8 H800. Prices are R1's for all tokens, which the authors call theoretical: much
of the traffic was free, or at V3's prices. DeepSeek, "Day 6: One More Thing, DeepSeek-V3/R1 Inference System
Overview", github.com/deepseek-ai/open-infra-index, 202502OpenSourceWeek."""

DEEPSEEK_PUBLISHED = {"cost": 87_072, "revenue": 562_027, "margin": 5.45}
"""The results in the same text, to be compared with the properties of DEEPSEEK_DAY."""


@dataclass(frozen=True)
class Speed:
    """A measured speed of one stream. Without `preset` a token reads `bytes_per_token`, all of a quantised file."""

    model: str
    machine: str
    tokens_per_second: float
    bandwidth: float  # bytes per second of the machine, all devices together
    source: str
    preset: str = ""
    bytes_per_value: float = 0.0
    bytes_per_token: float = 0.0


_LADDER = "inventivehq.com, local LLM benchmarks on a CPU"
_I7 = "i7-8700, 2 DDR4-2666"
_FILE = 18_557e6 / 30_532_122_624  # bytes per parameter of the 4-bit file
STREAMS: tuple[Speed, ...] = (
    Speed("dense 1.5B, 4 bits", _I7, 22.4, 41.6e9, _LADDER, bytes_per_token=986e6),
    Speed("dense 3B, 4 bits", _I7, 11.8, 41.6e9, _LADDER, bytes_per_token=1930e6),
    Speed("dense 7B, 4 bits", _I7, 4.9, 41.6e9, _LADDER, bytes_per_token=4683e6),
    Speed("dense 8B, 4 bits", _I7, 4.2, 41.6e9, _LADDER, bytes_per_token=4921e6),
    Speed("Qwen3-30B-A3B, 4 bits", _I7, 10.6, 41.6e9, _LADDER, "qwen3-30b-a3b", _FILE),
    Speed("Qwen3-30B-A3B, 4 bits", "RTX 4090", 196, 1.008e12, "runaihome.com", "qwen3-30b-a3b", _FILE),
    Speed(
        "Qwen3-30B-A3B, bf16", "A100", 103.9, 2.039e12,
        "tenstorrent/tt-inference-server, issue 340", "qwen3-30b-a3b", 2,
    ),
    Speed(
        "DeepSeek-R1, fp8", "16 H100", 43.2, 16 * 3.35e12,
        "tenstorrent/tt-inference-server, issue 356", "deepseek-v3", 1,
    ),
)  # fmt: skip
"""Single streams, batch 1 and a short context. The bandwidth of the i7 is the processor's limit."""


@dataclass(frozen=True)
class HitRate:
    """A published hit rate of an LRU cache of experts; `slots` are those of one layer, 0 where they are not given."""

    model: str
    num_experts: int
    top_k: int
    slots: float
    low: float
    high: float
    text: str
    source: str


HIT_RATES: tuple[HitRate, ...] = (
    HitRate(
        "DeepSeek-V4-Flash", 256, 6, 700 / 43, 0.08, 0.18,  # 43 layers and K = 6 by its configuration
        "one cache of 700 slots for 43 layers (61, says the issue); long Chinese reports",
        "FlashML-org/FreeToken, issue 174",
    ),
    HitRate(
        "Qwen3.8-Flash-Next", 512, 10, 93, 0.435, 0.435,
        "300 tokens of text, the cache empty at first", "kekzl/imp, pull request 2061",
    ),
    HitRate(
        "Qwen3.8-Flash-Next", 512, 10, 186, 0.620, 0.620,
        "300 tokens of text, the cache empty at first", "kekzl/imp, pull request 2061",
    ),
    HitRate(
        "Qwen3.8-Flash-Next", 512, 10, 64, 0.67, 0.67,
        "54,000 records of code, maths, prose and other languages", "ggml-org/llama.cpp, pull request 27861",
    ),
    HitRate(
        "Qwen3.8-Flash-Next", 512, 10, 128, 0.81, 0.81,
        "54,000 records of code, maths, prose and other languages", "ggml-org/llama.cpp, pull request 27861",
    ),
    HitRate(
        "Qwen3-30B-A3B", 128, 8, 0, 0.887, 0.887,
        "a benchmark that generates 256 tokens three times", "kekzl/imp, pull request 1365",
    ),
)  # fmt: skip
"""Sorted by rate."""

SGLANG_DECODE = {"tokens per node and second": 22_282, "dollars per million": 0.20, "gpu_hour": 2.0}
"""12 nodes of 8 H100, batch 256 a GPU, context 2000, 72 ranks: LMSYS, 5 May 2025, "Deploying DeepSeek with PD
Disaggregation and Large-Scale Expert Parallelism", lmsys.org/blog/2025-05-05-large-scale-ep."""

KV_BYTES_PER_TOKEN = {"deepseek-v3": 70_272}
"""In bfloat16: DeepSeek-AI 2025, "Insights into DeepSeek-V3", arXiv 2505.09343, table 1."""


def bytes_per_token(speed: Speed) -> float:
    """What one token of a single stream reads: the whole file, or with a preset the active part of the model."""
    if not speed.preset:
        return speed.bytes_per_token
    return serving_sizes(model(speed.preset)).step_bytes(1, bytes_per_value=speed.bytes_per_value)


def share_of_bound(speed: Speed) -> float:
    """The measured speed as a share of bandwidth / bytes per token."""
    return speed.tokens_per_second * bytes_per_token(speed) / speed.bandwidth
