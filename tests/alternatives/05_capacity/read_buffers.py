import torch


def loop_over_tokens(buf_ECD, idx_TK, pos_TK, weights_TK):
    rows = []
    for idx_K, pos_K, weights_K in zip(idx_TK, pos_TK, weights_TK, strict=True):
        y_D = torch.zeros(buf_ECD.shape[2], dtype=torch.float64)
        for expert, place, weight in zip(idx_K.tolist(), pos_K.tolist(), weights_K.unbind(), strict=True):
            if place < buf_ECD.shape[1]:
                y_D = y_D + weight * buf_ECD[expert, place]
        rows.append(y_D.to(buf_ECD.dtype))
    return torch.stack(rows)


def row_of_zeros_added(buf_ECD, idx_TK, pos_TK, weights_TK):
    padded_ECD = torch.nn.functional.pad(buf_ECD, (0, 0, 0, 1))
    rows_TKD = padded_ECD[idx_TK, pos_TK.clamp(max=buf_ECD.shape[1])]
    return torch.einsum("tk,tkd->td", weights_TK.to(rows_TKD.dtype), rows_TKD)


def kept_ones_added_up(buf_ECD, idx_TK, pos_TK, weights_TK):
    token, slot = torch.where(pos_TK < buf_ECD.shape[1])
    rows_ND = buf_ECD[idx_TK[token, slot], pos_TK[token, slot]]
    rows_ND = (weights_TK[token, slot].unsqueeze(1) * rows_ND).to(buf_ECD.dtype)
    return buf_ECD.new_zeros(len(idx_TK), buf_ECD.shape[-1]).index_add(0, token, rows_ND)


def one_hot_product(buf_ECD, idx_TK, pos_TK, weights_TK):
    experts, capacity, _ = buf_ECD.shape
    expert_TKE = (idx_TK[..., None] == torch.arange(experts)).to(buf_ECD.dtype)
    place_TKC = (pos_TK[..., None] == torch.arange(capacity)).to(buf_ECD.dtype)
    weights_TK = weights_TK.to(buf_ECD.dtype)
    return torch.einsum("tk,tke,tkc,ecd->td", weights_TK, expert_TKE, place_TKC, buf_ECD)
