import torch

from moe_course.grading.judge.catalogue import caught_by


def _table(idx_TK, labels_T, num_labels, num_experts):
    counts_GE = torch.zeros(num_labels, num_experts, dtype=torch.int64)
    for chosen, label in zip(idx_TK.tolist(), labels_T.tolist(), strict=True):
        for expert in chosen:
            counts_GE[label, expert] += 1
    return counts_GE


@caught_by("first_choices")
def experts_down_labels_across(idx_TK, labels_T, num_labels, num_experts):
    """Which axis does counts_GE name first?"""
    return _table(idx_TK, labels_T, num_labels, num_experts).T.contiguous()


@caught_by("first_choices")
def numbered_by_the_wrong_size(idx_TK, labels_T, num_labels, num_experts):
    """How many cells does a row of the table have: as many as labels or as experts?"""
    cells_TK = labels_T[:, None] * num_labels + idx_TK
    counts = torch.bincount(cells_TK.flatten(), minlength=num_labels * num_experts)
    return counts[: num_labels * num_experts].view(num_labels, num_experts)


@caught_by("first_choices")
def shares_of_the_label(idx_TK, labels_T, num_labels, num_experts):
    """Are shares of a label still counts, and can the next exercise see how many tokens the label has?"""
    counts_GE = _table(idx_TK, labels_T, num_labels, num_experts).float()
    return counts_GE / counts_GE.sum(dim=1, keepdim=True).clamp(min=1)


@caught_by("first_choices")
def repeated_cells_counted_once(idx_TK, labels_T, num_labels, num_experts):
    """`counts[labels, idx] += 1` reads, adds and writes. If two tokens name the same cell, how often is 1 added?"""
    counts_GE = torch.zeros(num_labels, num_experts, dtype=torch.int64)
    counts_GE[labels_T[:, None], idx_TK] += 1
    return counts_GE


@caught_by("first_choices")
def repeated_cells_counted_once_a_slot(idx_TK, labels_T, num_labels, num_experts):
    """A loop over the slots, and `counts[labels, idx[:, k]] += 1` in it. If two tokens of one label chose the same
    expert in slot k, how often is 1 added?"""
    counts_GE = torch.zeros(num_labels, num_experts, dtype=torch.int64)
    for idx_T in idx_TK.unbind(1):
        counts_GE[labels_T, idx_T] += 1
    return counts_GE


@caught_by("every_choice")
def first_choice_only(idx_TK, labels_T, num_labels, num_experts):
    """How many experts work on a token?"""
    return _table(idx_TK[:, :1], labels_T, num_labels, num_experts)


@caught_by("every_choice")
def last_choice_only(idx_TK, labels_T, num_labels, num_experts):
    """What do the choices before the last one add to the table?"""
    return _table(idx_TK[:, -1:], labels_T, num_labels, num_experts)


@caught_by("every_choice")
def labels_repeated_as_a_block(idx_TK, labels_T, num_labels, num_experts):
    """Flattened, the choices of one token stand side by side. Do its labels, in your list?"""
    labels_N = labels_T.repeat(idx_TK.shape[1])
    return _table(idx_TK.flatten()[:, None], labels_N, num_labels, num_experts)


@caught_by("every_choice")
def a_token_split_over_its_choices(idx_TK, labels_T, num_labels, num_experts):
    """A token with K experts adds 1/K to each here. What does the table count: tokens or choices?"""
    return _table(idx_TK, labels_T, num_labels, num_experts) / idx_TK.shape[1]


@caught_by("empty")
def as_many_labels_as_occur(idx_TK, labels_T, num_labels, num_experts):
    """How many rows has your table when the last label has no tokens?"""
    return _table(idx_TK, labels_T, num_labels, num_experts)[: int(labels_T.max()) + 1]


@caught_by("empty")
def as_many_experts_as_occur(idx_TK, labels_T, num_labels, num_experts):
    """How many columns has your table when nobody chose the last expert?"""
    return _table(idx_TK, labels_T, num_labels, num_experts)[:, : int(idx_TK.max()) + 1]


@caught_by("empty")
def at_least_one(idx_TK, labels_T, num_labels, num_experts):
    """You keep the counts above 0 to be safe. What do they now say of a label without tokens?"""
    return _table(idx_TK, labels_T, num_labels, num_experts).clamp(min=1)


@caught_by("other_inputs", form=True)
def numbered_in_place(idx_TK, labels_T, num_labels, num_experts):
    """Whose tensor do you add the labels' numbers to?"""
    idx_TK += labels_T[:, None] * num_experts
    counts = torch.bincount(idx_TK.flatten(), minlength=num_labels * num_experts)
    return counts.view(num_labels, num_experts)


@caught_by("other_inputs", form=True)
def viewed_flat(idx_TK, labels_T, num_labels, num_experts):
    """Can every tensor be viewed flat, also one that is stored by columns?"""
    expert_N = idx_TK.view(-1)
    label_N = labels_T.repeat_interleave(idx_TK.shape[1])
    return _table(expert_N[:, None], label_N, num_labels, num_experts)
