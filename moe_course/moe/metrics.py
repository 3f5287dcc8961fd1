"""How the work is spread over the experts: loads, and statistics of them.

Nothing here reads a value on the host, so statistics cost no transfer from the device. Statistics are 0-dim
tensors in float32 at least.
"""

import torch
from torch import Tensor

from moe_course.moe.counts import expert_counts
from moe_course.shapes import check_axes


def expert_load(idx_TK: Tensor, num_experts: int) -> Tensor:
    """Each expert's share of the N = T·K assignments: load_E, float32, sums to 1.

    Source: Switch Transformers, arXiv 2101.03961, equation 5; for K > 1 all slots count alike, as in Megatron.
    """
    return expert_counts(idx_TK, num_experts).float() / idx_TK.numel()


def global_load(counts_ME: Tensor) -> Tensor:
    """load_E over M micro-batches from their summed counts, float32 at least.

    A micro-batch counts as much as it has assignments. In the mean of the micro-batches' loads all would count alike.
    Source: Qiu et al. 2025, arXiv 2501.11873, section 3.
    """
    check_axes(counts_ME=counts_ME)
    counts_E = counts_ME.sum(dim=0)
    return _wide(counts_E) / counts_E.sum()


def max_violation(load_E: Tensor) -> Tensor:
    """How far the busiest expert is above the mean, max/mean − 1. Even loads give 0; all to one expert, E − 1.

    Takes loads or counts. Source: Wang et al. 2024, arXiv 2408.15664, section 4.1 ("MaxVio").
    """
    check_axes(load_E=load_E)
    load_E = _wide(load_E)
    return load_E.max() / load_E.mean() - 1


def cv_squared(values_E: Tensor) -> Tensor:
    """Squared coefficient of variation, variance/mean², with the population variance: 0 means an even load.

    Shazeer's importance loss is a weight times this of the gates summed over tokens, and the load loss of the
    smooth load. Source: Shazeer et al. 2017, arXiv 1701.06538, equations 6 to 11 (the variance's divisor is
    not said there).
    """
    check_axes(values_E=values_E)
    values_E = _wide(values_E)
    mean = values_E.mean()
    return ((values_E - mean) ** 2).mean() / mean**2


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
