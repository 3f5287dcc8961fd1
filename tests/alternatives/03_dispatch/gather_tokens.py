import torch


def index_select_rows(x_TD, order_N, top_k):
    return x_TD.index_select(0, torch.div(order_N, top_k, rounding_mode="floor"))


def repeat_then_permute(x_TD, order_N, top_k):
    return x_TD.repeat_interleave(top_k, dim=0)[order_N]


def expanded_view(x_TD, order_N, top_k):
    return x_TD[:, None].expand(-1, top_k, -1).flatten(0, 1)[order_N]


def row_by_row(x_TD, order_N, top_k):
    return torch.stack([x_TD[n // top_k] for n in order_N.tolist()])


def torch_gather(x_TD, order_N, top_k):
    return torch.gather(x_TD, 0, (order_N // top_k)[:, None].expand(-1, x_TD.shape[1]))


def one_hot_rows(x_TD, order_N, top_k):
    """A matrix of zeros and ones picks the rows."""
    return torch.nn.functional.one_hot(order_N // top_k, len(x_TD)).to(x_TD.dtype) @ x_TD
