import itertools

import torch


def over_all_tokens(idx_BS):
    return float((idx_BS[:, :-1] == idx_BS[:, 1:]).sum()) / idx_BS.numel()


def share_of_changes(idx_BS):
    pairs = torch.stack([idx_BS[:, :-1], idx_BS[:, 1:]])
    return float((pairs[0] != pairs[1]).double().mean())


def across_sequences(idx_BS):
    seq = idx_BS.flatten().tolist()
    return sum(a == b for a, b in itertools.pairwise(seq)) / (len(seq) - 1)


def chance_of_the_load(idx_BS):
    p = torch.bincount(idx_BS.flatten()).double() / idx_BS.numel()
    return float(torch.dot(p, p))


def round_a_corner(idx_BS):
    return float((idx_BS == idx_BS.roll(-1, dims=1)).double().mean())


def neighbours_in_the_batch(idx_BS):
    return float((idx_BS[1:] == idx_BS[:-1]).double().mean())


def how_many(idx_BS):
    return float(sum(a == b for row in idx_BS.tolist() for a, b in itertools.pairwise(row)))
