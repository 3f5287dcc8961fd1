import torch


def stacked(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    return tuple(torch.stack([w] * num_experts) for w in (w_gate_DF, w_up_DF, w_down_FD))


def expanded_and_cloned(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    dense = (w_gate_DF, w_up_DF, w_down_FD)
    copy = torch.contiguous_format
    return [w.detach().expand(num_experts, *w.shape).clone(memory_format=copy) for w in dense]


def filled_one_by_one(w_gate_DF, w_up_DF, w_down_FD, num_experts):
    results = []
    for w in (w_gate_DF, w_up_DF, w_down_FD):
        experts = w.new_empty((num_experts, *w.shape))
        for e in range(num_experts):
            experts[e].copy_(w)
        results.append(experts)
    return tuple(results)
