import torch
import torch.nn.functional as F


def one_hot_mean(idx_TK, num_experts):
    return F.one_hot(idx_TK.reshape(-1).long(), num_experts).double().mean(0)


def compared_with_every_expert(idx_TK, num_experts):
    experts_E = torch.arange(num_experts)
    return (idx_TK[:, :, None] == experts_E).float().mean(dim=(0, 1))


def counted_in_a_loop(idx_TK, num_experts):
    load_E = torch.zeros(num_experts)
    for row in idx_TK.tolist():
        for e in row:
            load_E[e] += 1
    return load_E / load_E.sum()
