import torch
import torch.nn.functional as F


def counts_returned(idx_TK, num_experts):
    return F.one_hot(idx_TK, num_experts).sum((0, 1)).float()


def divided_by_the_tokens(idx_TK, num_experts):
    counts = torch.tensor([float((idx_TK == e).sum()) for e in range(num_experts)])
    return counts / len(idx_TK)


def first_choices_only(idx_TK, num_experts):
    return F.one_hot(idx_TK[:, 0], num_experts).float().mean(0)


def length_from_the_data(idx_TK, num_experts):
    load = torch.zeros(int(idx_TK.max()) + 1)
    for e in idx_TK.flatten():
        load[e] += 1 / idx_TK.numel()
    return load


def in_percent(idx_TK, num_experts):
    hits = F.one_hot(idx_TK.flatten(), num_experts)
    return hits.float().mean(0) * 100


def relative_to_the_fair_share(idx_TK, num_experts):
    counts = torch.stack([(idx_TK == e).sum() for e in range(num_experts)]).float()
    return counts / counts.mean()
