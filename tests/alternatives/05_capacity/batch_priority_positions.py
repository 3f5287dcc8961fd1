import torch
import torch.nn.functional as F


def counted_in_a_loop(idx_TK, weights_TK, num_experts):
    order = sorted(range(len(idx_TK)), key=lambda t: float(weights_TK[t, 0]), reverse=True)
    pos_TK, waiting = torch.zeros_like(idx_TK), [0] * num_experts
    for k in range(idx_TK.shape[1]):
        for t in order:
            expert = int(idx_TK[t, k])
            pos_TK[t, k], waiting[expert] = waiting[expert], waiting[expert] + 1
    return pos_TK


def sorted_queued_and_put_back(idx_TK, weights_TK, num_experts):
    order_T = torch.argsort(weights_TK[:, 0], descending=True)
    queue_N = idx_TK[order_T].T.reshape(-1)
    hot_NE = F.one_hot(queue_N, num_experts)
    pos_N = (hot_NE.cumsum(0) * hot_NE).sum(1) - 1
    return pos_N.view(-1, len(idx_TK)).T[order_T.argsort()]


def rivals_counted(idx_TK, weights_TK, num_experts):
    tokens, k = idx_TK.shape
    heavier_TT = weights_TK[None, :, 0] > weights_TK[:, None, 0]
    pos_TK = torch.zeros(tokens, k, dtype=torch.int32)
    for slot in range(k):
        for t in range(tokens):
            same_TK = idx_TK == idx_TK[t, slot]
            pos_TK[t, slot] = same_TK[:, :slot].sum() + (same_TK[:, slot] & heavier_TT[t]).sum()
    return pos_TK
