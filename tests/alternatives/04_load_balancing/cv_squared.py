import torch


def relative_deviations(values_E):
    values_E = values_E.double()
    return ((values_E / values_E.mean() - 1) ** 2).mean()


def standard_deviation_over_mean(values_E):
    std, mean = torch.std_mean(values_E.float(), correction=0)
    return (std / mean).square() if std > 0 else (values_E.float() - mean).square().sum()


def expert_by_expert(values_E):
    values = values_E.to(torch.float64).unbind()
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) * mean**2)
