import torch

from moe_course.grading.judge.catalogue import caught_by


def _ranks(idx_TK, num_experts, num_ranks):
    return idx_TK // (num_experts // num_ranks)


@caught_by("one_choice")
def dealt_like_cards(idx_TK, num_experts, num_ranks):
    """Are neighbouring experts on one rank, or on different ones?"""
    return torch.bincount(idx_TK.flatten() % num_ranks, minlength=num_ranks)


@caught_by("one_choice")
def counts_of_the_experts(idx_TK, num_experts, num_ranks):
    """Whom does a rank send to: to experts, or to ranks?"""
    return torch.bincount(idx_TK.flatten(), minlength=num_experts)


@caught_by("one_choice")
def own_rank_left_out(idx_TK, num_experts, num_ranks):
    """Rows for the own rank pass through `all_to_all_single` as well. Where are they in your counts?"""
    counts_R = torch.bincount(_ranks(idx_TK, num_experts, num_ranks).flatten(), minlength=num_ranks)
    counts_R[0] = 0
    return counts_R


@caught_by("one_choice")
def equal_shares(idx_TK, num_experts, num_ranks):
    """You send every rank the same number. Is that what these tokens chose?"""
    return torch.full((num_ranks,), idx_TK.numel() // num_ranks)


@caught_by("one_choice")
def shares_for_counts(idx_TK, num_experts, num_ranks):
    """You return shares. How many rows must be sent for a share of 0.25?"""
    counts_R = torch.bincount(_ranks(idx_TK, num_experts, num_ranks).flatten(), minlength=num_ranks)
    return counts_R / counts_R.sum()


@caught_by("twice")
def tokens_counted_once(idx_TK, num_experts, num_ranks):
    """A token has two experts on one rank. How many rows travel there, if each expert gets its own?"""
    rank_TK = _ranks(idx_TK, num_experts, num_ranks)
    return torch.stack([(rank_TK == rank).any(dim=1).sum() for rank in range(num_ranks)])


@caught_by("twice")
def first_choices_only(idx_TK, num_experts, num_ranks):
    """What about the second choice of each token, and the third?"""
    return torch.bincount(_ranks(idx_TK[:, 0], num_experts, num_ranks), minlength=num_ranks)


@caught_by("zeros")
def last_ranks_missing(idx_TK, num_experts, num_ranks):
    """Nobody chose an expert of the last rank. How many numbers does your result have?"""
    return torch.bincount(_ranks(idx_TK, num_experts, num_ranks).flatten())


@caught_by("zeros")
def silent_ranks_left_out(idx_TK, num_experts, num_ranks):
    """A rank in the middle gets nothing. Does it have a place in your result?"""
    return _ranks(idx_TK, num_experts, num_ranks).unique(return_counts=True)[1]


@caught_by("other_inputs", form=True)
def float_counts(idx_TK, num_experts, num_ranks):
    """Counts are whole numbers. Which dtype are yours?"""
    rank_N = _ranks(idx_TK, num_experts, num_ranks).flatten()
    return torch.zeros(num_ranks).index_add(0, rank_N, torch.ones(len(rank_N)))
