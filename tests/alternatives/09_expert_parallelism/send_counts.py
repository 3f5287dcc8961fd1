import torch


def one_stroke_each(idx_TK, num_experts, num_ranks):
    counts_R = torch.zeros(num_ranks, dtype=torch.int32)
    for expert in idx_TK.flatten().tolist():
        counts_R[expert * num_ranks // num_experts] += 1
    return counts_R


def experts_then_blocks(idx_TK, num_experts, num_ranks):
    counts_E = torch.nn.functional.one_hot(idx_TK.reshape(-1), num_experts).sum(0)
    return counts_E.view(num_ranks, -1).sum(1)


def boundaries(idx_TK, num_experts, num_ranks):
    ends_R = torch.arange(1, num_ranks + 1) * (num_experts // num_ranks)
    below_R = (idx_TK.reshape(-1, 1) < ends_R).sum(0)
    return torch.diff(below_R, prepend=torch.zeros(1, dtype=torch.int64))
