import torch


def not_squared(values_E):
    v = values_E.float()
    mean = v.sum() / len(v)
    return torch.sqrt(((v - mean) ** 2).sum() / len(v)) / mean


def variance_over_the_mean(values_E):
    m = values_E.mean()
    return torch.square(values_E - m).mean() / m


def variance_alone(values_E):
    return (values_E**2).mean() - values_E.mean() ** 2


def sample_variance(values_E):
    m = values_E.mean()
    return ((values_E - m) ** 2).sum() / (len(values_E) - 1) / m**2


def a_python_number(values_E):
    v = values_E.tolist()
    m = sum(v) / len(v)
    return sum((x - m) ** 2 for x in v) / len(v) / m**2


def no_gradient(values_E):
    with torch.no_grad():
        m = values_E.float().mean()
        return (values_E.float() - m).pow(2).mean() / m.pow(2)


def divided_by_the_sum(values_E):
    v = values_E.float()
    return v.var(unbiased=False) / v.sum() ** 2
