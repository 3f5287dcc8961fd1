"""How a checkpoint routes a text: load, dead experts, repeats, and whether routing leaks, layer by layer.

The experts of transformers 5 are called with (tokens_TD, idx_TK, weights_TK); a hook notes the idx_TK of each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from moe_course.moe.counts import expert_counts
from moe_course.moe.metrics import max_violation
from moe_course.systems.described import expert_modules, transformers_package
from moe_course.tables import text_table

WINDOW = 256
"""So many tokens go through the model at a time."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True, kw_only=True)
class Routing:
    """What was seen of one layer's router.

    load_E: each expert's share of the assignments. max_violation: max/mean − 1 of it. dead: experts that no token
    chose. entropy: of the load, as a share of that of an even load, 0..1. repeat: how often a token has an expert in
    common with the token before it. even_repeat: the same for independent tokens that choose K of E with this load.
    """

    layer: str
    load_E: tuple[float, ...]
    max_violation: float
    dead: int
    entropy: float
    repeat: float
    even_repeat: float


@dataclass(frozen=True, kw_only=True)
class Observed:
    """The routing of all layers on `tokens` tokens, and the probes of the whole model.

    future: whether a token's experts in some layer change with later tokens; batch: with the other sequences.
    """

    tokens: int
    layers: tuple[Routing, ...]
    future: bool
    batch: bool


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model from a folder. routes: ids_BS -> {layer: idx_TK}, each token's experts by weight, the largest first.

    num_experts: of each layer. encode: text -> ids.
    """

    name: str
    routes: Callable[[Tensor], Mapping[str, Tensor]]
    num_experts: Mapping[str, int]
    encode: Callable[[str], list[int]]


def load(folder: str) -> Checkpoint:
    """The checkpoint in a folder, in float32 on the CPU.

    Without a tokenizer in the folder it reads a text as bytes, modulo the vocabulary. Raises ValueError for a folder
    without weights, and for a model without experts.
    """
    package = transformers_package()
    if not [*Path(folder).glob("*.safetensors")] and not [*Path(folder).glob("*.bin")]:
        raise ValueError(f"{folder!r} holds no weights (*.safetensors), so its routing cannot be observed")
    model = package.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    vocab_size = model.config.get_text_config().vocab_size
    return Checkpoint(
        type(model).__name__, *watched(model), encode=lambda text: _ids(folder, text, vocab_size)
    )


def observe(folder: str, text: str) -> Observed:
    """Watch the routers of the checkpoint in a folder while it reads the text.

    Raises ValueError as `load` does, and for a text of less than two tokens.
    """
    found = load(folder)
    return observe_routes(found.routes, found.num_experts, found.encode(text))


def watched(model: nn.Module) -> tuple[Callable[[Tensor], dict[str, Tensor]], dict[str, int]]:
    """The routes of a model whose experts are called with (tokens_TD, idx_TK, weights_TK), for `observe_routes`.

    As a function of ids_BS, and how many experts each layer has. Raises ValueError for a model without experts.
    """
    modules = expert_modules(model)
    if not modules:
        raise ValueError(f"{type(model).__name__} has no experts to observe")
    experts = {name: _num_experts(module) for name, module in modules.items()}
    return lambda ids_BS: _routes(model, modules, ids_BS), experts


def observe_routes(
    routes: Callable[[Tensor], Mapping[str, Tensor]],
    num_experts: Mapping[str, int],
    ids: Sequence[int],
    window: int = WINDOW,
) -> Observed:
    """Watch any model. routes: ids_BS -> {layer: idx_TK}; num_experts: of each layer.

    `window` tokens are read at a time. Raises ValueError for fewer than two tokens.
    """
    if len(ids) < 2:
        raise ValueError(f"the text has {len(ids)} tokens; at least 2 are needed")
    windows = torch.tensor(ids).split(window)
    seen = [routes(ids_S[None]) for ids_S in windows]
    layers = tuple(
        _routing(name, [found[name] for found in seen], count) for name, count in num_experts.items()
    )
    future, batch = _leaks(routes, windows[0])
    return Observed(tokens=len(ids), layers=layers, future=future, batch=batch)


def _ids(folder: str, text: str, vocab_size: int) -> list[int]:
    if not any((Path(folder) / name).exists() for name in TOKENIZER_FILES):
        return [byte % vocab_size for byte in text.encode()]
    return list(transformers_package().AutoTokenizer.from_pretrained(folder)(text)["input_ids"])


def _num_experts(module: nn.Module) -> int:
    return next(len(p) for p in module.parameters() if p.dim() == 3)


@torch.no_grad()
def _routes(model: nn.Module, modules: dict[str, nn.Module], ids_BS: Tensor) -> dict[str, Tensor]:
    """idx_TK of each layer for these tokens."""
    with _noted(modules) as routes:
        model(input_ids=ids_BS, use_cache=False)
    return routes


@contextmanager
def _noted(modules: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    routes: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            given = [x for x in (*args, *named.values()) if isinstance(x, Tensor)]
            idx_TK = next(x for x in given if not x.is_floating_point())
            weights_TK = next(x for x in given if x.is_floating_point() and x.shape == idx_TK.shape)
            routes[name] = idx_TK.gather(1, weights_TK.argsort(dim=1, descending=True, stable=True))

        return hook

    handles = [
        module.register_forward_pre_hook(note(name), with_kwargs=True) for name, module in modules.items()
    ]
    try:
        yield routes
    finally:
        for handle in handles:
            handle.remove()


def _routing(layer: str, windows: Sequence[Tensor], num_experts: int) -> Routing:
    idx_TK = torch.cat(list(windows))
    counts_E = expert_counts(idx_TK, num_experts).double()
    load_E = counts_E / counts_E.sum()
    common = torch.cat([(idx[1:, :, None] == idx[:-1, None, :]).flatten(1).any(dim=1) for idx in windows])
    return Routing(
        layer=layer,
        load_E=tuple(load_E.tolist()),
        max_violation=max_violation(counts_E).item(),
        dead=int((counts_E == 0).sum()),
        entropy=(-torch.special.xlogy(load_E, load_E).sum() / torch.tensor(float(num_experts)).log()).item(),
        repeat=common.double().mean().item(),
        even_repeat=_repeat_by_chance(idx_TK),
    )


def _repeat_by_chance(idx_TK: Tensor, seed: int = 0) -> float:
    """The share of pairs with a common expert when the same tokens stand in a random order."""
    shuffled_TK = idx_TK[torch.randperm(len(idx_TK), generator=torch.Generator().manual_seed(seed))]
    return (
        (shuffled_TK[1:, :, None] == shuffled_TK[:-1, None, :]).flatten(1).any(dim=1).double().mean().item()
    )


def _leaks(routes: Callable[[Tensor], Mapping[str, Tensor]], ids_S: Tensor) -> tuple[bool, bool]:
    """Whether experts chosen for a token change with later tokens, or with another sequence in the batch.

    A few choices may turn by rounding alone, so a leak is more than 1 in 100.
    """
    half = len(ids_S) // 2
    alone = routes(ids_S[None])
    other = ids_S[:1].expand_as(ids_S)  # one token over and over
    changed = routes(torch.cat([ids_S[:half], other[half:]])[None])
    pair = routes(torch.stack([ids_S, other]))
    future = any(_differ(alone[name][:half], changed[name][:half]) for name in alone)
    return future, any(_differ(alone[name], pair[name][: len(ids_S)]) for name in alone)


def _differ(a_TK: Tensor, b_TK: Tensor) -> bool:
    return bool((a_TK.sort(dim=1).values != b_TK.sort(dim=1).values).any(dim=1).double().mean() > 0.01)


def routing_table(observed: Observed) -> str:
    """A row for each layer."""
    rows = [("layer", "MaxVio", "dead", "entropy", "repeats", "by chance")]
    for found in observed.layers:
        shares = (f"{share:.0%}" for share in (found.entropy, found.repeat, found.even_repeat))
        rows.append((found.layer, f"{found.max_violation:.2f}", str(found.dead), *shares))  # type: ignore[arg-type]
    return text_table(rows, rules=(1,))
