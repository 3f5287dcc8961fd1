import itertools

import torch


def counted_twice(idx_TK, num_experts):
    out = torch.zeros(num_experts, num_experts, dtype=torch.long)
    for row in idx_TK.tolist():
        for a in row:
            for b in row:
                if a != b:
                    out[a, b] += 1
                    out[b, a] += 1
    return out


def upper_half_only(idx_TK, num_experts):
    out = torch.zeros(num_experts, num_experts, dtype=torch.long)
    for row in idx_TK.tolist():
        for a, b in itertools.combinations(sorted(row), 2):
            out[a][b] += 1
    return out


def tokens_of_the_expert_on_the_diagonal(idx_TK, num_experts):
    hits = torch.zeros(len(idx_TK), num_experts, dtype=torch.long)
    for t, row in enumerate(idx_TK.tolist()):
        for e in row:
            hits[t, e] = 1
    return torch.einsum("ta,tb->ab", hits, hits)


def repeated_pairs_counted_once_for_two_slots(idx_TK, num_experts):
    out = torch.zeros(num_experts, num_experts, dtype=torch.long)
    for i in range(idx_TK.shape[1]):
        for j in range(idx_TK.shape[1]):
            if i != j:
                out[idx_TK[:, i], idx_TK[:, j]] += 1
    return out


def shares_of_the_tokens(idx_TK, num_experts):
    hits = torch.nn.functional.one_hot(idx_TK, num_experts).sum(1).double()
    table = hits.T @ hits / len(idx_TK)
    return table - torch.diag(table.diagonal())


def first_then_second(idx_TK, num_experts):
    out = torch.zeros(num_experts, num_experts, dtype=torch.long)
    for row in idx_TK.tolist():
        for a, b in itertools.combinations(row, 2):
            out[a, b] += 1
    return out


def next_to_each_other(idx_TK, num_experts):
    out = torch.zeros(num_experts, num_experts, dtype=torch.long)
    for row in idx_TK.tolist():
        for a, b in itertools.pairwise(row):
            out[a, b] += 1
            out[b, a] += 1
    return out
