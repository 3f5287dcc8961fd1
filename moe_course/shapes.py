"""The axis legend, and one check for the boundary of public functions.

Every array of this course carries its axes as a suffix: `probs_TE` is indexed by token, then by expert.
The letters are always these, and T never means time.

    B  batch                    T  tokens, B·S              D  model width
    S  sequence position        N  assignments, T·K         F  expert hidden width
    E  experts                  K  experts per token        C  capacity, slots per expert
    L  layers                   V  vocabulary               R  ranks
    M  micro-batches            G  labels

An *assignment* is a pair (token t, slot k). Flattened it is token-major: n = t·K + k.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

AXES: dict[str, str] = {
    "B": "batch",
    "S": "sequence position",
    "T": "tokens, B·S",
    "D": "model width",
    "F": "expert hidden width",
    "E": "experts",
    "K": "experts per token",
    "N": "assignments, T·K",
    "C": "capacity, slots per expert",
    "R": "ranks",
    "L": "layers",
    "V": "vocabulary",
    "M": "micro-batches",
    "G": "labels",
}
"""What each axis letter stands for."""


def check_axes(**tensors: Tensor) -> dict[str, int]:
    """Check that tensors have the axes their names promise; return the size of each axis.

    The suffix of a keyword names the axes, and the same letter must mean the same size everywhere:

        sizes = check_axes(x_TD=x_TD, w_DE=w_DE)
        sizes["E"]                                  # number of experts

    The check reads shapes and never values, so it costs no transfer from the device, and it works on the
    `meta` device and under `torch.compile`. Raises ValueError naming the tensor, the axes expected and
    all the shapes.
    """
    sizes: dict[str, int] = {}
    for name, tensor in tensors.items():
        axes = axes_of(name)
        shape = tensor.shape
        if len(shape) != len(axes):
            raise ValueError(f"{name} needs {len(axes)} axes ({', '.join(axes)}), got {_shapes(tensors)}")
        for axis, size in zip(axes, shape, strict=True):
            if sizes.setdefault(axis, size) != size:
                raise ValueError(
                    f"{name} has {axis} = {size}, expected {sizes[axis]}, got {_shapes(tensors)}"
                )
    return sizes


def axes_of(name: str) -> str:
    """The axis letters at the end of a name: "TE" for "probs_TE". Raises ValueError where there are none."""
    stem, _, axes = name.rpartition("_")
    if not stem or not axes or any(axis not in AXES for axis in axes):
        raise ValueError(
            f"{name!r} must end in its axes, such as 'probs_TE'; the letters are {', '.join(AXES)}"
        )
    return axes


def _shapes(tensors: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
