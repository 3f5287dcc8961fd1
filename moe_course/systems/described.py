"""Any model's sizes, counted: of a preset, or of the class that transformers has for a config.json.

Nothing about an architecture is guessed from the names of its configuration. The class is built on the meta device,
where a model of any size takes no memory, and three tokens go through it: the shapes that arrive at each layer's
experts say how many experts there are and how many a token gets. Needs the extra `oracles` (transformers).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from moe_course.published import MODELS
from moe_course.systems.accounting import breakdown
from moe_course.systems.footprint import ServingSizes, serving_sizes

PARTS = (
    "embeddings",
    "attention",
    "norms",
    "dense FFN",
    "router",
    "shared experts",
    "routed experts",
    "other",
)
BALANCING = (
    "router_aux_loss_coef", "aux_loss_alpha", "seq_aux", "router_z_loss_coef", "router_jitter_noise",
    "topk_method", "scoring_func", "norm_topk_prob", "routed_scaling_factor", "n_group", "topk_group",
    "moe_router_use_sigmoid", "use_routing_bias", "expert_capacity", "capacity_factor",
)  # fmt: skip
"""Fields of public configurations that say how a router chooses and is balanced."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """A model's sizes. parts: (total, active) parameters by component, as `accounting.breakdown` counts them.

    router: what the configuration says about choosing and balancing, as far as it does.
    """

    name: str
    architecture: str
    parts: Mapping[str, tuple[int, int]]
    sizes: ServingSizes
    router: Mapping[str, Any] = field(default_factory=dict)

    @property
    def params(self) -> tuple[int, int]:
        """(total, active)."""
        totals, actives = zip(*self.parts.values(), strict=True)
        return sum(totals), sum(actives)


def describe(model: str) -> Description:
    """The sizes of a preset, of a `config.json`, or of a folder with one.

    Raises ValueError for a name that is neither, for a file that is no configuration, and for an architecture whose
    experts could not be counted, with its name.
    """
    if model in MODELS:
        config = MODELS[model]
        return Description(
            name=model,
            architecture="preset",
            parts={part: row for part, row in breakdown(config).items() if row[0]},
            sizes=serving_sizes(config),
        )
    return describe_config(model, read_config(model))


def read_config(model: str) -> Any:
    """The transformers configuration in a file, or in the `config.json` of a folder."""
    path = Path(model)
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(
            f"{model!r} is neither a file or folder with a config.json nor one of {', '.join(MODELS)}"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        kind = values["model_type"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no configuration of transformers: {error!r}") from None
    mapping = transformers_package().CONFIG_MAPPING
    if kind not in mapping:
        raise ValueError(f"{path}: the installed transformers has no architecture {kind!r}")
    try:
        config = mapping[kind].from_dict(values)
        config = getattr(
            config, "text_config", config
        )  # of a model that also sees, the part that reads and writes
        _demand_possible_sizes(config)
    except Exception as error:  # the checks of transformers raise errors of their own
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    return config


_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k")
_POSITIVE = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", *_EXPERTS)


def _demand_possible_sizes(config: Any) -> None:
    """Raises ValueError for a configuration with sizes that no model can have, with their names."""
    sizes = {key: value for key, value in config.to_dict().items() if type(value) is int}
    for key in _POSITIVE:
        if sizes.get(key, 1) < 1:
            raise ValueError(f"{key} = {sizes[key]} is no size")
    width, heads = sizes.get("hidden_size", 0), sizes.get("num_attention_heads", 1)
    if not getattr(config, "head_dim", None) and width % heads:
        raise ValueError(f"hidden_size = {width} is no multiple of num_attention_heads = {heads}")
    for total in (key for key in _EXPERTS if sizes.get(key, 0) > 1):
        for chosen in (key for key in _CHOSEN if key in sizes):
            if not 1 <= sizes[chosen] <= sizes[total]:
                raise ValueError(f"{chosen} = {sizes[chosen]} of {total} = {sizes[total]} cannot be chosen")
        if sizes[total] % (groups := sizes.get("n_group", 1) or 1):
            raise ValueError(f"{total} = {sizes[total]} is no multiple of n_group = {groups}")


def transformers_package() -> ModuleType:
    try:
        import transformers
    except ImportError:
        raise ValueError(
            "reading a config.json needs transformers: pip install 'moe-course[oracles]'"
        ) from None
    return transformers


def describe_config(name: str, config: Any) -> Description:
    """The sizes of the model that a transformers configuration describes; ValueError as in `describe`."""
    kind = config.model_type
    try:
        with torch.device("meta"):
            model = transformers_package().AutoModelForCausalLM.from_config(
                config, attn_implementation="eager"
            )
        layers, kv_values = _probe(model, config)
    except Exception as error:  # whatever an unknown class may raise, the user needs its name
        raise ValueError(f"{kind!r} cannot be explained: {type(error).__name__}: {error}") from error
    chosen = {(found.num_experts, found.top_k, found.expert_params) for found in layers.values()}
    if len(chosen) > 1:
        raise ValueError(
            f"{kind!r} cannot be explained: its layers differ in (E, K, size of an expert): {chosen}"
        )
    num_experts, top_k, expert_params = next(iter(chosen), (1, 1, 0))
    parts = _parts(model, layers)
    total = sum(size for size, _ in parts.values())
    embedding = model.get_input_embeddings().weight
    tied = model.get_output_embeddings().weight is embedding
    fixed = total - len(layers) * num_experts * expert_params - (0 if tied else embedding.numel())
    if not layers and (asked := _asked_experts(config)):
        raise ValueError(
            f"{kind!r} cannot be explained: its configuration says {asked}, and no experts were found"
        )
    sizes = ServingSizes(
        total_params=total, fixed_params=fixed, expert_params=expert_params, moe_layers=len(layers),
        num_experts=num_experts, top_k=top_k, kv_values=kv_values,
    )  # fmt: skip
    router = {key: getattr(config, key) for key in BALANCING if getattr(config, key, None) is not None}
    return Description(name=name, architecture=type(model).__name__, parts=parts, sizes=sizes, router=router)


@dataclass(frozen=True)
class MoELayerSizes:
    """What was seen of one layer's experts: E, K, and the parameters of one expert."""

    num_experts: int
    top_k: int
    expert_params: int


def expert_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules of a transformers model that hold a layer's routed experts as stacked weights, by name.

    Called with (tokens_TD, idx_TK, weights_TK), all three of them: the convention of transformers 5.
    """
    return {
        name: module for name, module in model.named_modules() if type(module).__name__.endswith("Experts")
    }


def _asked_experts(config: Any) -> dict[str, int]:
    """The fields of a configuration that speak of more than one expert."""
    numbers = {
        key: value for key, value in config.to_dict().items() if "expert" in key and type(value) is int
    }
    return {key: value for key, value in numbers.items() if value > 1}


def _probe(model: Any, config: Any) -> tuple[dict[str, MoELayerSizes], int]:
    """Send three tokens through a model on the meta device: the sizes at its experts, and cached values per token."""
    found: dict[str, MoELayerSizes] = {}
    modules = expert_modules(model)
    for name, module in modules.items():
        block = model.get_submodule(name.rpartition(".")[0])
        module.forward = _noting(found, name, module, block)
    with torch.no_grad(), _no_questions():
        few, more = (_cached(model, tokens) for tokens in (3, 4))
    if missing := sorted(set(modules) - set(found)):
        raise ValueError(f"no token reached {missing[0]}")
    _need_no_other_experts(model, modules)
    if any(".kv_a_proj" in name for name, _ in model.named_parameters()):
        # A server keeps a token's latent and rotated key; the class keeps the keys and values made from them.
        return found, len(few) * (config.kv_lora_rank + config.qk_rope_head_dim)
    return found, sum(more) - sum(few)


def _cached(model: Any, tokens: int) -> list[int]:
    """How many values each layer that caches keys and values holds after so many tokens."""
    ones = torch.ones(1, tokens, dtype=torch.long, device="meta")
    result = model(input_ids=ones, attention_mask=ones, use_cache=True)
    layers = getattr(getattr(result, "past_key_values", None), "layers", [])
    keys = [layer for layer in layers if isinstance(getattr(layer, "keys", None), Tensor)]
    return [layer.keys.numel() + layer.values.numel() for layer in keys]


def _noting(found: dict[str, MoELayerSizes], name: str, module: nn.Module, block: nn.Module) -> Any:
    """A forward that notes the sizes and computes nothing. `block` holds the experts and their router."""

    def forward(tokens_TD: Tensor, *rest: Any, **named: Any) -> Tensor:
        idx = [x for x in (*rest, *named.values()) if isinstance(x, Tensor) and not x.is_floating_point()]
        stacks = {len(p) for p in module.parameters() if p.dim() == 3}
        router: Any = getattr(block, "router", None)
        if len(idx) == len(stacks) == 1 and idx[0].dim() == 2:
            top_k = idx[0].shape[1]
        elif (
            not rest and not named and hasattr(router, "top_k")
        ):  # Llama 4: every expert gets all tokens, weighted
            top_k = router.top_k
        else:
            raise ValueError(f"{type(module).__name__} is not called with tokens, experts and weights")
        num_experts, params = stacks.pop(), sum(p.numel() for p in module.parameters())
        found[name] = MoELayerSizes(num_experts, top_k, params // num_experts)
        return torch.zeros_like(tokens_TD)

    return forward


def _need_no_other_experts(model: nn.Module, known: Mapping[str, nn.Module]) -> None:
    """Raise ValueError if a parameter outside of the known experts looks like one of a list of experts."""
    for name, _ in model.named_parameters():
        inside = any(name.startswith(f"{known_name}.") for known_name in known)
        if ".experts." in name and not inside:
            raise ValueError(f"the experts of {name} are not stacked")


@contextmanager
def _no_questions() -> Iterator[None]:
    """transformers asks of masks whether all tokens are real, which the meta device cannot answer."""
    with mock.patch("transformers.masking_utils.is_tracing", return_value=True):
        yield


def _parts(model: nn.Module, layers: Mapping[str, MoELayerSizes]) -> dict[str, tuple[int, int]]:
    """(total, active) parameters by component; parameters that are shared count once."""
    parts = dict.fromkeys(PARTS, (0, 0))
    blocks = {name.rpartition(".")[0] for name in layers}
    for name, parameter in model.named_parameters():
        part, active = _part(name, blocks), parameter.numel()
        if part == "routed experts":
            sizes = next(sizes for layer, sizes in layers.items() if name.startswith(f"{layer}."))
            active = active // sizes.num_experts * sizes.top_k
        total, used = parts[part]
        parts[part] = total + parameter.numel(), used + active
    return {part: row for part, row in parts.items() if row[0]}


def _part(name: str, blocks: set[str]) -> str:
    """The component that a parameter belongs to. `blocks` are the modules that hold experts and their router."""
    inside = [name.removeprefix(f"{block}.") for block in blocks if name.startswith(f"{block}.")]
    if "embed" in name or name.startswith("lm_head"):
        return "embeddings"
    if inside and inside[0].startswith("experts."):
        return "routed experts"
    if "shared" in name:
        return "shared experts"
    if inside:
        return "router"
    if "norm" in name:
        return "norms"
    if any(word in name for word in ("attn", "attention", "mamba", "mixer", "conv", "short_conv")):
        return "attention"
    if any(word in name for word in ("mlp", "feed_forward", "ffn")):
        return "dense FFN"
    return "other"
