import torch


def counted_from_one(idx_TK, num_experts):
    T, K = idx_TK.shape
    seen, pos = {}, torch.zeros(T, K, dtype=torch.long)
    for k in range(K):
        for t in range(T):
            e = int(idx_TK[t, k])
            seen[e] = seen.get(e, 0) + 1
            pos[t, k] = seen[e]
    return pos


def token_major(idx_TK, num_experts):
    seen = [0] * num_experts
    rows = []
    for row in idx_TK.tolist():
        rows.append([])
        for e in row:
            rows[-1].append(seen[e])
            seen[e] += 1
    return torch.tensor(rows)


def a_queue_for_each_slot(idx_TK, num_experts):
    pos = torch.zeros_like(idx_TK)
    for k in range(idx_TK.shape[1]):
        for t in range(idx_TK.shape[0]):
            pos[t, k] = (idx_TK[:t, k] == idx_TK[t, k]).sum()
    return pos


def second_choices_first(idx_TK, num_experts):
    seen = torch.zeros(num_experts, dtype=torch.long)
    pos = torch.zeros_like(idx_TK)
    for k in reversed(range(idx_TK.shape[1])):
        for t in range(idx_TK.shape[0]):
            pos[t, k] = seen[idx_TK[t, k]]
            seen[idx_TK[t, k]] += 1
    return pos


def last_come_first_served(idx_TK, num_experts):
    T, K = idx_TK.shape
    flat = idx_TK.T.reshape(-1).tolist()
    pos = [sum(other == e for other in flat[n + 1 :]) for n, e in enumerate(flat)]
    return torch.tensor(pos).reshape(K, T).T


def one_queue_for_all(idx_TK, num_experts):
    T, K = idx_TK.shape
    return torch.arange(T * K).reshape(K, T).T.contiguous()
