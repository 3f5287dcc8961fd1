import torch
import torch.nn.functional as F


def counted_in_a_loop(idx_TK, num_experts):
    pos_TK = torch.empty_like(idx_TK)
    waiting = [0] * num_experts
    for k in range(idx_TK.shape[1]):
        for t, expert in enumerate(idx_TK[:, k].tolist()):
            pos_TK[t, k] = waiting[expert]
            waiting[expert] += 1
    return pos_TK


def running_sum_of_one_hot(idx_TK, num_experts):
    queue_N = idx_TK.t().reshape(-1)
    hot_NE = F.one_hot(queue_N, num_experts)
    before_NE = hot_NE.cumsum(0) - hot_NE
    return (before_NE * hot_NE).sum(1).view(idx_TK.shape[1], -1).t()


def slot_after_slot(idx_TK, num_experts):
    queued_E = torch.zeros(num_experts, dtype=torch.int32)
    columns = []
    for idx_T in idx_TK.unbind(1):
        hot_TE = F.one_hot(idx_T, num_experts).int()
        place_TE = hot_TE.cumsum(0, dtype=torch.int32) - 1 + queued_E
        columns.append(place_TE.gather(1, idx_T[:, None])[:, 0])
        queued_E = queued_E + hot_TE.sum(0, dtype=torch.int32)
    return torch.stack(columns, dim=1)


def compared_with_all_before(idx_TK, num_experts):
    queue_N = idx_TK.T.flatten()
    same_NN = queue_N[:, None] == queue_N[None, :]
    return same_NN.tril(-1).sum(1).reshape(idx_TK.shape[1], idx_TK.shape[0]).T
