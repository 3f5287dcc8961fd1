import torch

from moe_course.grading.judge.catalogue import caught_by


def _order(idx_TK):
    return torch.argsort(idx_TK.flatten(), stable=True)


@caught_by("counts")
def tokens_counted_once(idx_TK, num_experts):
    """A token with K experts makes K assignments. Where do the second choices go in your counts?"""
    return _order(idx_TK), torch.bincount(idx_TK[:, 0], minlength=num_experts)


@caught_by("counts")
def shares_for_counts(idx_TK, num_experts):
    """Your numbers sum to 1. Does the next step want shares, or numbers of rows?"""
    counts_E = torch.bincount(idx_TK.flatten(), minlength=num_experts)
    return _order(idx_TK), counts_E / idx_TK.numel()


@caught_by("counts")
def ends_for_counts(idx_TK, num_experts):
    """Where a group ends is a running sum. How many rows does the group itself have?"""
    return _order(idx_TK), torch.bincount(idx_TK.flatten(), minlength=num_experts).cumsum(0)


@caught_by("counts")
def counts_first(idx_TK, num_experts):
    """Two results: in which order does the signature promise them?"""
    return torch.bincount(idx_TK.flatten(), minlength=num_experts), _order(idx_TK)


@caught_by("empty_experts")
def only_experts_that_occur(idx_TK, num_experts):
    """unique() reports who occurs. What does it say about an expert that nobody chose?"""
    return _order(idx_TK), torch.unique(idx_TK, return_counts=True)[1]


@caught_by("empty_experts")
def counts_as_long_as_the_largest_index(idx_TK, num_experts):
    """How does bincount know that there are experts beyond the largest index it meets?"""
    return _order(idx_TK), torch.bincount(idx_TK.flatten())


@caught_by("sorts")
def slots_before_tokens(idx_TK, num_experts):
    """Is assignment 1 the second slot of token 0, or the first slot of token 1?"""
    flat_N = idx_TK.T.flatten()
    return torch.argsort(flat_N, stable=True), torch.bincount(flat_N, minlength=num_experts)


@caught_by("sorts")
def sorted_experts_returned(idx_TK, num_experts):
    """sort() gives values and indices. Which of the two says where each assignment came from?"""
    flat_N = idx_TK.flatten()
    return torch.sort(flat_N, stable=True).values, torch.bincount(flat_N, minlength=num_experts)


@caught_by("sorts")
def places_instead_of_order(idx_TK, num_experts):
    """Does your order_N say which assignment comes first, or to which place the first assignment goes?"""
    return _order(idx_TK).argsort(), torch.bincount(idx_TK.flatten(), minlength=num_experts)


@caught_by("sorts")
def largest_expert_first(idx_TK, num_experts):
    """Which expert's group comes first?"""
    flat_N = idx_TK.flatten()
    return torch.argsort(flat_N, descending=True, stable=True), torch.bincount(flat_N, minlength=num_experts)


@caught_by("sorts")
def each_token_sorted_for_itself(idx_TK, num_experts):
    """You sort the slots of each token. Which tokens does expert 0 then find side by side?"""
    counts_E = torch.bincount(idx_TK.flatten(), minlength=num_experts)
    return torch.argsort(idx_TK, dim=1, stable=True).flatten(), counts_E


@caught_by("sorts")
def tokens_for_assignments(idx_TK, num_experts):
    """Your order_N names each token K times. Which of its K assignments is meant each time?"""
    return _order(idx_TK) // idx_TK.shape[1], torch.bincount(idx_TK.flatten(), minlength=num_experts)


@caught_by("stable")
def ties_turned_round(idx_TK, num_experts):
    """Sorted downwards and then flipped: in which order do two assignments of one expert come out?"""
    flat_N = idx_TK.flatten()
    return flat_N.argsort(descending=True, stable=True).flip(0), torch.bincount(flat_N, minlength=num_experts)


@caught_by("stable")
def slots_before_tokens_in_a_group(idx_TK, num_experts):
    """Within a group your first choices come before all second choices. Is slot or token the slower index of n?"""
    tokens, k = idx_TK.shape
    flat_N = idx_TK.T.flatten()
    order_N = torch.argsort(flat_N, stable=True)
    return order_N % tokens * k + order_N // tokens, torch.bincount(flat_N, minlength=num_experts)


@caught_by("other_inputs", form=True)
def needs_rows_in_memory(idx_TK, num_experts):
    """view() wants the rows to lie in memory one after the other. Which method copies them if they do not?"""
    flat_N = idx_TK.view(-1)
    return torch.argsort(flat_N, stable=True), torch.bincount(flat_N, minlength=num_experts)


@caught_by("other_inputs", form=True)
def indices_sorted_in_place(idx_TK, num_experts):
    """Your result is right. What does the caller's idx_TK look like now?"""
    flat_N = idx_TK.reshape(-1)
    order_N, counts_E = torch.argsort(flat_N, stable=True), torch.bincount(flat_N, minlength=num_experts)
    idx_TK.copy_(flat_N.sort().values.reshape(idx_TK.shape))
    return order_N, counts_E
