import torch


def number_of_experts_times_the_largest_share(load_E):
    return (len(load_E) * load_E / load_E.sum()).amax() - 1


def largest_relative_excess(load_E):
    fair = load_E.mean()
    return torch.max((load_E - fair) / fair)


def sorted_loads(load_E):
    ordered_E = load_E.sort(descending=True).values
    return ordered_E[0] * ordered_E.numel() / ordered_E.sum() - 1.0
