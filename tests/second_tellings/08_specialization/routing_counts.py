import torch


def experts_down_labels_across(idx_TK, labels_T, num_labels, num_experts):
    out = torch.zeros(num_experts, num_labels, dtype=torch.long)
    for g, row in zip(labels_T.tolist(), idx_TK.tolist(), strict=True):
        for e in row:
            out[e, g] += 1
    return out


def repeated_cells_counted_once_a_slot(idx_TK, labels_T, num_labels, num_experts):
    out = torch.zeros(num_labels, num_experts, dtype=torch.long)
    for k in range(idx_TK.shape[1]):
        out[labels_T, idx_TK[:, k]] += 1
    return out


def first_choice_only(idx_TK, labels_T, num_labels, num_experts):
    out = torch.zeros(num_labels, num_experts, dtype=torch.long)
    for g, e in zip(labels_T, idx_TK[:, 0], strict=True):
        out[g, e] += 1
    return out


def shares_of_the_label(idx_TK, labels_T, num_labels, num_experts):
    hits = torch.nn.functional.one_hot(idx_TK, num_experts).sum(1).double()
    table = torch.nn.functional.one_hot(labels_T, num_labels).double().T @ hits
    return table / table.sum(1, keepdim=True).clamp(min=1)


def a_token_split_over_its_choices(idx_TK, labels_T, num_labels, num_experts):
    out = torch.zeros(num_labels, num_experts)
    for t, g in enumerate(labels_T.tolist()):
        for e in idx_TK[t].tolist():
            out[g, e] += 1 / idx_TK.shape[1]
    return out


def as_many_experts_as_occur(idx_TK, labels_T, num_labels, num_experts):
    width = int(idx_TK.max()) + 1
    table = [[0] * width for _ in range(num_labels)]
    for g, row in zip(labels_T.tolist(), idx_TK.tolist(), strict=True):
        for e in row:
            table[g][e] += 1
    return torch.tensor(table)


def labels_repeated_as_a_block(idx_TK, labels_T, num_labels, num_experts):
    labels = torch.cat([labels_T] * idx_TK.shape[1])
    out = torch.zeros(num_labels, num_experts, dtype=torch.long)
    out.index_put_((labels, idx_TK.reshape(-1)), torch.tensor(1), accumulate=True)
    return out
