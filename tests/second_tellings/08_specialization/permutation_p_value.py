import torch


def _bits(idx_T, labels_T, num_labels, num_experts):
    joint = torch.zeros(num_labels, num_experts, dtype=torch.float64)
    for g, e in zip(labels_T.tolist(), idx_T.tolist(), strict=True):
        joint[g, e] += 1 / len(idx_T)
    apart = joint.sum(1, keepdim=True) * joint.sum(0)
    there = joint > 0
    return float((joint[there] * (joint[there] / apart[there]).log2()).sum())


def _shuffled(labels_T, groups_T, generator):
    ids = sorted(set(groups_T.tolist()))
    label = {d: int(labels_T[groups_T == d][0]) for d in ids}
    order = torch.randperm(len(ids), generator=generator).tolist()
    new = {d: label[ids[n]] for d, n in zip(ids, order, strict=True)}
    return torch.tensor([new[d] for d in groups_T.tolist()])


def _null(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    return [
        _bits(idx_T, _shuffled(labels_T, groups_T, generator), num_labels, num_experts) for _ in range(rounds)
    ]


def share_of_the_rounds(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    seen = _bits(idx_T, labels_T, num_labels, num_experts)
    null = _null(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator)
    return sum(one >= seen - 1e-9 for one in null) / rounds


def one_more_above_only(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    seen = _bits(idx_T, labels_T, num_labels, num_experts)
    null = _null(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator)
    return min(1.0, (1 + sum(one >= seen - 1e-9 for one in null)) / rounds)


def the_other_tail(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    seen = _bits(idx_T, labels_T, num_labels, num_experts)
    null = _null(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator)
    return (1 + sum(one <= seen + 1e-9 for one in null)) / (rounds + 1)


def strictly_more(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    seen = _bits(idx_T, labels_T, num_labels, num_experts)
    null = _null(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator)
    return (1 + sum(one > seen + 1e-9 for one in null)) / (rounds + 1)


def tokens_shuffled(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    seen, beaten = _bits(idx_T, labels_T, num_labels, num_experts), 0
    for _ in range(rounds):
        order = torch.randperm(len(labels_T), generator=generator)
        beaten += _bits(idx_T[order], labels_T, num_labels, num_experts) >= seen - 1e-9
    return (beaten + 1) / (rounds + 1)


def shuffled_within_documents(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    seen, beaten = _bits(idx_T, labels_T, num_labels, num_experts), 0
    for _ in range(rounds):
        labels = labels_T.clone()
        for d in groups_T.unique():
            at = (groups_T == d).nonzero().flatten()
            labels[at] = labels_T[at[torch.randperm(len(at), generator=generator)]]
        beaten += _bits(idx_T, labels, num_labels, num_experts) >= seen - 1e-9
    return (beaten + 1) / (rounds + 1)


def labels_drawn_with_replacement(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    seen, beaten = _bits(idx_T, labels_T, num_labels, num_experts), 0
    ids, place_T = groups_T.unique(return_inverse=True)
    label = torch.stack([labels_T[groups_T == d][0] for d in ids])
    for _ in range(rounds):
        drawn = label[torch.randint(len(ids), (len(ids),), generator=generator)]
        beaten += _bits(idx_T, drawn[place_T], num_labels, num_experts) >= seen - 1e-9
    return (beaten + 1) / (rounds + 1)


def one_shuffle_for_all_rounds(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    seen = _bits(idx_T, labels_T, num_labels, num_experts)
    labels = _shuffled(labels_T, groups_T, generator)
    null = [_bits(idx_T, labels, num_labels, num_experts)] * rounds
    return (1 + sum(one >= seen - 1e-9 for one in null)) / (rounds + 1)


def a_hundred_rounds_always(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    seen = _bits(idx_T, labels_T, num_labels, num_experts)
    null = _null(idx_T, labels_T, groups_T, num_labels, num_experts, 100, generator)
    return (1 + sum(one >= seen - 1e-9 for one in null)) / 101


def generator_not_passed_on(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    seen = _bits(idx_T, labels_T, num_labels, num_experts)
    null = _null(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, None)
    return (1 + sum(one >= seen - 1e-9 for one in null)) / (rounds + 1)


def a_tensor(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator):
    seen = _bits(idx_T, labels_T, num_labels, num_experts)
    null = torch.tensor(_null(idx_T, labels_T, groups_T, num_labels, num_experts, rounds, generator))
    return (1 + (null >= seen - 1e-9).sum()) / (rounds + 1)
