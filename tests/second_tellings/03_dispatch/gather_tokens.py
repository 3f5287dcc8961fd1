import torch


def assignments_taken_for_tokens(x_TD, order_N, top_k):
    return torch.stack([x_TD[min(n, len(x_TD) - 1)] for n in order_N.tolist()])


def remainder_for_quotient(x_TD, order_N, top_k):
    return torch.stack([x_TD[n % top_k] for n in order_N.tolist()])


def slots_before_tokens(x_TD, order_N, top_k):
    return torch.cat([x_TD] * top_k).index_select(0, order_N)


def scattered_instead_of_gathered(x_TD, order_N, top_k):
    copies = torch.repeat_interleave(x_TD, top_k, 0)
    out = torch.zeros_like(copies)
    for n, place in enumerate(order_N.tolist()):
        out[place] = copies[n]
    return out


def tokens_left_as_they_stand(x_TD, order_N, top_k):
    return torch.stack([x for x in x_TD for _ in range(top_k)])


def divided_by_k(x_TD, order_N, top_k):
    return torch.stack([x_TD[n // top_k] / top_k for n in order_N.tolist()])
