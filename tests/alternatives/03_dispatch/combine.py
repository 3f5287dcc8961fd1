import torch


def added_by_index(y_ND, order_N, weights_TK):
    tokens, k = weights_TK.shape
    rows = (y_ND * weights_TK.reshape(-1)[order_N].unsqueeze(1)).to(y_ND.dtype)
    return y_ND.new_zeros(tokens, y_ND.shape[1]).index_add(0, order_N // k, rows)


def unsorted_and_summed(y_ND, order_N, weights_TK):
    y_TKD = y_ND[order_N.argsort()].reshape(*weights_TK.shape, -1)
    return torch.einsum("tk,tkd->td", weights_TK.to(y_ND.dtype), y_TKD)


def written_to_their_places(y_ND, order_N, weights_TK):
    y_TKD = torch.zeros_like(y_ND).index_copy(0, order_N, y_ND).view(*weights_TK.shape, -1)
    return (y_TKD * weights_TK[..., None]).sum(1).type_as(y_ND)


def a_matrix_of_weights(y_ND, order_N, weights_TK):
    """One sparse matrix, here written out: row t holds the weights of token t's assignments."""
    tokens, k = weights_TK.shape
    token_N, row_N = order_N // k, torch.arange(len(order_N))
    mix_TN = y_ND.new_zeros(tokens, len(order_N))
    mix_TN[token_N, row_N] = weights_TK[token_N, order_N % k].to(y_ND.dtype)
    return mix_TN @ y_ND


def copied_into_place(y_ND, order_N, weights_TK):
    """index_copy_ writes each row to the place of its assignment."""
    y_TKD = torch.empty_like(y_ND)
    y_TKD.index_copy_(0, order_N, y_ND * weights_TK.reshape(-1)[order_N].to(y_ND.dtype)[:, None])
    return y_TKD.unflatten(0, weights_TK.shape).sum(dim=1)


def one_hot_sums(y_ND, order_N, weights_TK):
    token_N = order_N // weights_TK.shape[1]
    member_TN = torch.nn.functional.one_hot(token_N, len(weights_TK)).T.to(y_ND.dtype)
    return member_TN @ (y_ND * weights_TK.flatten()[order_N, None].to(y_ND.dtype))


def gathered_and_accumulated(y_ND, order_N, weights_TK):
    """index_put_ with accumulate=True is what `+=` on repeated indices is not."""
    rows = (y_ND * weights_TK.reshape(-1).gather(0, order_N)[:, None]).to(y_ND.dtype)
    y_TD = torch.zeros(len(weights_TK), y_ND.shape[1], dtype=y_ND.dtype)
    return y_TD.index_put((order_N // weights_TK.shape[1],), rows, accumulate=True)
