import torch


def wrong_direction(bias_E, counts_E, rate):
    err = counts_E.float() - counts_E.float().mean()
    return (bias_E + rate * torch.sign(err)).detach()


def step_as_large_as_the_error(bias_E, counts_E, rate):
    c = counts_E.to(bias_E.dtype)
    return bias_E.detach() + (c.mean() - c) * rate


def the_step_alone(bias_E, counts_E, rate):
    mean = counts_E.sum() / len(counts_E)
    return rate * torch.sign(mean - counts_E).to(bias_E.dtype)


def only_those_below(bias_E, counts_E, rate):
    new = bias_E.detach().clone()
    new[counts_E < counts_E.float().mean()] += rate
    return new


def raised_at_the_mean(bias_E, counts_E, rate):
    m = counts_E.double().mean()
    out = [b + rate if c <= m else b - rate for b, c in zip(bias_E.tolist(), counts_E.tolist(), strict=True)]
    return torch.tensor(out, dtype=bias_E.dtype)


def whole_number_mean(bias_E, counts_E, rate):
    mean = int(counts_E.sum()) // len(counts_E)
    return bias_E.detach() + rate * torch.sign(mean - counts_E)


def moved_in_place(bias_E, counts_E, rate):
    m = counts_E.float().mean()
    with torch.no_grad():
        bias_E[counts_E < m] += rate
        bias_E[counts_E > m] -= rate
    return bias_E
