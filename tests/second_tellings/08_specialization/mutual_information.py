import math

import torch


def _bits(p, log):
    total, pg, pe = 0.0, p.sum(1), p.sum(0)
    for g in range(p.shape[0]):
        for e in range(p.shape[1]):
            if p[g, e] > 0:
                total += float(p[g, e]) * log(float(p[g, e] / (pg[g] * pe[e])))
    return total


def in_nats(counts_GE):
    return _bits(counts_GE.double() / counts_GE.sum(), math.log)


def upside_down(counts_GE):
    return -_bits(counts_GE.double() / counts_GE.sum(), math.log2)


def entropy_of_the_table(counts_GE):
    p = counts_GE.double().flatten() / counts_GE.sum()
    return -sum(x * math.log2(x) for x in p.tolist() if x)


def entropy_of_the_expert_given_the_label(counts_GE):
    p = counts_GE.double() / counts_GE.sum()
    h = 0.0
    for row in p:
        for x in row[row > 0]:
            h -= float(x) * math.log2(float(x / row.sum()))
    return h


def share_of_the_label_entropy(counts_GE):
    p = counts_GE.double() / counts_GE.sum()
    h = -sum(x * math.log2(x) for x in p.sum(1).tolist() if x > 0)
    return _bits(p, math.log2) / h if h else 0.0


def a_tensor(counts_GE):
    p = counts_GE.double() / counts_GE.sum()
    outer = p.sum(1, keepdim=True) @ p.sum(0, keepdim=True)
    return torch.where(p > 0, p * torch.log2(p / outer), 0).sum()
