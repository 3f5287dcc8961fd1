"""Counting assignments: the one function that everything else here counts with."""

import torch
from torch import Tensor

from moe_course.shapes import check_axes


def expert_counts(idx_TK: Tensor, num_experts: int, mask_T: Tensor | None = None) -> Tensor:
    """How many of the N = T·K assignments each expert got: counts_E, int64, experts without any included.

    Tokens whose mask is False (padding) count nowhere. Reads no value on the host: `bincount` would, because the
    length of its result depends on the largest index, and so it waits for the device.
    """
    check_axes(idx_TK=idx_TK, **({} if mask_T is None else {"mask_T": mask_T}))
    idx_N = idx_TK.flatten().long()
    ones_TK = torch.ones_like(idx_TK) if mask_T is None else mask_T[:, None].expand_as(idx_TK)
    return idx_N.new_zeros(num_experts).scatter_add(0, idx_N, ones_TK.flatten().long())
