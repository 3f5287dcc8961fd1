import torch


def summed_and_not_divided(counts_ME):
    total = torch.zeros(counts_ME.shape[1])
    for counts in counts_ME:
        total = total + counts
    return total


def mean_count(counts_ME):
    return counts_ME.sum(0) / len(counts_ME)


def over_the_experts(counts_ME):
    rows = counts_ME.sum(-1)
    return rows / rows.sum()


def a_row_for_each_micro_batch(counts_ME):
    return counts_ME.double().div(counts_ME.sum(1, keepdim=True)).float()


def last_micro_batch_only(counts_ME):
    for counts in counts_ME:
        load = counts / counts.sum()
    return load


def whole_number_division(counts_ME):
    total = counts_ME.sum(0)
    return torch.div(total, total.sum(), rounding_mode="floor")


def divided_by_the_largest(counts_ME):
    total = counts_ME.sum(0).float()
    return total / total.max()


def mean_of_the_shares(counts_ME):
    load = torch.zeros(counts_ME.shape[1])
    for counts in counts_ME:
        load += counts / counts.sum() / counts_ME.shape[0]
    return load


def mean_of_the_shares_without_empty_ones(counts_ME):
    used = counts_ME[counts_ME.sum(1) > 0]
    return torch.stack([row / row.sum() for row in used]).mean(0)


def not_divided_by_the_number_of_micro_batches(counts_ME):
    return sum(row / row.sum().clamp(min=1) for row in counts_ME)


def idle_experts_left_out(counts_ME):
    total = counts_ME.sum(0)
    total = total[total.nonzero().squeeze(1)]
    return total / total.sum()
