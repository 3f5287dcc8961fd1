import itertools

import torch


def one_by_one(idx_BS):
    same = pairs = 0
    for row in idx_BS.tolist():
        for here, there in itertools.pairwise(row):
            same += here == there
            pairs += 1
    return same / pairs


def no_difference(idx_BS):
    steps = idx_BS.diff(dim=1)
    return float((steps == 0).sum()) / steps.numel()


def mean_of_the_sequences(idx_BS):
    return torch.stack([(row[1:] == row[:-1]).float().mean() for row in idx_BS]).mean().item()


def windows(idx_BS):
    pairs = idx_BS.unfold(1, 2, 1)
    return (pairs[..., 0] == pairs[..., 1]).double().mean().item()
