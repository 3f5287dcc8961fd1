"""Probes of notebook 03: they build a learner's layer and report what it holds and does, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from moe_course.grading.exercises.protocol import Outcome, plain, raised
from moe_course.grading.worker.pristine import theirs


def moe_layer_step(
    namespace: Mapping[str, Any],
    options: dict[str, Any],
    state: dict[str, torch.Tensor],
    x_BSD: torch.Tensor,
    dy_BSD: torch.Tensor | None = None,
) -> Outcome:
    """Build MoELayer(**options), load the state, run it forward, and with dy_BSD backward.

    value: result, and with dy_BSD `dx` and `gradients` by parameter name, None where none arrived. The layer takes
    the dtype of the state.
    """
    try:
        layer = theirs(namespace["MoELayer"], **options)
        dtypes = {value.dtype for value in state.values()}
        layer = theirs(layer.to, *dtypes)
        _load(layer, state)
        x = x_BSD.clone().requires_grad_(dy_BSD is not None)
        result = theirs(layer, x)
        report: dict[str, Any] = {"result": plain(tuple(result) if isinstance(result, tuple) else result)}
        if dy_BSD is not None:
            y = result[0]
            if y.requires_grad and y.numel() == dy_BSD.numel():
                theirs((y.reshape(dy_BSD.shape) * dy_BSD).sum().backward)
            report["dx"] = plain(x.grad)
            report["gradients"] = {name: plain(p.grad) for name, p in layer.named_parameters()}
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Outcome(error=raised(error))
    return Outcome(value=report, inputs=plain((x,)))


def moe_layer_parameters(
    namespace: Mapping[str, Any], options: dict[str, Any], state: dict[str, torch.Tensor] | None = None
) -> Outcome:
    """Build two layers alike, load the state into the first: value is the parameters of both, by name, and
    which of the first one's are trained."""
    try:
        layers = [theirs(namespace["MoELayer"], **options) for _ in range(2)]
        if state is not None:
            _load(layers[0], state)
        first, second = (dict(layer.named_parameters()) for layer in layers)
        trained = {name: bool(parameter.requires_grad) for name, parameter in first.items()}
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Outcome(error=raised(error))
    return Outcome(value={"first": plain(first), "second": plain(second), "trained": trained})


def _load(layer: Any, state: dict[str, torch.Tensor]) -> None:
    """Copy the state into the parameters of these names."""
    parameters = dict(layer.named_parameters())
    for name, value in state.items():
        if name not in parameters:
            have = ", ".join(parameters) or "none"
            raise LookupError(f"the layer has no parameter called {name!r}; its parameters: {have}")
        if parameters[name].shape != value.shape:
            shapes = f"{tuple(parameters[name].shape)}, not {tuple(value.shape)}"
            raise ValueError(f"the parameter {name} has shape {shapes}")
        with torch.no_grad():
            parameters[name].copy_(value)
