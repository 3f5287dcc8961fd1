import torch


def up_or_down(bias_E, counts_E, rate):
    experts, total = len(counts_E), counts_E.sum()
    up_E, down_E = counts_E * experts < total, counts_E * experts > total
    return bias_E.detach() + rate * (up_E.to(bias_E.dtype) - down_E.to(bias_E.dtype))


def expert_by_expert(bias_E, counts_E, rate):
    mean = float(counts_E.double().mean())
    moved_E = bias_E.detach().clone()
    for e, n in enumerate(counts_E.tolist()):
        if n != mean:
            moved_E[e] += rate if n < mean else -rate
    return moved_E


@torch.no_grad()
def sign_of_the_error(bias_E, counts_E, rate):
    error_E = counts_E.to(torch.float64).mean() - counts_E
    return torch.add(bias_E, error_E.sign().to(bias_E), alpha=rate)
