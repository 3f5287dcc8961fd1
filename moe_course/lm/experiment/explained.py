"""A trained language model of the course as `moe-course explain` wants it: its sizes, and how it routes a text."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from moe_course.lm.experiment import trial
from moe_course.lm.model.transformer import Transformer
from moe_course.lm.training.run_folder import load_model
from moe_course.moe.layer import MoELayer
from moe_course.systems.described import Description
from moe_course.systems.footprint import ServingSizes
from moe_course.systems.observed import Observed, observe_routes

ROUTER = (
    "router",
    "renormalize",
    "scale",
    "bias_rate",
    "capacity_factor",
    "fill",
    "num_groups",
    "top_groups",
)


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run of `moe-course train`."""
    return (folder / trial.RECIPE).is_file()


def sizes_of(model: Transformer) -> ServingSizes:
    """The sizes of a language model of this course, for the formulas of serving."""
    layers = _moe_layers(model)
    experts = _experts(model)
    total = sum(w.numel() for w in model.parameters())
    count, top_k = (layers[0].config.num_experts, layers[0].config.top_k) if layers else (1, 1)
    look_up = 0 if model.config.tied else model.embedding.weight.numel()
    return ServingSizes(
        total_params=total,
        fixed_params=total - experts - look_up,
        expert_params=experts // (len(layers) * count) if layers else 0,
        moe_layers=len(layers),
        num_experts=count,
        top_k=top_k,
        kv_values=model.config.num_layers * 2 * model.config.d_model,
    )


def describe_run(folder: Path) -> Description:
    """The sizes of the model in a run's folder, and its router. Raises ValueError where there is no run."""
    recipe = trial.read_recipe(folder)
    with torch.device("meta"):
        model = Transformer(recipe.model)
    layers, sizes = _moe_layers(model), sizes_of(model)
    matrices = [model.embedding.weight] if model.config.tied else [model.embedding.weight, model.head.weight]
    embeddings, experts = sum(w.numel() for w in matrices), _experts(model)
    routers = sum(w.numel() for layer in layers for name, w in layer.named_parameters() if "router" in name)
    rest = sizes.total_params - embeddings - experts - routers
    parts = {
        "embeddings": (embeddings, embeddings),
        "attention, norms and dense FFNs": (rest, rest),
        "routers": (routers, routers),
        "experts": (experts, experts // sizes.num_experts * sizes.top_k),
    }
    config = layers[0].config if layers else None
    router = {name: getattr(config, name) for name in ROUTER} if config else {}
    if config:
        router |= {"lb_weight": recipe.plan.lb_weight, "z_weight": recipe.plan.z_weight}
    return Description(
        name=str(folder),
        architecture=f"{recipe.name}, a run of moe-course train",
        parts={part: row for part, row in parts.items() if row[0]},
        sizes=sizes,
        router={name: value for name, value in router.items() if value is not None},
    )


@torch.no_grad()
def observe_run(folder: Path, text: str) -> Observed:
    """Watch the routers of a run's last checkpoint while it reads a text, a context at a time.

    Raises ValueError for a dense model, for a text of fewer than two tokens, and as `load_model` does.
    """
    model, tokenizer = load_model(folder), trial.read_tokenizer(folder)
    num_experts = {f"block {n}": layer.config.num_experts for n, layer in enumerate(_moe_layers(model))}
    if not num_experts:
        raise ValueError(f"the model in {folder} is dense: it has no routing to observe")

    def routes(ids_BS: Tensor) -> dict[str, Tensor]:
        _, aux = model(ids_BS)
        return {name: stats.idx_TK for name, stats in zip(num_experts, aux.stats, strict=True)}

    return observe_routes(routes, num_experts, tokenizer.encode(text), window=model.config.context)


def _moe_layers(model: Transformer) -> list[MoELayer]:
    return [module for module in model.modules() if isinstance(module, MoELayer)]


def _experts(model: Transformer) -> int:
    """Parameters of all routed experts."""
    return sum(w.numel() for layer in _moe_layers(model) for w in (layer.w_gate, layer.w_up, layer.w_down))
