import torch
import torch.nn.functional as F


def dealt_like_cards(idx_TK, num_experts, num_ranks):
    return F.one_hot(idx_TK.remainder(num_ranks), num_ranks).sum((0, 1))


def counts_of_the_experts(idx_TK, num_experts, num_ranks):
    return F.one_hot(idx_TK, num_experts).sum((0, 1))


def own_rank_left_out(idx_TK, num_experts, num_ranks):
    rank_TK = idx_TK // (num_experts // num_ranks)
    return torch.bincount(rank_TK[rank_TK > 0], minlength=num_ranks)


def equal_shares(idx_TK, num_experts, num_ranks):
    tokens, slots = idx_TK.shape
    return torch.tensor([tokens * slots // num_ranks for _ in range(num_ranks)])


def tokens_counted_once(idx_TK, num_experts, num_ranks):
    counts = [0] * num_ranks
    for row in idx_TK.tolist():
        for rank in {e * num_ranks // num_experts for e in row}:
            counts[rank] += 1
    return torch.tensor(counts)


def first_choices_only(idx_TK, num_experts, num_ranks):
    ranks = [row[0] // (num_experts // num_ranks) for row in idx_TK.tolist()]
    return torch.tensor([ranks.count(r) for r in range(num_ranks)])


def last_ranks_missing(idx_TK, num_experts, num_ranks):
    rank_TK = idx_TK // (num_experts // num_ranks)
    return torch.tensor([int((rank_TK == r).sum()) for r in range(int(rank_TK.max()) + 1)])


def silent_ranks_left_out(idx_TK, num_experts, num_ranks):
    ranks = (idx_TK // (num_experts // num_ranks)).flatten().tolist()
    return torch.tensor([ranks.count(r) for r in sorted(set(ranks))])


def float_counts(idx_TK, num_experts, num_ranks):
    return torch.histc((idx_TK // (num_experts // num_ranks)).float(), num_ranks, 0, num_ranks)
