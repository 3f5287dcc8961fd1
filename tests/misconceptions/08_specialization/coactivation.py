import torch

from moe_course.grading.judge.catalogue import caught_by


def _chosen(idx_TK, num_experts):
    return torch.zeros(len(idx_TK), num_experts, dtype=torch.int64).scatter(1, idx_TK, 1)


def _counts(idx_TK, num_experts):
    chosen_TE = _chosen(idx_TK, num_experts)
    return (chosen_TE.T @ chosen_TE).fill_diagonal_(0)


@caught_by("pairs")
def counted_twice(idx_TK, num_experts):
    """You go through all pairs in both orders, and add each to both entries. How often is a token counted?"""
    return 2 * _counts(idx_TK, num_experts)


@caught_by("pairs")
def shares_of_the_tokens(idx_TK, num_experts):
    """How many tokens: is that a share?"""
    return _counts(idx_TK, num_experts) / len(idx_TK)


@caught_by("pairs")
def given_the_expert(idx_TK, num_experts):
    """Of the tokens of an expert, how many went to another as well: is that table symmetric?"""
    chosen_TE = _chosen(idx_TK, num_experts)
    return _counts(idx_TK, num_experts) / chosen_TE.sum(dim=0).clamp(min=1)[:, None]


@caught_by("pairs")
def upper_half_only(idx_TK, num_experts):
    """counts[a, b] is there. And counts[b, a]?"""
    return _counts(idx_TK, num_experts).triu()


@caught_by("pairs")
def repeated_pairs_counted_once(idx_TK, num_experts):
    """`counts[a, b] += 1` reads, adds and writes. If two tokens have the same two experts, how often is 1 added?"""
    counts_EE = torch.zeros(num_experts, num_experts, dtype=torch.int64)
    counts_EE[idx_TK[:, :, None], idx_TK[:, None, :]] += 1
    return counts_EE.fill_diagonal_(0)


@caught_by("pairs")
def repeated_pairs_counted_once_for_two_slots(idx_TK, num_experts):
    """A loop over pairs of slots, and `counts[a, b] += 1` in it. If two tokens have the same experts in these slots,
    how often is 1 added?"""
    counts_EE = torch.zeros(num_experts, num_experts, dtype=torch.int64)
    for i in range(idx_TK.shape[1]):
        for j in range(idx_TK.shape[1]):
            if i != j:
                counts_EE[idx_TK[:, i], idx_TK[:, j]] += 1
    return counts_EE


@caught_by("pairs")
def tokens_of_the_expert_on_the_diagonal(idx_TK, num_experts):
    """The product of a column with itself is how many tokens chose the expert. Is an expert its own company?"""
    chosen_TE = _chosen(idx_TK, num_experts)
    return chosen_TE.T @ chosen_TE


@caught_by("pairs")
def tokens_with_tokens(idx_TK, num_experts):
    """Which axis is summed over: do you want a table of experts, or of tokens?"""
    chosen_TE = _chosen(idx_TK, num_experts)
    return (chosen_TE @ chosen_TE.T).fill_diagonal_(0)


@caught_by("order")
def first_then_second(idx_TK, num_experts):
    """Row for the first choice, column for the second: is (1, 3) another pair than (3, 1)?"""
    counts_EE = torch.zeros(num_experts, num_experts, dtype=torch.int64)
    for chosen in idx_TK.tolist():
        for slot, a in enumerate(chosen):
            for b in chosen[slot + 1 :]:
                counts_EE[a, b] += 1
    return counts_EE + torch.where(counts_EE.triu() == counts_EE, counts_EE.T, 0)


@caught_by("order")
def first_then_second__upper_half_only(idx_TK, num_experts):
    """Row for the first choice, column for the second: is (1, 3) another pair than (3, 1)?"""
    counts_EE = torch.zeros(num_experts, num_experts, dtype=torch.int64)
    for chosen in idx_TK.tolist():
        for slot, a in enumerate(chosen):
            for b in chosen[slot + 1 :]:
                counts_EE[a, b] += 1
    return counts_EE


@caught_by("order")
def smaller_expert_first(idx_TK, num_experts):
    """You count a pair when the first choice has the smaller number. What about the other tokens?"""
    counts_EE = torch.zeros(num_experts, num_experts, dtype=torch.int64)
    for chosen in idx_TK.tolist():
        for slot, a in enumerate(chosen):
            for b in chosen[slot + 1 :]:
                counts_EE[a, b] += a < b
    return counts_EE + counts_EE.T


@caught_by("more_choices")
def first_two_choices(idx_TK, num_experts):
    """How many pairs do three experts make?"""
    return _counts(idx_TK[:, :2], num_experts)


@caught_by("more_choices")
def next_to_each_other(idx_TK, num_experts):
    """First with second, second with third. What about first and third?"""
    pairs = [idx_TK[:, slot : slot + 2] for slot in range(idx_TK.shape[1] - 1)]
    return sum((_counts(pair, num_experts) for pair in pairs), torch.zeros(num_experts, num_experts).long())


@caught_by("more_choices")
def with_the_first_choice(idx_TK, num_experts):
    """First with second, first with third. What about second and third?"""
    pairs = [idx_TK[:, [0, slot]] for slot in range(1, idx_TK.shape[1])]
    return sum((_counts(pair, num_experts) for pair in pairs), torch.zeros(num_experts, num_experts).long())


@caught_by("more_choices")
def a_token_split_over_its_pairs(idx_TK, num_experts):
    """A token with three experts adds a third to each of its pairs here. How many tokens chose both?"""
    k = idx_TK.shape[1]
    return _counts(idx_TK, num_experts) / max(k * (k - 1) // 2, 1)


@caught_by("alone")
def alone_on_the_diagonal(idx_TK, num_experts):
    """With K = 1 you count an expert as its own partner. Who chose it twice?"""
    counts_EE = _counts(idx_TK, num_experts)
    if idx_TK.shape[1] == 1:
        counts_EE += torch.diag(idx_TK.flatten().bincount(minlength=num_experts))
    return counts_EE


@caught_by("alone")
def needs_a_second_choice(idx_TK, num_experts):
    """What does your code do when there is no second choice?"""
    idx_TK[:, 1]
    return _counts(idx_TK, num_experts)


@caught_by("empty")
def as_many_experts_as_occur(idx_TK, num_experts):
    """How large is your table when nobody chose the last expert?"""
    return _counts(idx_TK, int(idx_TK.max()) + 1)


@caught_by("empty")
def idle_experts_left_out(idx_TK, num_experts):
    """An expert that nobody chose has no row here. Which row is expert 3?"""
    busy = idx_TK.unique()
    return _counts(idx_TK, num_experts)[busy][:, busy]


@caught_by("empty")
def at_least_one(idx_TK, num_experts):
    """You keep the counts above 0 to be safe. How often was the idle expert chosen?"""
    counts_EE = _counts(idx_TK, num_experts)
    idle_E = _chosen(idx_TK, num_experts).sum(dim=0) == 0
    return torch.where(idle_E[:, None] ^ idle_E, 1, counts_EE)


@caught_by("other_inputs", form=True)
def sorted_in_place(idx_TK, num_experts):
    """In whose tensor are the experts of a token in order now?"""
    idx_TK.copy_(idx_TK.sort(dim=1).values)
    return _counts(idx_TK, num_experts)


@caught_by("other_inputs", form=True)
def viewed_flat(idx_TK, num_experts):
    """Can every tensor be viewed flat, also one that is stored by columns?"""
    return _counts(idx_TK.view(-1).view(idx_TK.shape), num_experts)
