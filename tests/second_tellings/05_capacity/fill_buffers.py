import torch


def first_choices_only(x_TD, idx_TK, pos_TK, num_experts, capacity):
    buf = torch.zeros(num_experts, capacity, x_TD.shape[1], dtype=x_TD.dtype)
    for t in range(len(x_TD)):
        e, c = int(idx_TK[t, 0]), int(pos_TK[t, 0])
        if c < capacity:
            buf[e, c] = x_TD[t]
    return buf


def last_slot_overwritten(x_TD, idx_TK, pos_TK, num_experts, capacity):
    buf = torch.zeros(num_experts, capacity, x_TD.shape[1], dtype=x_TD.dtype)
    for t, (experts, places) in enumerate(zip(idx_TK.tolist(), pos_TK.tolist(), strict=True)):
        for e, c in zip(experts, places, strict=True):
            buf[e, min(c, capacity - 1)] = x_TD[t]
    return buf


def wrapped_around(x_TD, idx_TK, pos_TK, num_experts, capacity):
    buf = x_TD.new_zeros(num_experts, capacity, x_TD.shape[1])
    for t, k in torch.cartesian_prod(torch.arange(idx_TK.shape[0]), torch.arange(idx_TK.shape[1])).tolist():
        buf[idx_TK[t, k], pos_TK[t, k] % capacity] = x_TD[t]
    return buf


def one_slot_left_free(x_TD, idx_TK, pos_TK, num_experts, capacity):
    buf = x_TD.new_zeros(num_experts, capacity, x_TD.shape[1])
    tok, slot = torch.nonzero(pos_TK < capacity - 1, as_tuple=True)
    buf[idx_TK[tok, slot], pos_TK[tok, slot]] = x_TD[tok]
    return buf


def whole_token_dropped(x_TD, idx_TK, pos_TK, num_experts, capacity):
    buf = x_TD.new_zeros(num_experts, capacity, x_TD.shape[1])
    for t in range(len(x_TD)):
        if bool((pos_TK[t] < capacity).all()):
            buf[idx_TK[t], pos_TK[t]] = x_TD[t]
    return buf


def packed_in_token_order(x_TD, idx_TK, pos_TK, num_experts, capacity):
    buf = x_TD.new_zeros(num_experts, capacity, x_TD.shape[1])
    filled = [0] * num_experts
    for t, row in enumerate(idx_TK.tolist()):
        for e in row:
            if filled[e] < capacity:
                buf[e, filled[e]] = x_TD[t]
                filled[e] += 1
    return buf
