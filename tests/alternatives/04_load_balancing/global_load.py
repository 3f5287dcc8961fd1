import torch


def divided_in_float64(counts_ME):
    counts_E = counts_ME.double().sum(0)
    return counts_E / counts_E.sum()


def added_one_by_one(counts_ME):
    running_E = torch.zeros(counts_ME.shape[1])
    for counts_E in counts_ME:
        running_E = running_E + counts_E
    return running_E / float(counts_ME.sum())


def shares_weighted_by_size(counts_ME):
    counts_ME = counts_ME.float()
    sizes_M = counts_ME.sum(1)
    shares_ME = counts_ME / sizes_M.clamp(min=1)[:, None]
    return (sizes_M / sizes_M.sum()) @ shares_ME
