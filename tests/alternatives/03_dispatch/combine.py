import torch


def added_by_index(y_ND, order_N, weights_TK):
    tokens, k = weights_TK.shape
    rows = (y_ND * weights_TK.reshape(-1)[order_N].unsqueeze(1)).to(y_ND.dtype)
    return y_ND.new_zeros(tokens, y_ND.shape[1]).index_add(0, order_N // k, rows)


def unsorted_and_summed(y_ND, order_N, weights_TK):
    y_TKD = y_ND[order_N.argsort()].reshape(*weights_TK.shape, -1)
    return torch.einsum("tk,tkd->td", weights_TK.to(y_ND.dtype), y_TKD)


def written_to_their_places(y_ND, order_N, weights_TK):
    y_TKD = torch.zeros_like(y_ND).index_copy(0, order_N.long(), y_ND).view(*weights_TK.shape, -1)
    return (y_TKD * weights_TK[..., None]).sum(1).type_as(y_ND)


def a_matrix_of_weights(y_ND, order_N, weights_TK):
    """One sparse matrix, here written out: row t holds the weights of token t's assignments."""
    tokens, k = weights_TK.shape
    token_N, row_N = order_N.long() // k, torch.arange(len(order_N))
    mix_TN = y_ND.new_zeros(tokens, len(order_N))
    mix_TN[token_N, row_N] = weights_TK[token_N, order_N.long() % k].to(y_ND.dtype)
    return mix_TN @ y_ND
