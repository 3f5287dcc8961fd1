import torch
import torch.nn.functional as F


def one_hot_product(idx_TK, labels_T, num_labels, num_experts):
    label_TG = F.one_hot(labels_T, num_labels)
    chosen_TE = F.one_hot(idx_TK, num_experts).sum(1)
    return label_TG.T @ chosen_TE


def one_by_one(idx_TK, labels_T, num_labels, num_experts):
    counts_GE = torch.zeros(num_labels, num_experts, dtype=torch.int32)
    for t in range(len(labels_T)):
        for k in range(idx_TK.shape[1]):
            counts_GE[labels_T[t], idx_TK[t, k]] += 1
    return counts_GE


def label_by_label(idx_TK, labels_T, num_labels, num_experts):
    rows = [torch.bincount(idx_TK[labels_T == g].flatten(), minlength=num_experts) for g in range(num_labels)]
    return torch.stack(rows)


def added_at_places(idx_TK, labels_T, num_labels, num_experts):
    counts_GE = torch.zeros(num_labels, num_experts)
    labels_TK = labels_T[:, None].expand_as(idx_TK)
    ones_TK = torch.ones(idx_TK.shape)
    return counts_GE.index_put((labels_TK, idx_TK), ones_TK, accumulate=True)
