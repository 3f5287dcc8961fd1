import torch


def loop_over_assignments(x_TD, idx_TK, pos_TK, num_experts, capacity):
    buf_ECD = torch.zeros(num_experts, capacity, x_TD.shape[1], dtype=x_TD.dtype)
    for t in range(idx_TK.shape[0]):
        for k in range(idx_TK.shape[1]):
            if pos_TK[t, k] < capacity:
                buf_ECD[idx_TK[t, k], pos_TK[t, k]] = x_TD[t]
    return buf_ECD


def indexed_with_a_mask(x_TD, idx_TK, pos_TK, num_experts, capacity):
    token, slot = torch.nonzero(pos_TK < capacity, as_tuple=True)
    buf_ECD = x_TD.new_zeros((num_experts, capacity, x_TD.shape[-1]))
    places = (idx_TK[token, slot], pos_TK[token, slot])
    return buf_ECD.index_put(places, x_TD[token])


def one_hot_product(x_TD, idx_TK, pos_TK, num_experts, capacity):
    expert_TKE = (idx_TK[..., None] == torch.arange(num_experts)).to(x_TD.dtype)
    place_TKC = (pos_TK[..., None] == torch.arange(capacity)).to(x_TD.dtype)
    return torch.einsum("tke,tkc,td->ecd", expert_TKE, place_TKC, x_TD)


def overflow_row_cut_off(x_TD, idx_TK, pos_TK, num_experts, capacity):
    place_TK = pos_TK.clamp(max=capacity)
    rows = torch.zeros(num_experts, capacity + 1, x_TD.shape[1], dtype=x_TD.dtype)
    for slot in range(idx_TK.shape[1]):
        rows = rows.index_put((idx_TK[:, slot], place_TK[:, slot]), x_TD)
    return rows[:, :capacity]
