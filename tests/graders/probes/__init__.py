"""What runs beside a learner's code: standard probes. They hold no expected value and return plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from moe_course.grading.exercises.protocol import Outcome, plain, raised
from moe_course.grading.worker.pristine import theirs


def call(namespace: Mapping[str, Any], name: str, /, *args: Any, **kwargs: Any) -> Outcome:
    """Call the learner's `name` and report the result, the inputs afterwards, or the exception."""
    try:
        if name not in namespace:
            raise NameError(f"{name} is not defined when the cells are run from top to bottom")
        value = _unnamed(theirs(namespace[name], *args, **kwargs))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a quit() in a submission is an answer like any other exception
        return Outcome(error=raised(error), inputs=plain(args))
    grads = tuple(leaf.requires_grad for leaf in _tensors(value))
    return Outcome(value=plain(value), requires_grad=grads, inputs=plain(args))


def vjp(
    namespace: Mapping[str, Any],
    name: str,
    /,
    args: Sequence[Any],
    cotangents: Sequence[torch.Tensor],
    wrt: Sequence[int],
) -> Outcome:
    """Outputs and gradients: value is (result, gradients), one gradient for each position in `wrt`.

    `cotangents` belong to the floating-point tensors of the result, in order. None means that no gradient
    reaches the argument at all, which is something else than a gradient of zero.

    Whether an input is edited in place is another question: where autograd refuses such an edit, the gradient is
    computed as if the code had worked on copies.
    """
    try:
        try:
            return _vjp(namespace[name], args, cotangents, wrt)
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
                raise
            with torch.autograd.graph.allow_mutation_on_saved_tensors():
                return _vjp(namespace[name], args, cotangents, wrt)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Outcome(error=raised(error))


def _vjp(
    function: Callable[..., Any], args: Sequence[Any], cotangents: Sequence[torch.Tensor], wrt: Sequence[int]
) -> Outcome:
    """One run of `vjp`. The code gets copies of the leaves, because autograd lets nobody edit a leaf in place."""
    leaves = {index: args[index].clone().requires_grad_() for index in wrt}
    copies = [leaves[index].clone() if index in wrt else _copy(arg) for index, arg in enumerate(args)]
    value = _unnamed(theirs(function, *copies))
    outputs = [leaf for leaf in _tensors(value) if leaf.is_floating_point()]
    pairs = [
        (o, c) for o, c in zip(outputs, cotangents, strict=False) if o.requires_grad and o.shape == c.shape
    ]
    gradients: Sequence[torch.Tensor | None] = [None] * len(wrt)
    if pairs:
        total = sum((output * cotangent.to(output.dtype)).sum() for output, cotangent in pairs)
        gradients = theirs(torch.autograd.grad, total, list(leaves.values()), allow_unused=True)
    return Outcome(value=(plain(value), plain(tuple(gradients))))


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value


def _unnamed(value: Any) -> Any:
    """A named tuple, such as the one that torch.topk returns, as a plain tuple."""
    return tuple(tuple.__iter__(value)) if isinstance(value, tuple) else value


def _tensors(value: Any) -> list[torch.Tensor]:
    """The tensors of a result, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [leaf for item in value for leaf in _tensors(item)]
    return []
