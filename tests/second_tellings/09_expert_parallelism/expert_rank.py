def _check(expert, num_experts, num_ranks):
    if min(num_experts, num_ranks) <= 0:
        raise ValueError("positive sizes")
    if num_experts % num_ranks != 0:
        raise ValueError("does not divide")
    if expert < 0 or expert >= num_experts:
        raise ValueError("no such expert")


def dealt_like_cards(expert, num_experts, num_ranks):
    _check(expert, num_experts, num_ranks)
    return [e % num_ranks for e in range(num_experts)][expert]


def divided_by_the_ranks(expert, num_experts, num_ranks):
    _check(expert, num_experts, num_ranks)
    return int(expert / num_ranks)


def place_within_the_block(expert, num_experts, num_ranks):
    _check(expert, num_experts, num_ranks)
    size = num_experts // num_ranks
    return expert - size * (expert // size)


def ranks_from_one(expert, num_experts, num_ranks):
    _check(expert, num_experts, num_ranks)
    rank = 1
    while expert >= rank * (num_experts // num_ranks):
        rank += 1
    return rank


def from_the_last_rank(expert, num_experts, num_ranks):
    _check(expert, num_experts, num_ranks)
    return (num_experts - 1 - expert) // (num_experts // num_ranks)


def rest_to_the_last_rank(expert, num_experts, num_ranks):
    if min(num_experts, num_ranks) <= 0 or expert < 0 or expert >= num_experts:
        raise ValueError("bad arguments")
    size = max(num_experts // num_ranks, 1)
    rank = expert // size
    return rank if rank < num_ranks else num_ranks - 1


def experts_that_there_are_not(expert, num_experts, num_ranks):
    if num_experts <= 0 or num_ranks <= 0 or num_experts % num_ranks > 0:
        raise ValueError("bad sizes")
    size = num_experts // num_ranks
    return expert // size


def negative_experts(expert, num_experts, num_ranks):
    if num_experts <= 0 or num_ranks <= 0 or num_experts % num_ranks or expert > num_experts - 1:
        raise ValueError("bad arguments")
    return expert // (num_experts // num_ranks)
