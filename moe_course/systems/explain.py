"""The three questions, answered for one model: active parameters, routing, and what serving it costs.

Everything that is computed from sizes is a bound: what a perfect program on that hardware could reach.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from moe_course.hardware import Device
from moe_course.systems.described import Description
from moe_course.systems.footprint import ServingSizes
from moe_course.systems.observed import Observed, routing_table
from moe_course.systems.serving import expected_distinct_experts
from moe_course.tables import text_table

BATCHES = (1, 4, 16, 64, 256)


@dataclass(frozen=True, kw_only=True)
class Service:
    """The machine that is to serve a model, and how.

    device: one GPU, of which there are `devices`. context: tokens that each sequence has in its cache. latency:
    seconds that a step may take. price: dollars for a GPU and an hour. value_bytes: bytes of a weight, and of a
    cached value.
    Raises ValueError for numbers that are not positive.
    """

    device: Device
    devices: int = 1
    context: int = 4096
    latency: float = 0.05
    price: float | None = None
    value_bytes: float = 2

    def __post_init__(self) -> None:
        for name in ("devices", "context", "latency", "value_bytes", "price"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive, got {value}")

    def step_seconds(self, sizes: ServingSizes, batch: int) -> float:
        """The least seconds of a step that gives each of `batch` sequences a token."""
        args = (self.device, batch, self.context, self.value_bytes, self.devices, self.value_bytes)
        return sizes.step_seconds(*args)

    def memory(self) -> float | None:
        """Bytes of all devices together, if they are known."""
        return None if self.device.memory is None else self.devices * self.device.memory

    def fits(self, sizes: ServingSizes, batch: int) -> bool:
        """Whether the weights and the caches of `batch` sequences fit into memory, as far as it is known."""
        held = sizes.memory_bytes(batch, self.context, self.value_bytes, self.value_bytes)
        return (memory := self.memory()) is None or held <= memory

    def largest_batch(self, sizes: ServingSizes) -> int:
        """The most sequences that fit into memory and get their token within the latency; 0 if not even one does."""

        def serves(batch: int) -> bool:
            return self.fits(sizes, batch) and self.step_seconds(sizes, batch) <= self.latency

        low, high = 0, 1
        while serves(high) and high < 2**24:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if serves(middle) else (low, middle)
        return low


def serving_rows(sizes: ServingSizes, service: Service) -> list[dict[str, float]]:
    """What a step reads, takes and costs, for the batches of BATCHES that fit and the largest that serves in time."""
    batches = {batch for batch in BATCHES if service.fits(sizes, batch)} | {service.largest_batch(sizes)}
    return [_serving(sizes, service, batch) for batch in sorted(batches - {0})]


def _serving(sizes: ServingSizes, service: Service, batch: int) -> dict[str, float]:
    seconds = service.step_seconds(sizes, batch)
    row: dict[str, float] = {"batch": batch}
    if sizes.moe_layers:
        row["experts read per layer"] = expected_distinct_experts(sizes.num_experts, sizes.top_k, batch)
    row |= {
        "bytes": sizes.step_bytes(batch, service.context, service.value_bytes, service.value_bytes),
        "seconds": seconds,
        "tokens per second": batch / seconds,
    }
    if service.price is not None:
        dollars_per_second = service.devices * service.price / 3600
        row["dollars per million tokens"] = dollars_per_second * seconds / batch * 1e6
    return row


def as_dict(found: Description, observed: Observed | None, service: Service | None) -> dict[str, Any]:
    """All answers as plain values, for JSON."""
    total, active = found.params
    answer: dict[str, Any] = {
        "model": found.name,
        "architecture": found.architecture,
        "parameters": {
            "total": total,
            "active": active,
            "parts": {k: list(v) for k, v in found.parts.items()},
        },
        "router": dict(found.router),
        "sizes": asdict(found.sizes),
    }
    if observed is not None:
        answer["routing"] = asdict(observed)
    if service is not None:
        answer["serving"] = {
            "service": asdict(service),
            "weight_bytes": found.sizes.memory_bytes(bytes_per_value=service.value_bytes),
            "kv_bytes_per_token": found.sizes.kv_values * service.value_bytes,
            "largest_batch": service.largest_batch(found.sizes),
            "steps": serving_rows(found.sizes, service),
        }
    return answer


def as_text(found: Description, observed: Observed | None, service: Service | None) -> str:
    """All answers with their assumptions, for a terminal."""
    blocks = [_parameters(found), _routing(found, observed)]
    if service is not None:
        blocks.append(_serving_text(found.sizes, service))
    else:
        blocks.append("3 · What does serving it cost?  --gpu H100 (or BYTES/s,FLOP/s) answers this.")
    return "\n\n".join(blocks)


def _parameters(found: Description) -> str:
    total, active = found.params
    rows = [("", "total", "active"), *((k, f"{t:,}", f"{a:,}") for k, (t, a) in found.parts.items())]
    rows.append(("sum", f"{total:,}", f"{active:,}"))
    table = text_table(rows, rules=(1, len(rows) - 1))
    return "\n\n".join(
        (
            f"{found.name} ({found.architecture})",
            f"1 · How many parameters are active per token?  {active / total:.1%}",
            table,
            "Input and output embeddings count as active; the input embedding is a look-up.",
        )
    )


def _routing(found: Description, observed: Observed | None) -> str:
    head = "2 · How stable is the routing?"
    s = found.sizes
    if not s.moe_layers:
        return f"{head}  There is none: the model is dense."
    lines = [f"{head}  {s.moe_layers} layers choose {s.top_k} of {s.num_experts} experts for each token."]
    if found.router:
        lines += ["", "The configuration says (or its class, where it says nothing):"]
        lines += [f"  {key} = {value}" for key, value in found.router.items()]
    if observed is None:
        lines += [
            "",
            "Observed: nothing. A folder with weights and --text FILE show how it routes that text.",
        ]
        return "\n".join(lines)
    future = "change with later tokens: a leak" if observed.future else "do not depend on later tokens"
    batch = "change with the other sequences" if observed.batch else "do not depend on the other sequences"
    few = observed.tokens * s.top_k < 10 * s.num_experts
    lines += ["", f"On {observed.tokens:,} tokens of the text, by layer:", "", routing_table(observed), ""]
    lines.append(f"A token's experts {future}, and {batch} of its batch.")
    lines.append(
        "entropy: of the load, 100% is even. repeats: tokens that share an expert with the token before them;"
    )
    lines.append("by chance: the same with the tokens in a random order.")
    if few:
        lines.append(
            f"So short a text cannot tell a dead expert from a rare one: {s.num_experts} experts, few choices."
        )
    return "\n".join(lines)


def _serving_text(sizes: ServingSizes, service: Service) -> str:
    weights = sizes.memory_bytes(bytes_per_value=service.value_bytes)
    kv = sizes.kv_values * service.value_bytes
    lines = [
        "3 · What does serving it cost?",
        "",
        f"weights  {weights / 1e9:,.1f} GB at {service.value_bytes:g} bytes a value",
        f"cache    {kv / 1e3:,.1f} kB per token, {kv * service.context / 1e6:,.1f} MB for {service.context:,} tokens",
    ]
    if (memory := service.memory()) is not None:
        verdict = "fit into" if weights <= memory else "do not fit into"
        lines.append(f"memory   {memory / 1e9:,.0f} GB on {service.devices} GPU(s); the weights {verdict} it")
    if not (rows := serving_rows(sizes, service)):
        return "\n".join(
            [*lines, "", f"Not even one sequence of {service.context:,} tokens fits beside the weights."]
        )
    largest, latency = service.largest_batch(sizes), f"a token every {service.latency * 1e3:g} ms"
    lines += ["", _steps_table(rows), ""]
    if largest:
        lines.append(f"Largest batch that fits into memory and gives each sequence {latency}: {largest:,}.")
    else:
        lines.append(f"Not even one sequence gets {latency}.")
    lines.append(
        "These are bounds: bytes over bandwidth or FLOPs over peak, whichever is longer, on GPUs that share the\n"
        "work evenly and exchange nothing. Tokens choose experts independently and evenly, which no text does.\n"
        "Measured speeds of single streams reach 3 to 55% of such bounds (notebook 10)."
    )
    return "\n".join(lines)


def _steps_table(rows: list[dict[str, float]]) -> str:
    shown: Mapping[str, Any] = {
        "batch": lambda v: f"{v:,.0f}",
        "experts read per layer": lambda v: f"{v:,.1f}",
        "bytes": lambda v: f"{v / 1e9:,.2f} GB",
        "seconds": lambda v: f"{v * 1e3:,.2f} ms",
        "tokens per second": lambda v: f"{v:,.0f}",
        "dollars per million tokens": lambda v: f"${v:,.3f}",
    }
    keys = list(rows[0])
    return text_table([keys, *([shown[key](row[key]) for key in keys] for row in rows)], left=(), rules=(1,))
