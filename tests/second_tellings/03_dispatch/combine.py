import torch


def order_applied_again(y_ND, order_N, weights_TK):
    T, K = weights_TK.shape
    back = y_ND.index_select(0, order_N).reshape(T, K, -1)
    return torch.einsum("tkd,tk->td", back, weights_TK.to(y_ND.dtype))


def rows_taken_as_tokens(y_ND, order_N, weights_TK):
    T, K = weights_TK.shape
    out = torch.zeros(T, y_ND.shape[1], dtype=y_ND.dtype)
    for t in range(T):
        for k in range(K):
            out[t] += weights_TK[t, k].to(y_ND.dtype) * y_ND[t * K + k]
    return out


def plus_equals_on_repeated_indices(y_ND, order_N, weights_TK):
    K = weights_TK.shape[1]
    out = torch.zeros(len(weights_TK), y_ND.shape[1], dtype=y_ND.dtype)
    scaled = y_ND * weights_TK.reshape(-1)[order_N][:, None].to(y_ND.dtype)
    out[order_N // K] += scaled
    return out


def weights_ignored(y_ND, order_N, weights_TK):
    T, K = weights_TK.shape
    out = [0] * T
    for row, n in zip(y_ND, order_N.tolist(), strict=True):
        out[n // K] = out[n // K] + row
    return torch.stack(out)


def weights_left_in_token_order(y_ND, order_N, weights_TK):
    T, K = weights_TK.shape
    flat = weights_TK.flatten()
    out = [0] * T
    for i, n in enumerate(order_N.tolist()):
        out[n // K] = out[n // K] + flat[i].to(y_ND.dtype) * y_ND[i]
    return torch.stack(out)


def averaged_over_the_slots(y_ND, order_N, weights_TK):
    T, K = weights_TK.shape
    back = torch.zeros_like(y_ND).index_copy(0, order_N, y_ND).view(T, K, -1)
    return (back * weights_TK.to(y_ND.dtype).unsqueeze(2)).mean(1)


def slots_before_tokens(y_ND, order_N, weights_TK):
    T, K = weights_TK.shape
    back = torch.zeros_like(y_ND).index_copy(0, order_N, y_ND).view(K, T, -1)
    return torch.einsum("ktd,tk->td", back, weights_TK.to(y_ND.dtype))
