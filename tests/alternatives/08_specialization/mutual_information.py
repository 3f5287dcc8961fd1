import math

import torch


def three_entropies(counts_GE):
    def entropy(counts):
        p = counts.double() / counts.sum()
        return torch.special.entr(p).sum() / math.log(2)

    return float(entropy(counts_GE.sum(1)) + entropy(counts_GE.sum(0)) - entropy(counts_GE))


def cell_by_cell(counts_GE):
    rows = counts_GE.tolist()
    total = sum(map(sum, rows))
    of_label = [sum(row) for row in rows]
    of_expert = [sum(column) for column in zip(*rows, strict=True)]
    bits = 0.0
    for g, row in enumerate(rows):
        for e, count in enumerate(row):
            if count:
                bits += count / total * math.log2(count * total / (of_label[g] * of_expert[e]))
    return bits


def less_uncertain_by(counts_GE):
    """H(E) − H(E | G), in float32."""
    counts_GE = counts_GE.float()
    p_G = counts_GE.sum(1) / counts_GE.sum()
    given_GE = counts_GE / counts_GE.sum(1, keepdim=True).clamp(min=1)
    p_E = counts_GE.sum(0) / counts_GE.sum()
    nats = torch.special.entr(p_E).sum() - p_G @ torch.special.entr(given_GE).sum(1)
    return nats.item() / math.log(2)


def divergence(counts_GE):
    p_GE = counts_GE / counts_GE.sum()
    product_GE = torch.outer(p_GE.sum(1), p_GE.sum(0))
    terms_GE = torch.where(p_GE > 0, p_GE * (p_GE / product_GE).log2(), 0.0)
    return max(float(terms_GE.nansum()), 0.0)
