import math
import random

import torch


def all_rounds_at_once(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    ids, document_T = groups_T.unique(return_inverse=True)
    labels = torch.zeros(len(ids), dtype=torch.long)
    labels[document_T] = labels_T
    counts = torch.zeros(len(ids), num_experts, dtype=torch.float64)
    counts.index_put_((document_T, idx_T), torch.ones(len(idx_T), dtype=torch.float64), accumulate=True)
    order = torch.rand(rounds, len(ids), generator=generator, dtype=torch.float64).argsort(1)
    every = torch.cat([labels[None], labels[order]])  # the labels as they are, and the shuffles
    tables = torch.nn.functional.one_hot(every, num_labels).double().transpose(1, 2) @ counts
    p = tables / len(idx_T)
    product = p.sum(2, keepdim=True) * p.sum(1, keepdim=True)
    bits = torch.xlogy(p, p / product.clamp(min=1e-300)).sum((1, 2)) / math.log(2)
    return (1 + int((bits[1:] >= bits[0] - 1e-9).sum())) / (1 + rounds)


def documents_in_lists(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    """Plain Python, seeded by one draw from the generator."""
    lots = random.Random(int(torch.randint(2**31, (), generator=generator)))
    label_of, experts_of = {}, {}
    for expert, label, document in zip(idx_T.tolist(), labels_T.tolist(), groups_T.tolist(), strict=True):
        label_of[document] = label
        experts_of.setdefault(document, [0] * num_experts)[expert] += 1

    def bits(labels):
        table = [[0] * num_experts for _ in range(num_labels)]
        for document, label in zip(label_of, labels, strict=True):
            for expert, count in enumerate(experts_of[document]):
                table[label][expert] += count
        columns = [sum(column) for column in zip(*table, strict=True)]
        total = sum(columns)
        return sum(
            c / total * math.log2(c * total / (sum(row) * columns[e]))
            for row in table
            for e, c in enumerate(row)
            if c
        )

    labels = list(label_of.values())
    observed = bits(labels)
    null = [bits(lots.sample(labels, len(labels))) for _ in range(rounds)]
    return sum(b >= observed for b in [observed, *null]) / (1 + rounds)


def table_of_every_shuffle(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    """Shuffles of a shuffle are shuffles; nats rank the tables as bits do."""
    ids, first_T = groups_T.unique(return_inverse=True)
    one_of_each = torch.stack([(first_T == d).nonzero()[0, 0] for d in range(len(ids))])

    def information(labels_T):
        joint_GE = torch.zeros(num_labels, num_experts)
        joint_GE.index_put_((labels_T, idx_T), torch.tensor(1 / len(idx_T)), accumulate=True)
        entropy = torch.special.entr
        return entropy(joint_GE.sum(1)).sum() + entropy(joint_GE.sum(0)).sum() - entropy(joint_GE).sum()

    observed, labels, count = information(labels_T), labels_T[one_of_each], 1
    for _ in range(rounds):
        labels = labels[torch.randperm(len(labels), generator=generator)]
        count += bool(information(labels[first_T]) > observed - 1e-5)
    return count / (rounds + 1)
