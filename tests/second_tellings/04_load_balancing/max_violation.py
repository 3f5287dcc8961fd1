import torch


def without_minus_one(load_E):
    return len(load_E) * torch.max(load_E) / torch.sum(load_E)


def difference_instead_of_ratio(load_E):
    return torch.max(load_E - load_E.mean())


def largest_over_smallest(load_E):
    return load_E.max() / load_E.min() - 1


def upside_down(load_E):
    return torch.mean(load_E) / torch.max(load_E) - 1


def compared_with_the_median(load_E):
    middle = load_E.quantile(0.5)
    return (load_E.max() - middle) / middle


def sum_instead_of_mean(load_E):
    share = load_E / load_E.sum()
    return share.max() - 1


def the_least_busy(load_E):
    return load_E.min() / load_E.mean() - 1


def violation_of_every_expert(load_E):
    fair = load_E.mean()
    return (load_E - fair) / fair


def a_python_number(load_E):
    return float(load_E.max() / load_E.mean()) - 1


def deviation_in_either_direction(load_E):
    fair = load_E.sum() / load_E.numel()
    return (load_E / fair - 1).abs().max()


def mean_over_experts_in_use(load_E):
    used = load_E[load_E > 0]
    return used.max() / used.mean() - 1
