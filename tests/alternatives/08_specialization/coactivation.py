from itertools import combinations

import torch
import torch.nn.functional as F


def one_by_one(idx_TK, num_experts):
    counts_EE = torch.zeros(num_experts, num_experts, dtype=torch.int32)
    for chosen in idx_TK.tolist():
        for a, b in combinations(chosen, 2):
            counts_EE[a, b] += 1
            counts_EE[b, a] += 1
    return counts_EE


def one_hot(idx_TK, num_experts):
    chosen_TE = F.one_hot(idx_TK, num_experts).sum(1)
    counts_EE = torch.einsum("te,tf->ef", chosen_TE, chosen_TE)
    return counts_EE - torch.diag(counts_EE.diagonal())


def all_pairs_of_slots(idx_TK, num_experts):
    cells_TKK = idx_TK[:, :, None] * num_experts + idx_TK[:, None, :]
    counts_EE = cells_TKK.flatten().bincount(minlength=num_experts**2).view(num_experts, num_experts)
    return torch.where(torch.eye(num_experts, dtype=torch.bool), 0, counts_EE)


def pair_by_pair(idx_TK, num_experts):
    counts_EE = torch.zeros(num_experts, num_experts)
    has_TE = torch.stack([(idx_TK == e).any(1) for e in range(num_experts)], 1)
    for a in range(num_experts):
        for b in range(a):
            counts_EE[a, b] = counts_EE[b, a] = (has_TE[:, a] & has_TE[:, b]).sum()
    return counts_EE
